//! Weeks of history are made ahead and dropped whole, never while a run needs them.

use std::time::Duration;

use helve::clock::Timestamp;
use helve::db::partitions;
use serde_json::json;

use crate::support::{engine, worker};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_weeks_go_and_what_is_open_keeps_its_payload() {
    let engine = engine().await;
    engine.workflow("work").await;
    engine.workflow("waits").await;
    let large = "x".repeat(5_000);
    let mut worker = worker(&engine, &["work"], 1).await;
    let done = engine.trigger("work", json!(large)).await;
    let task = worker.task().await;
    worker.finish(&task, json!(large)).await;
    let open = engine.trigger("waits", json!(large)).await;
    let key = [("idempotency-key", "k")];
    engine.post_with("/v1/runs", &key, json!({"workflow": "waits"})).await;

    let now = helve::clock::Clock::system().now();
    let later = |weeks: u32| -> Timestamp { now.plus(WEEK * weeks) };
    partitions::make_ahead(&engine.pool, later(3)).await.unwrap();
    // Within the retention nothing goes.
    partitions::drop_old(&engine.pool, now, WEEK * 2).await.unwrap();
    assert_eq!(engine.run(&done["id"]).await["output"], large);
    assert_eq!(engine.run(&open["id"]).await["input"], large);
    // Past it the finished run is gone; the open one has everything.
    partitions::drop_old(&engine.pool, later(5), WEEK * 2).await.unwrap();
    let (status, _) = engine.get(&format!("/v1/runs/{}", done["id"].as_str().unwrap())).await;
    assert_eq!(status, 404);
    assert_eq!(engine.run(&open["id"]).await["input"], large);
    let sql = engine.sql().await;
    let keys: i64 = sql.query_one("select count(*) from idempotency", &[]).await.unwrap().get(0);
    assert_eq!(keys, 0, "expired create keys are deleted");
}
