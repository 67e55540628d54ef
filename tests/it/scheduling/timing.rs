//! Delays, retries and timeouts: not before their time, and hardly after it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Builder, until, worker};

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

fn lateness(run: &Value, due: DateTime<Utc>) -> i64 {
    (time(&run["started_at"]) - due).num_milliseconds()
}

both_ways! {
    async fn delayed_runs_start_at_their_time(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 50).await;
        let mut due = Vec::new();
        for i in 0..20 {
            let body = json!({"workflow": "work", "input": i, "delay": format!("{}ms", 300 + i * 20)});
            let (status, run) = engine.post("/v1/runs", body).await;
            assert_eq!((status, &run["status"]), (201, &json!("scheduled")), "{run}");
            due.push((run["id"].clone(), time(&run["run_at"])));
        }
        let mut seen = 0;
        while seen < due.len() {
            seen += worker.find_tasks().await.len();
        }
        let mut late = Vec::new();
        for (id, at) in due {
            late.push(lateness(&engine.run(&id).await, at));
        }
        late.sort_unstable();
        assert!(late[0] >= 0, "never early: {late:?}");
        // The median, since the machine of a test is busy with other tests.
        assert!(late[late.len() / 2] < 50, "within 50 ms: {late:?}");
    }
}

both_ways! {
    async fn retries_wait_as_long_as_the_policy_says(engine) {
        let retries = json!({"count": 2, "base": "200ms", "factor": 2, "jitter": false,
                             "rules": [{"codes": ["fatal"], "retry": false}]});
        engine.workflow_with("work", json!({"retries": retries})).await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let mut ends = Vec::new();
        for number in 1..=3 {
            let task = worker.task().await;
            assert_eq!(task["attempt"], number);
            ends.push(time(&engine.run(&run["id"]).await["started_at"]));
            let stored = worker.fail(&task, json!({"message": format!("boom {number}")})).await;
            assert_eq!(stored["status"], if number < 3 { "scheduled" } else { "failed" });
        }
        let end = engine.run(&run["id"]).await;
        assert_eq!((&end["retries"], &end["error"]["message"]), (&json!(2), &json!("boom 3")));
        let gaps: Vec<_> = ends.windows(2).map(|w| (w[1] - w[0]).num_milliseconds()).collect();
        assert!(gaps[0] >= 200 && gaps[1] >= 400, "{gaps:?}");

        let fatal = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        assert_eq!(worker.fail(&task, json!({"message": "no", "code": "fatal"})).await["status"], "failed");
        assert_eq!(engine.run(&fatal["id"]).await["retries"], 0);

        let asked = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        worker.fail(&task, json!({"message": "later", "retry_after_ms": 50})).await;
        assert_eq!(worker.task().await["attempt"], 2);
        assert_eq!(engine.run(&asked["id"]).await["status"], "running");
    }
}

both_ways! {
    async fn a_run_that_waits_too_long_in_the_queue_is_cancelled(engine) {
        engine.workflow_with("work", json!({"schedule_timeout": "300ms"})).await;
        // Nobody offers the action: the run is only in the database, and its timer fires all the same.
        let run = engine.trigger("work", json!({})).await;
        let end = engine.run_is(&run["id"], "cancelled").await;
        assert_eq!(end["error"]["code"], "schedule_timeout");
        let waited = (time(&end["finished_at"]) - time(&run["created_at"])).num_milliseconds();
        assert!((300..2_000).contains(&waited), "{waited} ms");
        // The same with a worker that has no room.
        let mut worker = worker(&engine, &["work"], 1).await;
        engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        let second = engine.trigger("work", json!({})).await;
        engine.run_is(&second["id"], "cancelled").await;
        worker.finish(&task, Value::Null).await;
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.cancel_grace = Duration::from_millis(400));
    async fn a_timed_out_attempt_is_retried_and_its_slot_comes_back(engine) {
        engine.workflow_with("work", json!({"execution_timeout": "200ms",
            "retries": {"count": 1, "base": "10ms", "jitter": false}})).await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let first = worker.task().await;
        let cancel = worker.find("cancel").await;
        assert_eq!((&cancel["tasks"][0]["reason"], &cancel["tasks"][0]["grace_ms"]), (&json!("timeout"), &json!(400)));
        // The worker does not obey: after the grace its slot is used anew, and its late result is nothing.
        let second = worker.find_tasks().await.remove(0);
        assert_eq!((&second["run"], &second["attempt"]), (&run["id"], &json!(2)));
        worker.report(&first, json!({"outcome": "succeeded", "output": "late"})).await;
        worker.report(&second, json!({"outcome": "succeeded", "output": "in time"})).await;
        assert_eq!(engine.run_is(&run["id"], "succeeded").await["output"], "in time");
    }
}

both_ways! {
    async fn thousands_that_are_due_at_one_instant_start_once_and_let_others_by(engine) {
        for name in ["timed", "single"] {
            engine.workflow(name).await;
        }
        let mut single = worker(&engine, &["single"], 1).await;
        let at = engine.clock.now().plus(Duration::from_secs(3)).to_string();
        for _ in 0..2 {
            let runs = vec![json!({"workflow": "timed", "input": null, "run_at": at}); 1_000];
            let (status, _) = engine.post("/v1/runs/bulk", json!({"runs": runs})).await;
            assert_eq!(status, 200);
        }
        let sql = engine.sql().await;
        let queued = async || -> i64 {
            let count = "select count(*) from open_run where workflow = 'timed' and state = 1";
            sql.query_one(count, &[]).await.unwrap().get(0)
        };
        until("the first of them is in its queue", || async { (queued().await > 0).then_some(()) }).await;
        // Single ones have their turn all along.
        while queued().await < 2_000 {
            let run = engine.trigger("single", json!(1)).await;
            let task = single.find_tasks().await.remove(0);
            single.finish(&task, json!(1)).await;
            engine.run_is(&run["id"], "succeeded").await;
        }
        let mut timed = worker(&engine, &["timed"], 2_000).await;
        let mut seen = std::collections::HashSet::new();
        while seen.len() < 2_000 {
            for task in timed.find_tasks().await {
                assert_eq!(task["attempt"], 1);
                assert!(seen.insert(task["run"].to_string()), "{task} came twice");
            }
        }
    }
}
