//! Delays, retries and timeouts: not before their time, and hardly after it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Builder, worker};

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
