//! Long queues: they delay nobody else, and go quickly when their worker comes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Builder, Engine, until_within, worker};

/// Queues so many runs in bulk.
async fn queue(engine: &Engine, workflow: &str, n: usize) {
    let mut left = n;
    while left > 0 {
        let some = left.min(1_000);
        let runs: Vec<Value> = (0..some).map(|i| json!({"workflow": workflow, "input": i})).collect();
        let (status, body) = engine.post("/v1/runs/bulk", json!({"runs": runs})).await;
        assert_eq!(status, 200, "{body}");
        assert!(body["results"].as_array().unwrap().iter().all(|r| r["status"] == 201));
        left -= some;
    }
}

async fn open_runs(engine: &Engine) -> i64 {
    engine.sql().await.query_one("select count(*) from open_run", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_behind_an_absent_worker_delay_nobody() {
    let engine = Builder::new().start().await;
    engine.workflow("absent").await;
    engine.workflow("work").await;
    queue(&engine, "absent", 10_000).await;
    let mut worker = worker(&engine, &["work"], 10).await;
    for i in 0..50 {
        let run = engine.trigger("work", json!(i)).await;
        assert_eq!((&run["status"], &run["attempt"]), (&json!("running"), &json!(1)), "assigned when it was created");
        let task = worker.task().await;
        worker.finish(&task, Value::Null).await;
    }
    assert_eq!(open_runs(&engine).await, 10_000);
}

/// Fifty thousand in the benchmark; a debug build in CI shows the same with fewer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_queue_drains_in_order_when_its_worker_comes() {
    const RUNS: usize = 12_000;
    let engine = Builder::new().scheduling(|s| s.window = 1_000).start().await;
    engine.workflow("work").await;
    queue(&engine, "work", RUNS).await;
    let mut worker = worker(&engine, &["work"], 500).await;
    let (mut done, mut last) = (0, -1);
    while done < RUNS {
        let tasks = worker.find_tasks().await;
        for task in &tasks {
            // Bulk requests came one after another: their items are in order too, a thousand at a time.
            let input = task["input"].as_i64().unwrap();
            assert_eq!(input, (last + 1) % 1_000, "first in, first out over refills of the window");
            last = input;
        }
        done += tasks.len();
        worker.succeed(&tasks).await;
    }
    until_within("everything is in the history", Duration::from_secs(20), || async {
        (open_runs(&engine).await == 0).then_some(())
    })
    .await;
}

both_ways! {
    async fn inputs_that_stand_apart_arrive_whole_after_waiting(engine) {
        let task = json!({"name": "work", "action": "work"});
        let (status, _) = engine.put("/v1/workflows/work", json!({"tasks": [task], "events": ["large"]})).await;
        assert_eq!(status, 200);
        let large = json!({"text": "x".repeat(100_000)});
        engine.trigger("work", large.clone()).await;
        engine.trigger("work", json!("small")).await;
        let event = json!({"key": "large", "payload": large, "metadata": {"from": "event"}});
        let (status, event) = engine.post("/v1/events", event).await;
        assert_eq!((status, event["runs"].as_array().map(Vec::len)), (201, Some(1)), "{event}");
        let mut worker = worker(&engine, &["work"], 1).await;
        for expected in [&large, &json!("small"), &large] {
            let task = worker.find_tasks().await.remove(0);
            assert_eq!(&task["input"], expected);
            worker.report(&task, json!({"outcome": "succeeded", "output": task["input"]})).await;
            assert_eq!(&engine.run_is(&task["run"], "succeeded").await["output"], expected);
        }
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.window = 10);
    async fn every_trigger_behind_a_full_window_is_answered(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        // Far more than memory holds: the one that fills the window leaves memory as it comes in.
        let mut runs = Vec::new();
        for i in 0..100 {
            runs.push(engine.trigger("work", json!(i)).await["id"].clone());
        }
        queue(&engine, "work", 200).await;
        for expected in &runs {
            let task = worker.find_tasks().await.remove(0);
            assert_eq!(&task["run"], expected, "first in, first out");
            worker.report(&task, json!({"outcome": "succeeded", "output": null})).await;
        }
    }
}
