//! Creating, reading and cancelling runs.

use serde_json::{Value, json};

use super::{NOBODY, post, problem};
use crate::both_ways;
use crate::support;

fn path(run: &Value, action: &str) -> String {
    format!("/v1/runs/{}{action}", run["id"].as_str().unwrap())
}

both_ways! {
    async fn a_run_looks_as_documented(engine) {
        engine.workflow("resize").await;
        let body = r#"{"workflow":"resize","input":{"url":"a.png"},"priority":3,"metadata":{"user":"42"}}"#;
        let response = post(&engine, "/v1/runs", body).await;
        assert_eq!(response.status, 201);
        let run = response.json();
        assert_eq!(response.header("location"), path(&run, ""));
        let names: Vec<_> = run.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "id", "workflow", "version", "status", "attempt", "retries", "priority", "input", "output", "error",
            "metadata", "worker", "event", "replay_of", "created_at", "run_at", "started_at", "finished_at",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(run["status"], "queued");
        assert_eq!((&run["version"], &run["attempt"], &run["retries"], &run["priority"]), (&json!(1), &json!(0), &json!(0), &json!(3)));
        assert_eq!((&run["input"], &run["metadata"]), (&json!({"url": "a.png"}), &json!({"user": "42"})));
        for absent in ["output", "error", "worker", "event", "replay_of", "run_at", "started_at", "finished_at"] {
            assert_eq!(run[absent], Value::Null, "{absent}");
        }
        // RFC 3339 in UTC with microseconds.
        let created = run["created_at"].as_str().unwrap();
        assert!(created.len() == 27 && created.ends_with('Z'), "{created}");
        // Read your own write, byte for byte.
        assert_eq!(engine.request("GET", &path(&run, ""), &[], "").await.body, response.body);
    }
}

both_ways! {
    async fn what_is_absent_has_its_default(engine) {
        engine.workflow("w").await;
        for body in [r#"{"workflow":"w"}"#, r#"{"workflow":"w","input":null,"metadata":null,"priority":null,"delay":null}"#] {
            let run = post(&engine, "/v1/runs", body).await.json();
            let run = engine.run(&run["id"]).await;
            assert_eq!((&run["input"], &run["metadata"], &run["priority"]), (&Value::Null, &json!({}), &json!(2)));
        }
    }
}

both_ways! {
    async fn a_large_input_is_stored_whole(engine) {
        engine.workflow("w").await;
        // The limit of the input itself, with its quotes.
        let input = json!("x".repeat((1 << 20) - 2));
        let run = engine.trigger("w", input.clone()).await;
        assert_eq!(engine.run(&run["id"]).await["input"], input);
    }
}

both_ways! {
    async fn a_delayed_run_is_scheduled(engine) {
        engine.workflow("w").await;
        for body in [
            json!({"workflow": "w", "delay": "1h30m"}),
            json!({"workflow": "w", "delay": 5_400}),
            json!({"workflow": "w", "run_at": "2031-01-31T12:00:00+01:00"}),
        ] {
            let far = body["run_at"].is_string();
            if far {
                // Further away than a year is too far.
                let response = post(&engine, "/v1/runs", &body.to_string()).await;
                problem(&response, 400, "invalid_field");
                continue;
            }
            let (status, run) = engine.post("/v1/runs", body).await;
            assert_eq!((status, &run["status"]), (201, &json!("scheduled")));
            let time = |field: &str| chrono::DateTime::parse_from_rfc3339(run[field].as_str().unwrap()).unwrap();
            let wait = (time("run_at") - time("created_at")).num_milliseconds();
            // Counted from the arrival of the request, which is a little before the creation.
            assert!((5_395_000..=5_400_000).contains(&wait), "{wait} ms");
            assert_eq!(engine.run(&run["id"]).await, run);
        }
        let (_, past) = engine.post("/v1/runs", json!({"workflow": "w", "run_at": "2020-01-01T00:00:00Z"})).await;
        assert_eq!((&past["status"], &past["run_at"]), (&json!("queued"), &Value::Null));
        let (_, now) = engine.post("/v1/runs", json!({"workflow": "w", "delay": 0})).await;
        assert_eq!(now["status"], "queued");
    }
}

both_ways! {
    async fn a_run_is_cancelled_once_and_again(engine) {
        engine.workflow("w").await;
        let open = [engine.trigger("w", json!(1)).await, engine.post("/v1/runs", json!({"workflow": "w", "delay": "1h"})).await.1];
        for run in open {
            let (status, cancelled) = engine.post(&path(&run, "/cancel"), json!({})).await;
            assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")), "{cancelled}");
            assert_eq!(cancelled["error"]["code"], "cancelled");
            assert!(cancelled["finished_at"].is_string());
            assert_eq!(engine.run(&run["id"]).await, cancelled);
            // Also without a body, as curl sends it.
            let again = engine.request("POST", &path(&run, "/cancel"), &[], "").await;
            assert_eq!((again.status, again.json()), (200, cancelled));
        }
        let unknown = engine.request("POST", &format!("/v1/runs/run_{NOBODY}/cancel"), &[], "").await;
        problem(&unknown, 404, "not_found");
        problem(&engine.request("GET", &format!("/v1/runs/run_{NOBODY}"), &[], "").await, 404, "not_found");
    }
}

both_ways! {
    async fn what_has_ended_cannot_be_cancelled(engine) {
        engine.workflow("w").await;
        let mut worker = support::worker(&engine, &["w"], 2).await;
        for good in [true, false] {
            let run = engine.trigger("w", json!(1)).await;
            let task = worker.task().await;
            if good {
                worker.finish(&task, json!({"ok": true})).await;
            } else {
                worker.fail(&task, json!({"message": "boom", "code": "bad"})).await;
            }
            let ended = engine.run_is(&run["id"], if good { "succeeded" } else { "failed" }).await;
            let refused = engine.request("POST", &path(&run, "/cancel"), &[], "").await;
            assert_eq!(problem(&refused, 409, "already_finished")["existing"], run["id"]);
            assert_eq!(engine.run(&run["id"]).await, ended);
        }
        worker.goodbye().await;
    }
}

both_ways! {
    async fn a_finished_run_shows_its_result(engine) {
        engine.workflow("w").await;
        let mut worker = support::worker(&engine, &["w"], 1).await;
        let run = engine.trigger("w", json!({"a": 1})).await;
        let task = worker.task().await;
        worker.finish(&task, json!({"large": "x".repeat(5_000)})).await;
        let run = engine.run_is(&run["id"], "succeeded").await;
        assert_eq!(run["output"]["large"].as_str().unwrap().len(), 5_000);
        assert_eq!((&run["attempt"], &run["error"]), (&json!(1), &Value::Null));
        assert!(run["worker"].as_str().unwrap().starts_with("wrk_"));
        assert!(run["started_at"].as_str().unwrap() <= run["finished_at"].as_str().unwrap());

        let run = engine.trigger("w", json!(null)).await;
        let task = worker.task().await;
        worker.fail(&task, json!({"message": "boom", "code": "bad", "retryable": false})).await;
        let run = engine.run_is(&run["id"], "failed").await;
        assert_eq!((&run["error"]["message"], &run["error"]["code"]), (&json!("boom"), &json!("bad")));
        assert_eq!(run["output"], Value::Null);
        worker.goodbye().await;
    }
}

both_ways! {
    async fn the_trace_context_travels_to_the_worker(engine) {
        engine.workflow("w").await;
        let mut worker = support::worker(&engine, &["w"], 1).await;
        let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (sent, expected) in [(context, json!(context)), ("broken", Value::Null)] {
            let created = engine.request("POST", "/v1/runs", &[("traceparent", sent)], r#"{"workflow":"w"}"#).await;
            assert_eq!(created.status, 201);
            let task = worker.task().await;
            assert_eq!(task["traceparent"], expected);
            worker.finish(&task, json!(null)).await;
        }
        worker.goodbye().await;
    }
}
