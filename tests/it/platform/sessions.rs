//! What roles, databases and other applications may set, make and publish around an engine: it goes on as it was.

use std::time::Duration;

use helve::db::{migrate, partitions};
use helve_domain::clock::Clock;
use helve_postgres::Database;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::{Builder, Engine, Worker, bare_database, fresh_database, hello, sql, until_within, worker};

const SOON: Duration = Duration::from_secs(20);

/// A database of a role that logs in by itself, with Helve in `public`; and somebody else who may do anything.
struct Owned {
    role: String,
    url: String,
    admin: Client,
}

impl Owned {
    async fn new() -> Self {
        let base = bare_database().await;
        let admin = sql(&base).await;
        let name: String = admin.query_one("select current_database()::text", &[]).await.unwrap().get(0);
        let role = format!("shop_{name}");
        let set_up = format!("create role {role} login; alter database {name} owner to {role}");
        admin.batch_execute(&set_up).await.unwrap();
        let url = base.replace("//postgres@", &format!("//{role}@"));
        migrate::migrate(&Database::at(&url)).await.unwrap();
        Self { role, url, admin }
    }

    async fn by_admin(&self, text: &str) {
        self.admin.batch_execute(&text.replace("shop", &self.role)).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    }

    /// Ends every connection of the role: what comes after is a session of now.
    async fn cut(&self) {
        let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = $1";
        self.admin.query_one(cut, &[&self.role]).await.unwrap();
    }

    async fn number(&self, query: &str) -> i64 {
        let query = query.replace("shop", &self.role);
        self.admin.query_one(&query, &[]).await.unwrap_or_else(|e| panic!("{query}: {e}")).get(0)
    }

    async fn gone(self) {
        let name: String = self.admin.query_one("select current_database()::text", &[]).await.unwrap().get(0);
        self.by_admin(&format!("alter database {name} owner to postgres; drop owned by shop cascade; drop role shop"))
            .await;
    }
}

/// A run, an event and a key go their way.
async fn works(engine: &Engine) {
    engine.workflow("work").await;
    let mut worker = worker(engine, &["work"], 1).await;
    let key = Clock::system().now().micros().to_string();
    let (status, run) =
        engine.post_with("/v1/runs", &[("idempotency-key", &key)], json!({"workflow": "work", "input": 1})).await;
    assert_eq!(status, 201, "{run}");
    let task = worker.find_tasks().await.remove(0);
    worker.finish(&task, json!("x".repeat(5_000))).await;
    engine.run_is(&run["id"], "succeeded").await;
    assert_eq!(engine.post("/v1/events", json!({"key": "x"})).await.0, 201);
    worker.goodbye().await;
}

async fn works_again(engine: &Engine) {
    until_within("the engine works again", SOON, || async {
        let (status, _) = engine.put("/v1/workflows/again", json!({"tasks": [{"name": "again"}]})).await;
        let ready = engine.get("/readyz").await.0 == 200;
        (ready && status == 200).then_some(())
    })
    .await;
    works(engine).await;
}

/// The first schema of the usual search_path is that of the role's name, and everybody who may make schemas may make it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_put_in_front_of_a_running_engine_gets_nothing() {
    const TABLES: [&str; 8] =
        ["idempotency", "run_history", "open_run", "worker", "event", "payload", "workflow_version", "run_transition"];
    let owned = Owned::new().await;
    let engine = Builder::new().on(&owned.url).await;
    works(&engine).await;
    owned.by_admin("create schema authorization shop").await;
    for table in TABLES {
        owned.by_admin(&format!("create table shop.{table} (like public.{table} including all)")).await;
    }
    owned.by_admin("create view shop.token as select * from public.token where false").await;
    owned.by_admin("grant all on all tables in schema shop to shop").await;
    works(&engine).await;
    // Nor do sessions that are opened since, or an engine that is started since.
    owned.cut().await;
    works_again(&engine).await;
    let engine = engine.restart().await;
    works(&engine).await;
    engine.stop().await;
    for table in TABLES {
        assert_eq!(owned.number(&format!("select count(*) from shop.{table}")).await, 0, "{table}");
    }
    assert_eq!(owned.number("select count(*) from public.run_history").await, 4);
    owned.gone().await;
}

/// Sessions that were opened meanwhile keep what they were opened with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_read_only_window_everything_writes_again() {
    let owned = Owned::new().await;
    let engine = Builder::new().on(&owned.url).await;
    works(&engine).await;
    owned.by_admin("alter role shop set default_transaction_read_only = on").await;
    owned.cut().await;
    let put = async |name: &str| engine.put(&format!("/v1/workflows/{name}"), json!({"tasks": [{"name": name}]})).await;
    let (status, body) = until_within("a write is refused for what the database is", SOON, || async {
        for _ in 0..12 {
            engine.get("/v1/workflows").await;
        }
        let (status, body) = put("new").await;
        body["detail"].as_str().is_some_and(|m| m.contains("read-only")).then_some((status, body))
    })
    .await;
    assert_eq!((status, &body["code"]), (503, &json!("unavailable")), "{body}");
    owned.by_admin("alter role shop reset default_transaction_read_only").await;
    works_again(&engine).await;
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
        assert_eq!(put(name).await.0, 200);
    }
    engine.stop().await;
    owned.gone().await;
}

/// What a role or a database sets for its sessions is not meant for an engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_role_change_nothing() {
    let owned = Owned::new().await;
    for set in [
        "standard_conforming_strings = off",
        "transform_null_equals = on",
        "quote_all_identifiers = on",
        "DateStyle = 'German, DMY'",
        "IntervalStyle = 'sql_standard'",
        "TimeZone = 'Asia/Kathmandu'",
        "bytea_output = 'escape'",
        "lock_timeout = '1ms'",
        "idle_session_timeout = '100ms'",
        "default_transaction_isolation = 'serializable'",
        "search_path = nowhere, public",
        "array_nulls = off",
        "extra_float_digits = -15",
    ] {
        owned.by_admin(&format!("alter role shop set {set}")).await;
    }
    let mut engine = Builder::new().on(&owned.url).await;
    works(&engine).await;
    // The second start finds the weeks of the first.
    engine = engine.restart().await;
    works(&engine).await;
    let now = Clock::system().now();
    partitions::make_ahead(&engine.pool, now).await.unwrap();
    assert_eq!(owned.number("select count(*) from pg_inherits where inhparent = 'public.event'::regclass").await, 4);
    engine.stop().await;
    owned.gone().await;
}

/// JSON has a character that no text of PostgreSQL has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nul_in_a_definition_stops_nothing() {
    let engine = Builder::new().start().await;
    let definition = json!({
        "tasks": [{"name": "odd", "action": "a", "slots": {"gpu": 2}}],
        "input_schema": {"const": "\u{0}", "description": "\\u0000 \u{0}\\\u{0}", "$defs": {"a\u{0}": true}}
    });
    assert_eq!(engine.put("/v1/workflows/odd", definition.clone()).await.0, 200);
    assert_eq!(engine.put("/v1/workflows/odd", json!({"tasks": [{"name": "odd"}]})).await.0, 200);
    assert_eq!(engine.post("/v1/workflows/odd/pause", json!({"reason": "r"})).await.0, 200);
    let (status, body) = engine.post("/v1/workflows/odd/resume", json!({"rate": 5})).await;
    assert_eq!((status, &body["rate"]), (200, &json!(5.0)), "{body}");
    // From a worker, too.
    let mut said = hello("w", &["b"], 1);
    let mut named = definition;
    named["name"] = json!("said");
    said["workflows"] = json!([named]);
    let worker = Worker::connect(&engine.url, &engine.token, said).await;
    assert_eq!(engine.post("/v1/workflows/said/pause", json!({"reason": "r"})).await.0, 200);
    assert_eq!(engine.post("/v1/workflows/said/resume", json!({"rate": 5})).await.0, 200);
    worker.goodbye().await;
    // Where PostgreSQL would have to hold it, it is refused by name.
    for (at, field) in [
        ("/description", json!("\u{0}")),
        ("/tasks/0/name", json!("\u{0}")),
        ("/tasks/0/action", json!("\u{0}")),
        ("/tasks/0/slots", json!({"\u{0}": 1})),
        ("/tasks/0/labels/0/key", json!([{"key": "\u{0}", "op": "exists"}])),
        ("/tasks/0/labels/0/value", json!([{"key": "k", "op": "eq", "value": "\u{0}"}])),
        ("/tasks/0/labels/0/values/0", json!([{"key": "k", "op": "in", "values": ["\u{0}"]}])),
        ("/tasks/0/retries/rules/0/codes/0", json!({"count": 1, "rules": [{"codes": ["\u{0}"]}]})),
        ("/events/0", json!(["\u{0}"])),
    ] {
        let mut definition = json!({"tasks": [{"name": "t"}]});
        let parts: Vec<&str> = at.split('/').skip(1).collect();
        match parts.as_slice() {
            ["tasks", "0", name, ..] => definition["tasks"][0][*name] = field,
            [name, ..] => definition[*name] = field,
            [] => unreachable!(),
        }
        let (status, body) = engine.put("/v1/workflows/no", definition).await;
        assert_eq!((status, body["pointer"].as_str()), (400, Some(at)), "{body}");
    }
    for (name, field) in [("name", json!("\u{0}")), ("actions", json!(["\u{0}"])), ("labels", json!({"k": "\u{0}"}))] {
        let mut said = hello("w", &["b"], 1);
        said[name] = field;
        let mut worker = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
        worker.send(said).await;
        let error = worker.find("error").await;
        assert!(error["pointer"].as_str().is_some_and(|at| at.starts_with(&format!("/{name}"))), "{error}");
    }
    // The check of the guarantees that reads definitions.
    let text = include_str!("../../../docs/guarantees.md");
    let check = text.split("```sql none\n").find(|block| block.starts_with("with held")).unwrap();
    let check = check.split("```").next().unwrap();
    assert_eq!(engine.sql().await.query(check, &[]).await.unwrap().len(), 0);
    engine.stop().await;
}

/// Another application publishes everything that is in its database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_of_all_tables_stops_no_deletion() {
    let engine = Builder::new().start().await;
    let sql = engine.sql().await;
    let identities = "select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent in ('run_history'::regclass, 'run_transition'::regclass) and c.relreplident = 'f'";
    let count = async |query: &str| -> i64 { sql.query_one(query, &[]).await.unwrap().get(0) };
    assert_eq!(count(identities).await, 8);
    // A week of an earlier release gets it later.
    let week: String = sql
        .query_one(
            "select max(inhrelid)::regclass::text from pg_inherits where inhparent = 'run_history'::regclass",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    sql.batch_execute(&format!(
        "alter table {week} replica identity default; create publication everything for all tables"
    ))
    .await
    .unwrap();
    partitions::make_ahead(&engine.pool, Clock::system().now()).await.unwrap();
    assert_eq!(count(identities).await, 8);
    let old = json!({"tasks": [{"name": "old", "retries": 1}], "retention": "1m"});
    assert_eq!(engine.put("/v1/workflows/old", old).await.0, 200);
    let mut worker = worker(&engine, &["old"], 1).await;
    let run: Value = engine.trigger("old", json!("x".repeat(5_000))).await;
    let task = worker.find_tasks().await.remove(0);
    worker.fail(&task, json!({"message": "x", "retry_after_ms": 0})).await;
    let task = worker.find_tasks().await.remove(0);
    worker.finish(&task, json!(1)).await;
    engine.run_is(&run["id"], "succeeded").await;
    let (runs, later) = (engine.sweep(), Clock::system().now().plus(Duration::from_secs(600)));
    let pass = runs.pass((0..64).collect(), later, &Default::default()).await;
    assert_eq!(pass.unwrap(), 1);
    assert_eq!(count("select count(*) from run_transition").await, 0);
    partitions::drop_old(&engine.pool, later.plus(Duration::from_secs(90 * 86_400)), Duration::from_secs(86_400))
        .await
        .unwrap();
    worker.goodbye().await;
    engine.stop().await;
}

/// What forbids the deletion for one tenant is no reason for others to keep what they do not want.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_runs_cannot_be_deleted_keeps_no_other_waiting() {
    let database = fresh_database().await;
    let engine = Builder::new().on(&database).await;
    let others = [engine.second_tenant().await, engine.second_tenant().await];
    let old = json!({"tasks": [{"name": "old"}], "retention": "1m"});
    let mut ids = Vec::new();
    for (tenant, token) in [(engine.tenant, &engine.token)].into_iter().chain(others.iter().map(|o| (o.id, &o.token))) {
        let http = engine.client().with_token(Some(token));
        assert_eq!(http.put("/v1/workflows/old", old.clone()).await.0, 200);
        let (status, run) = http.post("/v1/runs", json!({"workflow": "old"})).await;
        assert_eq!(status, 201, "{run}");
        let path = format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap());
        assert_eq!(http.post(&path, json!({})).await.0, 200);
        ids.push(tenant.uuid());
    }
    ids.sort();
    let sql = engine.sql().await;
    sql.batch_execute(&format!(
        "create function forbid() returns trigger language plpgsql as $$ begin
            if old.tenant = '{}' then raise exception 'it is needed for a lawsuit'; end if; return old; end $$;
        create trigger forbid before delete on run_history for each row execute function forbid()",
        ids[0]
    ))
    .await
    .unwrap();
    let (runs, later) = (engine.sweep(), Clock::system().now().plus(Duration::from_secs(600)));
    assert_eq!(runs.pass((0..64).collect(), later, &Default::default()).await.unwrap(), 2);
    let left: String = sql.query_one("select min(tenant::text) from run_history", &[]).await.unwrap().get(0);
    assert_eq!(left, ids[0].to_string());
    engine.stop().await;
}
