//! Weeks of history are made ahead and dropped whole, never while a run needs them.

use std::time::Duration;

use helve::db::partitions;
use helve_domain::clock::Timestamp;
use helve_domain::id::RunId;
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

    let now = helve_domain::clock::Clock::system().now();
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

/// One old run that is open keeps what it refers to, and not what is younger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_open_run_keeps_only_its_own_weeks() {
    let engine = engine().await;
    engine.workflow("waits").await;
    let open = engine.trigger("waits", json!({})).await;
    let now = helve_domain::clock::Clock::system().now();
    let weeks = [0, 1, 2, 3].map(|n: u32| now.plus(WEEK * n));
    partitions::make_for(&engine.pool, weeks).await.unwrap();
    let sql = engine.sql().await;
    for week in weeks {
        let id = RunId::generate(week).uuid();
        sql.batch_execute(&format!("insert into payload (id, kind, bytes) values ('{id}', 0, 'x')")).await.unwrap();
    }
    let payloads = "select count(*) from payload";
    partitions::drop_old(&engine.pool, now.plus(WEEK * 4), WEEK).await.unwrap();
    let left: i64 = sql.query_one(payloads, &[]).await.unwrap().get(0);
    assert_eq!(left, 2, "that of the open run, and that of the week that is kept");
    assert_eq!(engine.run(&open["id"]).await["status"], "queued");
    // Made in the week after, it belongs to an event of the one that ended a moment before.
    let (first, next) = (now, now.plus(WEEK));
    partitions::make_for(&engine.pool, [first, next]).await.unwrap();
    let monday = |at: Timestamp| {
        let days = chrono::Datelike::weekday(&at.to_utc()).num_days_from_monday();
        (at.to_utc() - chrono::Days::new(days.into())).date_naive().and_time(chrono::NaiveTime::MIN).and_utc()
    };
    let (after, before) =
        (Timestamp::from(monday(next)), Timestamp::from(monday(next)).minus(Duration::from_millis(1)));
    let (event, run) = (RunId::generate(before).uuid(), RunId::generate(after).uuid());
    sql.batch_execute(&format!("update open_run set id = '{run}', event = '{event}'")).await.unwrap();
    partitions::drop_old(&engine.pool, now.plus(WEEK * 4), WEEK).await.unwrap();
    let kept = "select count(*) from pg_inherits where inhparent = 'event'::regclass";
    let kept: i64 = sql.query_one(kept, &[]).await.unwrap().get(0);
    assert_eq!(kept, 3, "the week of the event, that of the run, and the one that is kept");
}
