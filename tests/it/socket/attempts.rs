//! Results for attempts that are not the worker's: none counts.

use serde_json::{Value, json};

use super::ready;
use crate::both_ways;
use crate::support::{Builder, Worker, attempt, hello, worker};

async fn superseded(worker: &mut Worker, task: &Value) -> Value {
    let frame = worker.expect("superseded").await;
    let found = frame["tasks"].as_array().unwrap().iter().find(|t| attempt(t) == attempt(task)).cloned();
    found.unwrap_or_else(|| panic!("{task} is not in {frame}"))
}

both_ways! {
    async fn a_result_for_nothing_changes_nothing(engine) {
        let mut worker = ready(&engine).await;
        let nothing = json!({"task_run": "run_01932c4f8a2b7c3d9e4f506172839401", "attempt": 1});
        worker.report(&nothing, json!({"outcome": "succeeded", "output": 1})).await;
        assert_eq!(superseded(&mut worker, &nothing).await["reason"], "unknown");
        worker.send(json!({"type": "received", "tasks": [nothing]})).await;
        assert_eq!(superseded(&mut worker, &nothing).await["reason"], "unknown");
        assert_eq!(engine.get("/v1/runs/run_01932c4f8a2b7c3d9e4f506172839401").await.0, 404);
    }
}

both_ways! {
    async fn a_result_for_another_tenants_run_changes_nothing(engine) {
        let mut ours = ready(&engine).await;
        let other = engine.second_tenant().await;
        let mut theirs = Worker::connect(&engine.url, &other.token, hello("theirs", &["work"], 1)).await;
        let run = engine.trigger("work", json!({})).await;
        let task = ours.task().await;
        for outcome in [json!({"outcome": "succeeded", "output": 1}), json!({"outcome": "released"})] {
            theirs.report(&task, outcome).await;
            // The other tenant does not even learn that there is such a run.
            assert_eq!(superseded(&mut theirs, &task).await["reason"], "unknown");
        }
        assert_eq!(engine.run(&run["id"]).await["status"], "running");
        ours.finish(&task, json!("ours")).await;
        theirs.report(&task, json!({"outcome": "succeeded", "output": 1})).await;
        assert_eq!(superseded(&mut theirs, &task).await["reason"], "unknown");
        assert_eq!(engine.run(&run["id"]).await["output"], "ours");
    }
}

both_ways! {
    async fn another_worker_of_the_tenant_cannot_end_an_attempt(engine) {
        let mut holder = ready(&engine).await;
        let mut other = worker(&engine, &["something-else"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let task = holder.task().await;
        other.report(&task, json!({"outcome": "succeeded", "output": "stolen"})).await;
        superseded(&mut other, &task).await;
        holder.finish(&task, json!("mine")).await;
        assert_eq!(engine.run(&run["id"]).await["output"], "mine");
    }
}

both_ways! {
    async fn a_stale_attempt_does_not_count(engine) {
        let mut worker = ready(&engine).await;
        let run = engine.trigger("work", json!({})).await;
        let first = worker.task().await;
        worker.report(&first, json!({"outcome": "released"})).await;
        worker.stored(&first).await;
        let second = worker.task().await;
        assert_eq!(second["attempt"], 2);
        worker.report(&first, json!({"outcome": "succeeded", "output": "stale"})).await;
        superseded(&mut worker, &first).await;
        let ahead = json!({"task_run": run["id"], "attempt": 3});
        worker.report(&ahead, json!({"outcome": "succeeded", "output": "ahead"})).await;
        superseded(&mut worker, &ahead).await;
        worker.finish(&second, json!("right")).await;
        assert_eq!(engine.run(&run["id"]).await["output"], "right");
    }
}

both_ways! {
    async fn a_result_twice_is_stored_once(engine) {
        let mut worker = ready(&engine).await;
        let run = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        worker.finish(&task, json!("first")).await;
        worker.report(&task, json!({"outcome": "succeeded", "output": "second"})).await;
        // The same answer again: the worker may forget it.
        assert_eq!(worker.stored(&task).await["status"], "succeeded");
        let run = engine.run(&run["id"]).await;
        assert_eq!((&run["output"], &run["attempt"]), (&json!("first"), &json!(1)));
    }
}

both_ways! {
    with Builder::new();
    async fn a_timeout_ends_the_attempt_and_extend_moves_it(engine) {
        engine.workflow_with("short", json!({"execution_timeout": "300ms"})).await;
        let mut worker = worker(&engine, &["short"], 2).await;
        let late = engine.trigger("short", json!({})).await;
        let task = worker.task().await;
        let frame = worker.find("cancel").await;
        assert_eq!((&frame["tasks"][0]["reason"], attempt(&frame["tasks"][0])), (&json!("timeout"), attempt(&task)));
        let ended = engine.run_is(&late["id"], "failed").await;
        assert_eq!(ended["error"]["code"], "timeout");

        let extended = engine.trigger("short", json!({})).await;
        let task = worker.task().await;
        let mut more = attempt(&task);
        more["timeout_ms"] = json!(60_000);
        worker.send(json!({"type": "extend", "tasks": [more]})).await;
        let frame = worker.find("extended").await;
        assert_eq!(frame["tasks"], json!([more]));
        crate::support::until("more than the first timeout has passed", || async {
            let run = engine.run(&extended["id"]).await;
            let started = run["started_at"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok()?;
            let now = helve_domain::clock::Clock::system().now().to_utc();
            (now - started > chrono::Duration::milliseconds(700)).then_some(())
        })
        .await;
        worker.finish(&task, json!(1)).await;
        assert_eq!(engine.run(&extended["id"]).await["status"], "succeeded");
    }
}
