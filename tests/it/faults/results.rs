//! Results that must not count: stale, double, foreign, malformed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::worker::{self, Worker};
use crate::support::{Builder, attempt};

const GRACE: Duration = Duration::from_millis(300);

fn success(task: &Value, output: Value) -> Value {
    let mut result = attempt(task);
    result["outcome"] = "succeeded".into();
    result["output"] = output;
    result
}

async fn superseded(worker: &mut Worker, task: &Value) -> Value {
    let frame = worker.find("superseded").await;
    let entry = frame["tasks"].as_array().unwrap().iter().find(|t| attempt(t) == attempt(task));
    entry.unwrap_or_else(|| panic!("{task} is not in {frame}")).clone()
}

both_ways! {
    with Builder::new().scheduling(|s| s.grace = GRACE);
    async fn a_stale_result_is_superseded(engine) {
        engine.workflow("a").await;
        let mut lost = Worker::connect(&engine.url, &engine.token, worker::hello("lost", &["a"], 1)).await;
        let run = engine.trigger("a", json!(1)).await;
        let first = lost.task().await;
        let resume = lost.resume(&[&first]);
        drop(lost);
        let mut other = Worker::connect(&engine.url, &engine.token, worker::hello("other", &["a"], 1)).await;
        let second = other.task().await;
        assert_eq!((first["attempt"].as_i64(), second["attempt"].as_i64()), (Some(1), Some(2)));

        // It comes back with a session that is over, and sends its result all the same.
        let mut hello = worker::hello("lost", &["a"], 1);
        hello["resume"] = resume;
        let mut back = Worker::connect(&engine.url, &engine.token, hello).await;
        back.report(&first, json!({"outcome": "succeeded", "output": "stale"})).await;
        superseded(&mut back, &first).await;
        assert_eq!(engine.run(&run["id"]).await["status"], "running");

        other.finish(&second, json!("fresh")).await;
        let ended = engine.run_is(&run["id"], "succeeded").await;
        assert_eq!((&ended["output"], &ended["attempt"], &ended["retries"]), (&json!("fresh"), &json!(2), &json!(0)));
    }
}

both_ways! {
    async fn of_two_results_the_first_counts(engine) {
        engine.workflow("a").await;
        let mut worker = Worker::connect(&engine.url, &engine.token, worker::hello("twice", &["a"], 1)).await;
        let run = engine.trigger("a", json!(1)).await;
        let task = worker.task().await;
        let results = [success(&task, json!("first")), success(&task, json!("second"))];
        worker.send(json!({"type": "result", "results": results})).await;
        assert_eq!(worker.stored(&task).await["status"], "succeeded");
        // And again, as after a lost confirmation: confirmed or called over, but never stored anew.
        worker.report(&task, json!({"outcome": "failed", "error": {"message": "third"}})).await;
        let again = loop {
            let frame = worker.recv().await;
            if frame["type"] == "stored" || frame["type"] == "superseded" {
                break frame;
            }
        };
        assert_ne!(again["results"][0]["status"], "failed", "{again}");
        let ended = engine.run(&run["id"]).await;
        assert_eq!((&ended["status"], &ended["output"]), (&json!("succeeded"), &json!("first")));

        // The slot was freed once, not twice.
        engine.trigger("a", json!(2)).await;
        engine.trigger("a", json!(3)).await;
        let next = loop {
            let frame = worker.recv().await;
            if frame["type"] == "assign" {
                break frame;
            }
        };
        assert_eq!(next["tasks"].as_array().unwrap().len(), 1, "{next}");
        worker.send(json!({"type": "ping"})).await;
        worker.expect("pong").await;
    }
}

both_ways! {
    async fn a_foreign_result_changes_nothing(engine) {
        engine.workflow("a").await;
        let mut holder = Worker::connect(&engine.url, &engine.token, worker::hello("holder", &["a"], 1)).await;
        let run = engine.trigger("a", json!(1)).await;
        let task = holder.task().await;

        let tenant = engine.second_tenant().await;
        let mut foreign = Worker::connect(&engine.url, &tenant.token, worker::hello("foreign", &["a"], 1)).await;
        foreign.report(&task, json!({"outcome": "succeeded", "output": "foreign"})).await;
        let answer = superseded(&mut foreign, &task).await;
        assert_eq!(answer["reason"], "unknown", "another tenant's run looks like none");

        // Nor may another worker of the same tenant, which does not hold it.
        let mut neighbour = Worker::connect(&engine.url, &engine.token, worker::hello("neighbour", &["b"], 1)).await;
        neighbour.report(&task, json!({"outcome": "failed", "error": {"message": "not mine"}})).await;
        superseded(&mut neighbour, &task).await;

        assert_eq!(engine.run(&run["id"]).await["status"], "running");
        holder.finish(&task, json!("own")).await;
        assert_eq!(engine.run_is(&run["id"], "succeeded").await["output"], "own");
    }
}

both_ways! {
    async fn a_malformed_result_that_names_no_attempt_changes_nothing(engine) {
        engine.workflow("a").await;
        let mut worker = Worker::connect(&engine.url, &engine.token, worker::hello("bad", &["a"], 1)).await;
        let run = engine.trigger("a", json!(1)).await;
        let task = worker.task().await;
        let with = |change: Value| {
            let mut result = success(&task, json!("bad"));
            result.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            result
        };
        for results in [
            json!([with(json!({"attempt": "one"}))]),
            json!([with(json!({"attempt": 1.5}))]),
            json!([with(json!({"attempt": 1_i64 << 40}))]),
            json!([with(json!({"task_run": "run_1"}))]),
            json!([with(json!({"task_run": 7}))]),
            json!([[]]),
            json!(["succeeded"]),
            json!({"0": with(json!({}))}),
            json!("all"),
        ] {
            worker.send(json!({"type": "result", "results": results.clone()})).await;
            let error = worker.expect("error").await;
            assert!(error["code"].is_string(), "{results}: {error}");
            assert_eq!(engine.run(&run["id"]).await["status"], "running", "{results}");
        }
        worker.finish(&task, json!("good")).await;
        assert_eq!(engine.run_is(&run["id"], "succeeded").await["output"], "good");
    }
}
