//! Finished runs are kept as long as their workflow or tenant says, and no longer.

use std::time::Duration;

use helve::ops::tenants;
use helve_domain::clock::Clock;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Engine, engine, worker};

const HOUR: Duration = Duration::from_secs(3_600);

async fn register(engine: &Engine, name: &str, retention: Option<&str>) {
    let mut definition = json!({"tasks": [{"name": name, "retries": 1}]});
    if let Some(retention) = retention {
        definition["retention"] = json!(retention);
    }
    let (status, body) = engine.put(&format!("/v1/workflows/{name}"), definition).await;
    assert_eq!(status, 200, "{body}");
}

async fn exists(engine: &Engine, run: &Value) -> bool {
    let (status, body) = engine.get(&format!("/v1/runs/{}", run["id"].as_str().unwrap())).await;
    assert!([200, 404].contains(&status), "{body}");
    status == 200
}

async fn count(engine: &Engine, table: &str) -> i64 {
    engine.sql().await.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_run_is_kept_as_long_as_its_workflow_or_tenant_says() {
    let engine = engine().await;
    for (name, retention) in [("short", Some("1h")), ("long", Some("10d")), ("plain", None)] {
        register(&engine, name, retention).await;
    }
    let large = json!("x".repeat(5_000));
    let mut worker = worker(&engine, &["short", "long", "plain"], 1).await;
    let mut done = Vec::new();
    for name in ["short", "long", "plain"] {
        let run = engine.trigger(name, large.clone()).await;
        // One retry leaves a transition.
        let task = worker.find_tasks().await.remove(0);
        worker.fail(&task, json!({"message": "x", "retry_after_ms": 0})).await;
        let task = worker.find_tasks().await.remove(0);
        worker.finish(&task, large.clone()).await;
        done.push(engine.run_is(&run["id"], "succeeded").await);
    }
    worker.goodbye().await;
    let open = engine.trigger("short", large.clone()).await;
    let stranger = engine.second_tenant().await;
    assert_eq!((count(&engine, "payload").await, count(&engine, "run_transition").await), (7, 3));

    let (sweep, now, never) = (engine.sweep(), Clock::system().now(), CancellationToken::new());
    let all: Vec<i16> = (0..64).collect();
    let pass = async |hours: u32| sweep.pass(all.clone(), now.plus(HOUR * hours), &never).await.unwrap();
    // Not yet; and not those of somebody else's shards.
    assert_eq!(pass(0).await, 0);
    let foreign: Vec<i16> = all.iter().copied().filter(|shard| *shard != engine.tenant.shard()).collect();
    assert_eq!(sweep.pass(foreign, now.plus(HOUR * 2), &never).await.unwrap(), 0);
    // The workflow's time: with the run go its payloads and its transition. What is open stays, however old.
    assert_eq!(pass(2).await, 1);
    assert_eq!(pass(2).await, 0);
    assert_eq!((count(&engine, "payload").await, count(&engine, "run_transition").await), (5, 2));
    assert_eq!(engine.run(&open["id"]).await["input"], large);
    let left = [exists(&engine, &done[0]).await, exists(&engine, &done[1]).await, exists(&engine, &done[2]).await];
    assert_eq!(left, [false, true, true]);
    // The tenant's time is for what says nothing itself.
    assert_eq!(pass(100).await, 0);
    let name = engine.sql().await;
    let name =
        name.query_one("select name from tenant where id::text = $1", &[&engine.tenant.uuid().to_string()]).await;
    let name: String = name.unwrap().get(0);
    tenants::keep(&engine.pool, &name, Some(HOUR * 48)).await.unwrap();
    assert_eq!(pass(47).await, 0);
    assert_eq!(pass(100).await, 1);
    assert!(!exists(&engine, &done[2]).await && exists(&engine, &done[1]).await);
    // A shorter time finds what was passed over before.
    register(&engine, "long", Some("2d")).await;
    assert_eq!(pass(100).await, 1);
    assert_eq!((count(&engine, "run_history").await, count(&engine, "open_run").await), (0, 1));
    assert_eq!(stranger.get("/v1/runs").await.0, 200);
}

/// A run that ended long after it was created is found by the look through everything, a day later at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_end_is_found_too() {
    let engine = engine().await;
    register(&engine, "short", Some("1h")).await;
    let mut worker = worker(&engine, &["short"], 1).await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        runs.push(engine.trigger("short", json!(1)).await);
        let task = worker.find_tasks().await.remove(0);
        worker.finish(&task, json!(1)).await;
        engine.run_is(&runs[runs.len() - 1]["id"], "succeeded").await;
    }
    let sql = engine.sql().await;
    let late = "update run_history set finished_at = finished_at + interval '2 hours'
        where created_at = (select min(created_at) from run_history)";
    assert_eq!(sql.execute(late, &[]).await.unwrap(), 1);
    let (sweep, now, never) = (engine.sweep(), Clock::system().now(), CancellationToken::new());
    let all: Vec<i16> = (0..64).collect();
    let pass = async |hours: u32| sweep.pass(all.clone(), now.plus(HOUR * hours), &never).await.unwrap();
    assert_eq!(pass(2).await, 1);
    assert!(exists(&engine, &runs[0]).await);
    assert_eq!(pass(27).await, 1);
    assert!(!exists(&engine, &runs[0]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_interface_says_how_long_and_by_whose_word() {
    let engine = engine().await;
    let kept = async |name: &str| engine.get(&format!("/v1/workflows/{name}")).await.1["retention"].clone();
    register(&engine, "plain", None).await;
    register(&engine, "short", Some("36h")).await;
    register(&engine, "endless", Some("366d")).await;
    assert_eq!(kept("plain").await, json!({"keep": "30d", "by": "engine"}));
    assert_eq!(kept("short").await, json!({"keep": "1d12h", "by": "workflow"}));
    assert_eq!(kept("endless").await, json!({"keep": "30d", "by": "engine"}));
    let name = engine.sql().await;
    let name =
        name.query_one("select name from tenant where id::text = $1", &[&engine.tenant.uuid().to_string()]).await;
    let name: String = name.unwrap().get(0);
    tenants::keep(&engine.pool, &name, Some(HOUR * 48)).await.unwrap();
    assert_eq!(kept("plain").await, json!({"keep": "2d", "by": "tenant"}));
    assert_eq!(kept("short").await["by"], "workflow");
    let listed = engine.get("/v1/workflows").await.1;
    let by: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|w| &w["retention"]["by"]).collect();
    assert_eq!(by, ["engine", "tenant", "workflow"]);
    // Wrong ones are refused, by their field.
    for wrong in [json!("59s"), json!("367d"), json!("soon"), json!(true)] {
        let (status, refused) =
            engine.put("/v1/workflows/w", json!({"tasks": [{"name": "t"}], "retention": wrong})).await;
        assert_eq!((status, &refused["pointer"]), (400, &json!("/retention")), "{refused}");
    }
    assert!(tenants::keep(&engine.pool, &name, Some(Duration::from_secs(1))).await.is_err());
    assert!(tenants::keep(&engine.pool, "nobody", None).await.is_err());
}
