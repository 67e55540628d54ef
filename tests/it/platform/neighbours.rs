//! A database that Helve shares with others: it touches what is its own, and is not stopped by what is theirs.

use std::process::{Output, Stdio};
use std::time::Duration;

use helve::db::{Pool, home, migrate, partitions};
use helve_domain::clock::Clock;
use helve_domain::id::{RunId, TenantId};
use helve_postgres::Database;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_postgres::Client;

use crate::support::{Builder, bare_database, fresh_database, helve, sql};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

fn pool(url: &str) -> Pool {
    Pool::new(&Database { pool_size: 2, ..Database::at(url) }).unwrap()
}

/// The same database, with Helve in a schema of it.
fn with_path(url: &str, schemas: &str) -> String {
    format!("{url}&options=-csearch_path%3D{schemas}")
}

fn run(database: &str, args: &[&str]) -> Output {
    helve().args(args).env("DATABASE_URL", database).output().unwrap()
}

/// What a command that must fail says.
fn refused(database: &str, args: &[&str]) -> String {
    let out = run(database, args);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
    said
}

async fn number(sql: &Client, query: &str) -> i64 {
    sql.query_one(query, &[]).await.unwrap_or_else(|e| panic!("{query}: {e}")).get(0)
}

/// How many partitions a table has.
async fn weeks(sql: &Client, table: &str) -> i64 {
    number(sql, &format!("select count(*) from pg_inherits where inhparent = '{table}'::regclass")).await
}

fn day(at: helve_domain::clock::Timestamp) -> String {
    let monday = chrono::Datelike::weekday(&at.to_utc()).num_days_from_monday();
    (at.to_utc() - chrono::Days::new(monday.into())).format("%Y%m%d").to_string()
}

/// Another application has tables and partitions with the names of Helve's, old ones and the ones that Helve wants next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_another_application_are_neither_dropped_nor_taken_for_helve_s() {
    let url = bare_database().await;
    let now = Clock::system().now();
    let next = day(now.plus(WEEK));
    let theirs = sql(&url).await;
    for schema in ["public", "crm"] {
        theirs
            .batch_execute(&format!(
                "create schema if not exists {schema};
                create table {schema}.event (id int, at timestamptz) partition by range (at);
                create table {schema}.event_20260105 partition of {schema}.event
                    for values from ('2026-01-05 00:00:00+00') to ('2026-01-12 00:00:00+00');
                create table {schema}.event_{next} partition of {schema}.event default;
                insert into {schema}.event select i, '2026-01-06' from generate_series(1, 1000) i"
            ))
            .await
            .unwrap();
    }
    theirs.batch_execute("create schema helve").await.unwrap();
    let url = with_path(&url, "helve,crm,public");
    migrate::migrate(&Database::at(&url)).await.unwrap();
    let engine = Builder::new().on(&url).await;
    engine.workflow("work").await;
    let (status, _) = engine.post("/v1/events", json!({"key": "x"})).await;
    assert_eq!(status, 201);
    assert_eq!(weeks(&theirs, "helve.event").await, 4);
    partitions::drop_old(&engine.pool, now.plus(WEEK * 60), WEEK).await.unwrap();
    assert_eq!(weeks(&theirs, "helve.event").await, 0);
    for schema in ["public", "crm"] {
        assert_eq!(weeks(&theirs, &format!("{schema}.event")).await, 2);
        assert_eq!(number(&theirs, &format!("select count(*) from {schema}.event")).await, 1_000);
    }
    engine.stop().await;
}

/// Also in Helve's own schema a name may be taken; a row finds its week all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_whose_name_is_taken_gets_another_one() {
    let url = fresh_database().await;
    let (pool, sql) = (pool(&url), sql(&url).await);
    let far = Clock::system().now().plus(WEEK * 30);
    sql.batch_execute(&format!(
        "create table event_{0} (theirs int); create type event_1_{0} as (theirs int)",
        day(far)
    ))
    .await
    .unwrap();
    let insert = format!(
        "insert into event (id, tenant, created_at, key, payload, runs) values ('{}', '{}', now(), 'k', '', '{{}}')",
        RunId::generate(far).uuid(),
        TenantId::generate(far).uuid()
    );
    let missing = sql.batch_execute(&insert).await.unwrap_err();
    assert_eq!(missing.code().unwrap().code(), "23514");
    for _ in 0..2 {
        partitions::make_for(&pool, [far]).await.unwrap();
    }
    sql.batch_execute(&insert).await.unwrap();
    assert_eq!(number(&sql, &format!("select count(*) from event_2_{}", day(far))).await, 1);
    assert_eq!(weeks(&sql, "event").await, 1);
    let indexes = |table: &str| format!("select count(*) from pg_index where indrelid = '{table}'::regclass");
    let parent = number(&sql, &indexes("event")).await;
    assert_eq!(number(&sql, &indexes(&format!("event_2_{}", day(far)))).await, parent);
    // And it is known as what it is, by whatever name.
    partitions::drop_old(&pool, far.plus(WEEK * 3), WEEK).await.unwrap();
    assert_eq!(weeks(&sql, "event").await, 0);
}

/// As `pg_dump` does: everything is read in one long transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_starts_during_a_backup_and_makes_its_weeks() {
    let url = fresh_database().await;
    let reader = sql(&url).await;
    let tables = "open_run, run_history, run_transition, event, payload, run_live, run_log";
    reader.batch_execute(&format!("begin; lock table {tables} in access share mode")).await.unwrap();
    let engine = Builder::new().on(&url).await;
    assert_eq!(weeks(&sql(&url).await, "payload").await, 4);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_that_is_not_needed_yet_stops_nothing() {
    let url = fresh_database().await;
    let (pool, now) = (pool(&url), Clock::system().now());
    partitions::make_for(&pool, [now, now.plus(WEEK)]).await.unwrap();
    let holder = sql(&url).await;
    holder.batch_execute("begin; lock table payload in share row exclusive mode").await.unwrap();
    partitions::make_ahead(&pool, now).await.unwrap();
    // A week later it is needed.
    let refused = partitions::make_ahead(&pool, now.plus(WEEK));
    assert!(tokio::time::timeout(Duration::from_millis(500), refused).await.is_err(), "it waits for the week");
    holder.batch_execute("rollback").await.unwrap();
    partitions::make_ahead(&pool, now.plus(WEEK)).await.unwrap();
    assert_eq!(weeks(&holder, "payload").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_with_tables_of_others_is_refused_in_words_and_nothing_is_written() {
    let url = bare_database().await;
    let theirs = sql(&url).await;
    theirs.batch_execute("create table customer (id int); create table invoice (id int)").await.unwrap();
    let everything = "select count(*) from pg_class where oid >= 16384";
    let before = number(&theirs, everything).await;
    for args in [
        vec!["migrate"],
        vec!["serve", "--allow-unsafe-settings", "--listen", "127.0.0.1:0"],
        vec!["dev", "--port", "0", "--database-url", &url],
    ] {
        let said = refused(&url, &args);
        assert!(said.contains("schema public") && said.contains("customer, invoice"), "{args:?}: {said}");
        assert!(said.contains("--into-existing") && said.contains("create schema helve"), "{args:?}: {said}");
    }
    assert_eq!(number(&theirs, everything).await, before);
    // A name that both want: all of it or nothing.
    theirs.batch_execute("create table ticket (id int)").await.unwrap();
    let said = refused(&url, &["migrate", "--into-existing"]);
    assert!(said.contains("nothing was changed") && said.contains("\"ticket\" already exists"), "{said}");
    theirs.batch_execute("drop table ticket").await.unwrap();
    assert_eq!(number(&theirs, everything).await, before);

    assert!(run(&url, &["migrate", "--into-existing"]).status.success());
    // Once it is there, neither an upgrade nor a start asks again.
    assert!(run(&url, &["migrate"]).status.success());
    Builder::new().on(&url).await.stop().await;
    assert_eq!(number(&theirs, "select count(*) from customer").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_helve_lives_in_another_schema_of_the_database() {
    let bare = bare_database().await;
    let admin = sql(&bare).await;
    admin.batch_execute("create schema one; create schema two").await.unwrap();
    let (one, two) = (with_path(&bare, "one,public"), with_path(&bare, "two,public"));
    let mut engines = Vec::new();
    for url in [&one, &two] {
        migrate::migrate(&Database::at(url)).await.unwrap();
        let engine = Builder::new().on(url).await;
        engine.workflow("work").await;
        engine.trigger("work", json!({})).await;
        engines.push(engine);
    }
    engines[0].trigger("work", json!({})).await;
    assert_eq!(number(&admin, "select count(*) from helve_audit.run").await, 2);
    assert_eq!(
        number(&admin, "select count(*) from helve_audit_two.run where status = helve_audit_two.status(1::smallint)")
            .await,
        1
    );
    for engine in engines {
        engine.stop().await;
    }
    // A version before this one left a second install half done; this one finishes it.
    admin
        .batch_execute(
            "drop schema helve_audit_two cascade;
            delete from two.__diesel_schema_migrations where version = '20261124000021'",
        )
        .await
        .unwrap();
    assert_eq!(migrate::migrate(&Database::at(&two)).await.unwrap(), ["2026-11-24-000021_audit"]);
    // The one goes, the other stays whole.
    admin.batch_execute("drop schema one cascade").await.unwrap();
    assert_eq!(number(&admin, "select count(*) from helve_audit_two.run").await, 1);
    // Whom is meant when both are named is not guessed.
    admin.batch_execute("create schema one").await.unwrap();
    let said = refused(&with_path(&bare, "one,two"), &["migrate"]);
    assert!(said.contains("nothing was changed") && said.contains("search_path%3Dtwo"), "{said}");
    let said = refused(&with_path(&bare, "none"), &["migrate"]);
    assert!(said.contains("names no schema that exists"), "{said}");
}

/// A role that owns its schema and no more, on a server with room for its connections but not for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_and_connections_that_are_missing_are_named_before_anything_is_written() {
    let url = bare_database().await;
    let admin = sql(&url).await;
    let database: String = admin.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    let role = format!("owner_of_{database}");
    let set_up = format!("create role {role} login connection limit 12; create schema helve authorization {role}");
    admin.batch_execute(&set_up).await.unwrap();
    let url = with_path(&url.replace("//postgres@", &format!("//{role}@")), "helve");
    let said = refused(&url, &["migrate"]);
    assert!(said.contains(&format!("grant create on database {database} to {role}")), "{said}");
    assert_eq!(number(&admin, "select count(*) from pg_class where relnamespace = 'helve'::regnamespace").await, 0);
    admin.batch_execute(&format!("grant create on database {database} to {role}")).await.unwrap();
    assert!(run(&url, &["migrate"]).status.success());

    let serve = ["serve", "--allow-unsafe-settings", "--listen", "127.0.0.1:0"];
    let said = refused(&url, &serve);
    assert!(said.contains("the role allows 12 connections and the engine needs 13"), "{said}");
    let limits = format!("alter role {role} connection limit -1; alter database {database} connection limit 11");
    admin.batch_execute(&limits).await.unwrap();
    let said = refused(&url, &serve);
    assert!(said.contains("the database allows 11") && !said.contains("the role"), "{said}");
    admin.batch_execute(&format!("alter database {database} connection limit -1")).await.unwrap();
    Builder::new().on(&url).await.stop().await;
    admin
        .batch_execute(&format!("drop schema helve, helve_audit cascade; drop owned by {role}; drop role {role}"))
        .await
        .unwrap();
}

/// Engines log in as different members of the role that owns everything: each drops what the other made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weeks_belong_to_the_owner_of_their_table_whoever_makes_them() {
    let url = bare_database().await;
    let admin = sql(&url).await;
    let name: String = admin.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    let (owner, a, b) = (format!("owner_{name}"), format!("app_a_{name}"), format!("app_b_{name}"));
    admin
        .batch_execute(&format!(
            "create role {owner}; create role {a} login in role {owner}; create role {b} login in role {owner};
            grant create on database {name} to {owner}; create schema helve authorization {owner}"
        ))
        .await
        .unwrap();
    let as_role = |role: &str| with_path(&url.replace("//postgres@", &format!("//{role}@")), "helve");
    migrate::migrate(&Database::at(format!("{}%20-crole%3D{owner}", as_role(&a)))).await.unwrap();
    let now = Clock::system().now();
    partitions::make_ahead(&pool(&as_role(&a)), now).await.unwrap();
    assert_eq!(weeks(&admin, "helve.payload").await, 4);
    partitions::drop_old(&pool(&as_role(&b)), now.plus(WEEK * 9), WEEK).await.unwrap();
    assert_eq!(weeks(&admin, "helve.payload").await, 0);
    admin
        .batch_execute(&format!(
            "drop schema helve, helve_audit cascade; drop owned by {owner}, {a}, {b}; drop role {a}, {b}, {owner}"
        ))
        .await
        .unwrap();
}

/// Tables of another application that stand before Helve's on the search_path, by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_before_one_of_helve_s_is_not_met() {
    let url = fresh_database().await;
    let theirs = sql(&url).await;
    theirs
        .batch_execute(
            "create schema crm; create table crm.event (id int); create table crm.__diesel_schema_migrations (v int)",
        )
        .await
        .unwrap();
    for path in ["public,crm", "crm,public"] {
        let engine = Builder::new().on(&with_path(&url, path)).await;
        engine.workflow("work").await;
        assert_eq!(engine.post("/v1/events", json!({"key": "x"})).await.0, 201, "{path}");
        engine.stop().await;
    }
    assert_eq!(number(&theirs, "select count(*) from crm.event").await, 0);
    assert_eq!(number(&theirs, "select count(*) from public.event").await, 2);
}

/// `home` knows all tables of Helve: a freshly migrated schema has no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_of_helve_is_known_as_its_own() {
    let url = fresh_database().await;
    partitions::make_ahead(&pool(&url), Clock::system().now()).await.unwrap();
    assert_eq!(home::neighbours(&pool(&url)).await.unwrap(), Vec::<String>::new());
    sql(&url)
        .await
        .batch_execute("create table event_20260105 (id int); create view orders as select 1")
        .await
        .unwrap();
    assert_eq!(home::neighbours(&pool(&url)).await.unwrap(), ["event_20260105", "orders"]);
}

/// What can only be added when the readers are gone lets everybody else go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_behind_a_long_reader_stops_nobody() {
    let url = fresh_database().await;
    let (reader, client) = (sql(&url).await, sql(&url).await);
    reader
        .batch_execute(
            "alter table open_run drop column labels;
            delete from __diesel_schema_migrations where version = '20261124000052'",
        )
        .await
        .unwrap();
    reader.batch_execute("begin; select from open_run").await.unwrap();
    let pid: i32 = reader.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let mut change = tokio::process::Command::from(helve());
    change.args(["migrate", "--json"]).env("DATABASE_URL", &url).kill_on_drop(true);
    let mut change = change.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(change.stderr.take().unwrap()).lines();
    // Whoever queued up behind the change for long is refused.
    client.batch_execute("set lock_timeout = '400ms'").await.unwrap();
    let others = async {
        loop {
            client.batch_execute("begin; lock table open_run in row exclusive mode; commit").await.unwrap();
        }
    };
    let word = tokio::select! {
        word = tokio::time::timeout(Duration::from_secs(60), said.next_line()) => word.unwrap().unwrap().unwrap(),
        () = others => unreachable!(),
    };
    assert!(word.contains("a change waits") && word.contains(&format!("session {pid} (")), "{word}");
    reader.batch_execute("commit").await.unwrap();
    let done = change.wait_with_output().await.unwrap();
    let applied: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(applied["applied"], json!(["2026-11-24-000052_run_labels"]));
}
