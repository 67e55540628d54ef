//! Shards that are handed over, and an engine that dies or stands still in the middle of it.

use std::time::Duration;

use helve::db::Pool;
use helve_domain::clock::Clock;
use helve_domain::id::TenantId;
use helve_postgres::Database;
use serde_json::{Value, json};

use crate::support::process::EngineProcess;
use crate::support::{Builder, Http, Worker, fresh_database, hello, provision, sql, until_within};

const PATIENCE: Duration = Duration::from_secs(30);
/// Enough to have some in either half of the shards.
const TENANTS: usize = 8;

struct Customer {
    id: TenantId,
    token: String,
    run: Value,
}

/// Tenants with a run that waits for a worker.
async fn customers(engine: &EngineProcess, database: &str) -> Vec<Customer> {
    let pool = Pool::new(&Database { pool_size: 1, ..Database::at(database) }).unwrap();
    let mut customers = Vec::new();
    for number in 0..TENANTS {
        let (id, token) = provision(&pool, &format!("customer-{number}-{}", Clock::system().now().micros())).await;
        let http = Http::new(&engine.url, Some(&token));
        assert_eq!(http.put("/v1/workflows/a", json!({"tasks": [{"name": "a"}]})).await.0, 200);
        let (status, run) = http.post("/v1/runs", json!({"workflow": "a"})).await;
        assert_eq!(status, 201, "{run}");
        customers.push(Customer { id, token, run });
    }
    customers
}

/// Every tenant's run is done by a worker that connects at `url`, whoever owns the shard, in one attempt.
async fn all_work(url: &str, customers: &[Customer]) {
    for customer in customers {
        let http = Http::new(url, Some(&customer.token));
        let mut worker = until_within("a worker is welcome", PATIENCE, || async {
            // In the moment of a takeover a socket may be refused: workers try again.
            let task = Worker::open(url, Some(&customer.token)).await.ok();
            match task {
                Some(mut socket) => {
                    socket.send(hello("w", &["a"], 1)).await;
                    Some(socket)
                }
                None => None,
            }
        })
        .await;
        worker.expect("welcome").await;
        let task = worker.task().await;
        assert_eq!(task["run"], customer.run["id"], "{}", customer.id);
        worker.finish(&task, json!("done")).await;
        let (_, run) = http.get(&format!("/v1/runs/{}", customer.run["id"].as_str().unwrap())).await;
        assert_eq!((&run["status"], &run["attempt"]), (&json!("succeeded"), &json!(1)), "{run}");
        worker.goodbye().await;
    }
}

/// One engine with work, and a second that joins: the first passes `point` when it gives half of the shards up.
async fn a_move(point: &str, dies: bool) {
    let database = fresh_database().await;
    let action = if dies { "exit" } else { "stall:1000" };
    let mut first = EngineProcess::start(&database, &[("HELVE_FAILPOINTS", &format!("{point}={action}@1"))]).await;
    let customers = customers(&first, &database).await;
    let second = first.twin().await;
    let line = format!("failpoint {point}");
    until_within(&format!("`{line}` is in the log"), PATIENCE, || async { first.log().contains(&line).then_some(()) })
        .await;
    let client = sql(&database).await;
    let owners = if dies { 1 } else { 2 };
    if dies {
        assert_eq!(first.ended().await.code(), Some(137));
    }
    until_within("the shards are spread", PATIENCE, || async {
        let spread = "select count(distinct owner) = $1 and count(owner) = 64 and min(n) >= 64 / $1 from (select owner, \
            count(*) over (partition by owner) as n from shard) as s";
        client.query_one(spread, &[&i64::from(owners)]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
    all_work(&second.url, &customers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn an_engine_dies_before_it_gives_shards_up() {
    a_move("move.before_release", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn an_engine_dies_when_it_has_given_shards_up() {
    a_move("move.released", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn an_engine_stalls_while_it_gives_shards_up() {
    a_move("move.before_release", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn an_engine_stalls_when_it_has_given_shards_up() {
    a_move("move.released", false).await;
}

/// What other engines say of workflows comes as often as people deploy: the lease is renewed in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_of_workflows_put_no_renewal_off() {
    let engine = Builder::new().scheduling(|s| s.lease = Duration::from_secs(1)).start().await;
    let client = engine.sql().await;
    let (clock, tenant) = (Clock::system(), engine.tenant.uuid().to_string());
    let until = clock.instant() + Duration::from_secs(4);
    while clock.instant() < until {
        client.execute("select pg_notify('helve', $1)", &[&tenant]).await.unwrap();
        let lasts: bool =
            client.query_one("select expires_at > clock_timestamp() from node", &[]).await.unwrap().get(0);
        assert!(lasts, "the lease has run out");
        // A pause shorter than any renewal takes to come.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    engine.workflow("work").await;
    engine.trigger("work", json!(1)).await;
}
