//! `GET /v1/runs/{id}/why`: the answers that a person gets.

use std::time::Duration;

use serde_json::{Value, json};

use super::{NOBODY, problem};
use crate::both_ways;
use crate::support::{self, Builder, Engine, until, worker};

async fn why(engine: &Engine, run: &Value) -> Value {
    let (status, why) = engine.get(&format!("/v1/runs/{}/why", run.as_str().unwrap())).await;
    assert_eq!((status, &why["run"]), (200, run), "{why}");
    assert!(why["text"].as_str().is_some_and(|t| t.ends_with('.')), "{why}");
    why
}

/// Waits until the reason is this one; gives the answer.
async fn is(engine: &Engine, run: &Value, reason: &str) -> Value {
    until(&format!("{run} waits for {reason}"), || async {
        let why = why(engine, run).await;
        (why["reason"] == reason).then_some(why)
    })
    .await
}

both_ways! {
    async fn from_no_worker_to_the_end(engine) {
        engine.workflow("w").await;
        let first = engine.trigger("w", json!(1)).await["id"].clone();
        let alone = is(&engine, &first, "no_worker").await;
        assert_eq!(alone["text"], "No connected worker offers `w`.");
        assert_eq!((&alone["status"], &alone["details"]["workers_count"]), (&json!("queued"), &json!(0)));
        let mut worker = worker(&engine, &["w"], 1).await;
        let task = worker.task().await;
        let running = is(&engine, &first, "running").await;
        assert_eq!(running["details"]["worker"]["name"], "test");
        until("its time runs", || async {
            why(&engine, &first).await["details"]["timeout_at"].is_string().then_some(())
        })
        .await;
        let second = engine.trigger("w", json!(2)).await["id"].clone();
        let third = engine.trigger("w", json!(3)).await["id"].clone();
        let next = is(&engine, &second, "no_slot").await;
        let holder = &next["details"]["workers"][0];
        assert_eq!((&holder["slots"], &holder["used"], &holder["runs"]), (&json!(1), &json!(1), &json!([first])));
        let behind = is(&engine, &third, "behind").await;
        assert_eq!((&behind["details"]["ahead"], &behind["details"]["exact"]), (&json!(1), &json!(true)));
        assert_eq!(behind["text"], "In the queue of `w` 1 run is before it.");
        assert_eq!(behind["estimate"], Value::Null, "one start says nothing about a pace");
        worker.finish(&task, json!(null)).await;
        let over = is(&engine, &first, "final").await;
        assert_eq!(over["status"], "succeeded");
        assert!(over["details"]["at"].is_string(), "{over}");
        let id = worker.welcome["worker"].as_str().unwrap();
        assert!(over["text"].as_str().unwrap().starts_with(&format!("It is over: attempt 1 on the worker {id} succeeded")));
    }
}

both_ways! {
    async fn what_is_over_says_why_it_ended_so(engine) {
        engine.workflow_with("w", json!({"retries": {"count": 1, "base": "1ms", "jitter": false}})).await;
        let cancelled = engine.trigger("w", json!(0)).await["id"].clone();
        engine.post(&format!("/v1/runs/{}/cancel", cancelled.as_str().unwrap()), json!({})).await;
        let text = is(&engine, &cancelled, "final").await["text"].clone();
        assert!(text.as_str().unwrap().ends_with(": cancelled on request."), "{text}");
        let mut worker = worker(&engine, &["w"], 1).await;
        let spent = engine.trigger("w", json!(1)).await["id"].clone();
        for _ in 0..2 {
            let task = worker.find_tasks().await.remove(0);
            worker.fail(&task, json!({"message": "no paper"})).await;
        }
        let text = is(&engine, &spent, "final").await["text"].clone();
        assert!(text.as_str().unwrap().ends_with("with \"no paper\"; it was retried once."), "{text}");
        let hopeless = engine.trigger("w", json!(2)).await["id"].clone();
        let task = worker.find_tasks().await.remove(0);
        worker.fail(&task, json!({"message": "no such paper", "retryable": false})).await;
        let text = is(&engine, &hopeless, "final").await["text"].clone();
        assert!(text.as_str().unwrap().ends_with("it was not retried, and this error was not to be."), "{text}");
        engine.workflow_with("late", json!({"schedule_timeout": "10ms"})).await;
        let late = engine.trigger("late", json!(3)).await["id"].clone();
        let text = is(&engine, &late, "final").await["text"].clone();
        assert!(text.as_str().unwrap().contains("it was cancelled at ") && text.as_str().unwrap().contains("10ms"), "{text}");
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.grace = Duration::from_millis(400));
    async fn a_run_that_lost_its_workers_says_when_whom_and_how_often(engine) {
        engine.workflow("w").await;
        let run = engine.trigger("w", json!(1)).await["id"].clone();
        assert_eq!(engine.run(&run).await["last_loss"], Value::Null);
        let mut lost = Value::Null;
        for _ in 0..2 {
            let mut worker = worker(&engine, &["w"], 1).await;
            let task = worker.task().await;
            lost = worker.welcome["worker"].clone();
            drop(worker);
            // While it may come back: when its work goes to others.
            until("its worker is away", || async {
                let shown = why(&engine, &run).await;
                let worker = &shown["details"]["worker"];
                let (since, until) = (worker["lost_at"].as_str()?, worker["given_up_at"].as_str()?);
                assert!(since < until, "{worker}");
                let text = shown["text"].as_str()?;
                (text.contains("lost its connection at") && text.contains("goes to another worker")).then_some(())
            })
            .await;
            until("it is taken back", || async {
                let shown = engine.run(&run).await;
                (shown["last_loss"]["attempt"] == task["attempt"]).then_some(())
            })
            .await;
        }
        let shown = engine.run(&run).await;
        let loss = &shown["last_loss"];
        assert_eq!((&loss["reason"], &loss["times"], &loss["worker"]), (&json!("worker_lost"), &json!(2), &lost));
        assert!(loss["started_at"].as_str().unwrap() < loss["at"].as_str().unwrap(), "{loss}");
        let why = is(&engine, &run, "no_worker").await;
        assert_eq!(&why["details"]["last_loss"], loss);
        assert!(why["text"].as_str().unwrap().contains("It lost its worker 2 times, the last time at "), "{why}");
        // And afterwards, too.
        let mut worker = worker(&engine, &["w"], 1).await;
        let task = worker.task().await;
        worker.finish(&task, json!(null)).await;
        assert_eq!(&engine.run(&run).await["last_loss"], loss);
    }
}

both_ways! {
    async fn a_delay_a_retry_and_a_pause(engine) {
        engine.workflow_with("w", json!({"retries": {"count": 3, "base": "1h", "jitter": false}})).await;
        let (_, later) = engine.post("/v1/runs", json!({"workflow": "w", "delay": "2h"})).await;
        let scheduled = why(&engine, &later["id"]).await;
        assert_eq!((&scheduled["reason"], &scheduled["details"]["at"]), (&json!("scheduled"), &later["run_at"]));
        let mut worker = worker(&engine, &["w"], 1).await;
        let failing = engine.trigger("w", json!(1)).await["id"].clone();
        let task = worker.task().await;
        worker.fail(&task, json!({"message": "no paper"})).await;
        let retry = is(&engine, &failing, "retry").await;
        assert!(retry["text"].as_str().unwrap().starts_with("Attempt 1 failed with \"no paper\""), "{retry}");
        assert_eq!(retry["details"]["error"]["message"], "no paper");
        let body = json!({"reason": "stocktaking", "expires_in": "1h"});
        let (_, pause) = engine.post("/v1/workflows/w/pause", body).await;
        let waiting = engine.trigger("w", json!(2)).await["id"].clone();
        let paused = is(&engine, &waiting, "paused").await;
        assert_eq!(paused["details"]["pause"], pause);
        let text = paused["text"].as_str().unwrap();
        assert!(text.contains("workflow `w` is paused by `test`") && text.contains("stocktaking"), "{text}");
        let id = worker.welcome["worker"].as_str().unwrap();
        engine.post("/v1/workflows/w/resume", json!({})).await;
        is(&engine, &waiting, "running").await;
        engine.post(&format!("/v1/workers/{id}/pause"), json!({"reason": "it smokes"})).await;
        let last = engine.trigger("w", json!(3)).await["id"].clone();
        let stuck = is(&engine, &last, "no_worker").await;
        assert_eq!(stuck["details"]["workers"][0]["state"], "paused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_ids_and_foreign_runs_are_refused() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let run = engine.trigger("w", json!(1)).await["id"].clone();
    let path = format!("/v1/runs/{}/why", run.as_str().unwrap());
    let stranger = engine.second_tenant().await;
    problem(&stranger.request("GET", &path, &[], "").await, 404, "not_found");
    problem(&engine.request("GET", &format!("/v1/runs/run_{NOBODY}/why"), &[], "").await, 404, "not_found");
    problem(&engine.request("GET", "/v1/runs/nonsense/why", &[], "").await, 400, "invalid_id");
    problem(&engine.request("GET", &format!("{path}?verbose=1"), &[], "").await, 400, "unknown_field");
}
