//! The machine's clock is set by ten minutes: no lease changes, no timer fires early, twice or never.

use std::time::{Duration, Instant};

use helve_domain::clock::Clock;
use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Builder, Engine, Worker, attempt, hello, until, worker};

const MINUTES: i64 = 10 * 60 * 1_000_000;
/// What every timer of the test is set to.
const SPAN: Duration = Duration::from_millis(1_500);

/// The run has this status, `SPAN` after `from` and not before; what comes later is the test machine's.
async fn on_time(engine: &Engine, run: &Value, status: &str, from: Instant) {
    let run = engine.run_is(&run["id"], status).await;
    let took = from.elapsed();
    // One part in a hundred is what the clock may be led by.
    assert!(took >= SPAN.mul_f64(0.98), "{status} after {took:?}: {run}");
}

/// Sets timers of every kind, sets the clock, and sees each fire once and in its time.
async fn every_timer(engine: &Engine, by: i64) {
    let mut worker = worker(engine, &["delayed", "retried", "slow"], 3).await;
    let mut lost = Worker::connect(&engine.url, &engine.token, hello("lost", &["held"], 1)).await;
    let held = engine.trigger("held", json!(0)).await;
    lost.task().await;
    let retried = engine.trigger("retried", json!(0)).await;
    let task = worker.task().await;
    worker.fail(&task, json!({"message": "again"})).await;
    let slow = engine.trigger("slow", json!(0)).await;
    worker.task().await;
    let from = engine.clock.instant();
    let body = json!({"workflow": "delayed", "delay": "1500ms"});
    let (_, delayed) = engine.post("/v1/runs", body).await;
    let queued = engine.trigger("queued", json!(0)).await;
    drop(lost);

    engine.clock.step(by);
    tokio::join!(
        on_time(engine, &delayed, "running", from),
        on_time(engine, &queued, "cancelled", from),
        on_time(engine, &slow, "failed", from),
        on_time(engine, &held, "queued", from),
        async { engine.run_is(&retried["id"], "running").await },
    );
    let mut tasks = Vec::new();
    while tasks.len() < 2 {
        tasks.extend(worker.find_tasks().await);
    }
    tasks.sort_by_key(|t| t["attempt"].as_i64());
    let got: Vec<_> = tasks.iter().map(attempt).collect();
    assert_eq!(
        got,
        [json!({"task_run": delayed["id"], "attempt": 1}), json!({"task_run": retried["id"], "attempt": 2})]
    );
    worker.succeed(&tasks).await;
    for run in [&delayed, &retried] {
        engine.run_is(&run["id"], "succeeded").await;
    }
    let cancel = format!("/v1/runs/{}/cancel", held["id"].as_str().unwrap());
    assert_eq!(engine.post(&cancel, Value::Null).await.0, 200);
    worker.goodbye().await;
}

/// Who owns the shards, and since which takeover.
async fn owner(engine: &Engine) -> (i64, Vec<String>) {
    let sql = engine.sql().await;
    let epochs = sql.query_one("select sum(epoch)::bigint from shard", &[]).await.unwrap().get(0);
    let nodes = sql.query("select id::text from node where expires_at > clock_timestamp()", &[]).await.unwrap();
    (epochs, nodes.iter().map(|row| row.get(0)).collect())
}

both_ways! {
    with Builder::new().scheduling(|s| (s.grace, s.cancel_grace) = (SPAN, Duration::from_millis(100)));
    async fn a_step_of_the_clock_moves_no_timer_and_no_lease(engine) {
        for (name, options) in [
            ("delayed", json!({})),
            ("retried", json!({"retries": {"count": 1, "base": "1500ms", "jitter": false}})),
            ("queued", json!({"schedule_timeout": "1500ms"})),
            ("slow", json!({"execution_timeout": "1500ms"})),
            ("held", json!({})),
        ] {
            engine.workflow_with(name, options).await;
        }
        let before = owner(&engine).await;
        assert_eq!(before.1.len(), 1);
        every_timer(&engine, MINUTES).await;
        every_timer(&engine, -2 * MINUTES).await;
        assert_eq!(owner(&engine).await, before, "the lease was kept, and nobody took over");

        // What came later is later by its id and its times, whatever the machine's clock said.
        let (_, list) = engine.get("/v1/runs").await;
        let runs = list["items"].as_array().unwrap();
        assert_eq!(runs.len(), 10);
        let last: Vec<_> = runs[..5].iter().map(|r| r["workflow"].as_str().unwrap()).collect();
        assert_eq!(last, ["queued", "delayed", "slow", "retried", "held"]);
        for pair in runs.windows(2) {
            assert!(pair[0]["created_at"].as_str() >= pair[1]["created_at"].as_str());
            assert!(pair[0]["id"].as_str() > pair[1]["id"].as_str());
        }
        let now = Clock::system().now().to_string();
        assert!(runs[0]["created_at"].as_str() < Some(&now[..]), "its time is that of before the steps");
    }
}

both_ways! {
    async fn an_engine_whose_clock_is_behind_goes_on_with_what_it_finds(engine) {
        engine.workflow_with("work", json!({"execution_timeout": "1h"})).await;
        let mut first = worker(&engine, &["work"], 1).await;
        let running = engine.trigger("work", json!(1)).await;
        let task = first.task().await;
        let key = [("idempotency-key", "k")];
        let later = json!({"workflow": "work", "delay": "300s"});
        let (_, delayed) = engine.post_with("/v1/runs", &key, later.clone()).await;
        let mut again = hello("test", &["work"], 1);
        again["resume"] = first.resume(&[&task]);

        // Behind: it was created in the future, and can be read when it has ended all the same.
        let engine = engine.restart_at(Clock::wrong_by(-MINUTES)).await;
        let mut second = Worker::connect(&engine.url, &engine.token, again).await;
        assert_eq!(second.welcome["resumed"], true);
        second.report(&task, json!({"outcome": "succeeded", "output": "kept"})).await;
        let end = engine.run_is(&running["id"], "succeeded").await;
        assert!(end["finished_at"].as_str() >= end["created_at"].as_str(), "{end}");
        let (status, same) = engine.post_with("/v1/runs", &key, later).await;
        assert_eq!((status, &same["id"]), (200, &delayed["id"]), "a key holds on");
        assert_eq!(engine.run(&delayed["id"]).await["status"], "scheduled");
        second.goodbye().await;

        // Ahead: its time has come, once.
        let engine = engine.restart_at(Clock::wrong_by(MINUTES)).await;
        let mut third = worker(&engine, &["work"], 2).await;
        let task = third.task().await;
        assert_eq!(attempt(&task), json!({"task_run": delayed["id"], "attempt": 1}));
        third.finish(&task, Value::Null).await;
        let ended = until("both have ended", || async {
            let (_, list) = engine.get("/v1/runs?status=succeeded").await;
            (list["items"].as_array().unwrap().len() == 2).then_some(list)
        });
        ended.await;
    }
}
