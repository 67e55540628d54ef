//! An engine that stops or dies: its successor goes on from the rows.

use std::time::Duration;

use serde_json::json;

use crate::both_ways;
use crate::support::{Builder, Worker, attempt, hello, worker};

both_ways! {
    async fn a_successor_has_every_run_and_every_worker(engine) {
        engine.workflow("work").await;
        engine.workflow_with("waits", json!({"schedule_timeout": "1h"})).await;
        let mut first = worker(&engine, &["work"], 2).await;
        let running = engine.trigger("work", json!(1)).await;
        let task = first.task().await;
        let queued = engine.trigger("waits", json!(2)).await;
        let delayed = json!({"workflow": "work", "input": 3, "delay": "1500ms"});
        let (_, scheduled) = engine.post("/v1/runs", delayed).await;
        let mut again = hello("test", &["work", "waits"], 3);
        again["resume"] = json!({"session": first.welcome["session"], "secret": first.welcome["secret"],
                                 "holding": [attempt(&task)]});
        let engine = engine.restart().await;
        assert_eq!(engine.run(&running["id"]).await["status"], "running");
        let mut second = Worker::connect(&engine.url, &engine.token, again).await;
        assert_eq!(second.welcome["resumed"], true);
        second.report(&task, json!({"outcome": "succeeded", "output": "kept"})).await;
        let end = engine.run_is(&running["id"], "succeeded").await;
        assert_eq!((&end["attempt"], &end["output"]), (&json!(1), &json!("kept")));
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(second.find_tasks().await.into_iter().map(|t| t["run"].clone()));
        }
        assert!(seen.contains(&queued["id"]) && seen.contains(&scheduled["id"]), "{seen:?}");
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.grace = Duration::from_millis(500));
    async fn a_successor_gives_up_workers_that_do_not_come_back(engine) {
        engine.workflow("work").await;
        let mut first = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!(1)).await;
        first.task().await;
        drop(first);
        let engine = engine.restart().await;
        let mut second = worker(&engine, &["work"], 1).await;
        let task = second.task().await;
        assert_eq!((&task["run"], &task["attempt"]), (&run["id"], &json!(2)));
    }
}

both_ways! {
    async fn a_key_used_before_the_takeover_is_used_after_it(engine) {
        engine.workflow("work").await;
        let body = json!({"workflow": "work", "input": {"a": 1}});
        let key = [("idempotency-key", "once")];
        let (status, run) = engine.post_with("/v1/runs", &key, body.clone()).await;
        assert_eq!(status, 201, "{run}");
        let engine = engine.restart().await;
        let (status, again) = engine.post_with("/v1/runs", &key, body).await;
        assert_eq!((status, &again["id"], &again["deduplicated"]), (200, &run["id"], &json!(true)));
    }
}
