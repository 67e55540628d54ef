//! Replaying one run: what it keeps, what it refuses, and that it happens once.

use serde_json::{Value, json};

use super::{NOBODY, pages, problem};
use crate::both_ways;
use crate::support::{self, Engine, Worker};

fn path(run: &Value) -> String {
    format!("/v1/runs/{}/replay", run["id"].as_str().unwrap())
}

/// A run that has failed; its worker is left.
async fn failed(engine: &Engine, worker: &mut Worker, body: Value) -> Value {
    let (status, run) = engine.post("/v1/runs", body).await;
    assert_eq!(status, 201, "{run}");
    let task = worker.find_tasks().await.remove(0);
    worker.fail(&task, json!({"message": "x"})).await;
    engine.run_is(&run["id"], "failed").await
}

both_ways! {
    async fn a_replay_is_a_new_run_with_the_same_input(engine) {
        engine.workflow("work").await;
        let mut worker = support::worker(&engine, &["work"], 1).await;
        // Also an input that stands apart from its row.
        for input in [json!({"n": 1}), json!("x".repeat(5_000)), Value::Null] {
            let body = json!({"workflow": "work", "input": input, "metadata": {"user": "42"}, "priority": 3});
            let run = failed(&engine, &mut worker, body).await;
            let answer = engine.request("POST", &path(&run), &[], "").await;
            assert_eq!(answer.status, 201, "{:?}", answer.body);
            let replay = answer.json();
            assert_eq!(answer.header("location"), format!("/v1/runs/{}", replay["id"].as_str().unwrap()));
            assert_ne!(replay["id"], run["id"]);
            for same in ["workflow", "version", "input", "metadata", "priority"] {
                assert_eq!(replay[same], run[same], "{same}");
            }
            assert_eq!((&replay["replay_of"], &replay["status"].as_str()), (&run["id"], &Some(if replay["attempt"] == 0 { "queued" } else { "running" })));
            // Read your own write, byte for byte.
            let location = format!("/v1/runs/{}", replay["id"].as_str().unwrap());
            if replay["status"] == "running" {
                assert_eq!(engine.request("GET", &location, &[], "").await.body, answer.body);
            }
            let task = worker.find_tasks().await.remove(0);
            assert_eq!((&task["run"], &task["input"], &task["metadata"]), (&replay["id"], &run["input"], &run["metadata"]));
            worker.finish(&task, json!("done")).await;
            // The old one stays as it was; the new one keeps its origin in the history.
            assert_eq!(engine.run(&run["id"]).await, run);
            let ended = engine.run_is(&replay["id"], "succeeded").await;
            assert_eq!((&ended["replay_of"], &ended["output"]), (&run["id"], &json!("done")));
        }
    }
}

both_ways! {
    async fn an_event_s_run_is_replayed_with_the_payload(engine) {
        let definition = json!({"tasks": [{"name": "work"}], "events": ["image.*"]});
        assert_eq!(engine.put("/v1/workflows/work", definition).await.0, 200);
        let mut worker = support::worker(&engine, &["work"], 1).await;
        let event = engine.post("/v1/events", json!({"key": "image.up", "payload": {"url": "a"}})).await.1;
        let task = worker.find_tasks().await.remove(0);
        worker.finish(&task, json!(1)).await;
        let replay = engine.post(&format!("/v1/runs/{}/replay", event["runs"][0].as_str().unwrap()), json!({})).await.1;
        assert_eq!((&replay["input"], &replay["event"]), (&json!({"url": "a"}), &Value::Null));
        let task = worker.find_tasks().await.remove(0);
        assert_eq!(task["input"], json!({"url": "a"}));
    }
}

both_ways! {
    async fn the_version_is_the_current_or_the_same_one(engine) {
        engine.workflow("work").await;
        let mut worker = support::worker(&engine, &["work"], 9).await;
        let run = failed(&engine, &mut worker, json!({"workflow": "work"})).await;
        engine.workflow_with("work", json!({"retries": 5})).await;
        for (body, version) in [(json!({}), 2), (json!({"version": "current"}), 2), (json!({"version": "same"}), 1)] {
            let (status, replay) = engine.post(&path(&run), body).await;
            assert_eq!((status, &replay["version"]), (201, &json!(version)), "{replay}");
        }
        // What is deleted starts nothing, in no version.
        for id in engine.get("/v1/runs?status=running,queued").await.1["items"].as_array().unwrap() {
            engine.post(&format!("/v1/runs/{}/cancel", id["id"].as_str().unwrap()), json!({})).await;
        }
        assert_eq!(engine.delete("/v1/workflows/work").await.0, 204);
        for body in [r#"{}"#, r#"{"version":"same"}"#] {
            problem(&engine.request("POST", &path(&run), &[], body).await, 404, "workflow_not_found");
        }
    }
}

both_ways! {
    async fn one_key_gives_one_replay(engine) {
        engine.workflow("work").await;
        let mut worker = support::worker(&engine, &["work"], 1).await;
        let run = failed(&engine, &mut worker, json!({"workflow": "work"})).await;
        let other = failed(&engine, &mut worker, json!({"workflow": "work"})).await;
        let key = [("idempotency-key", "once")];
        let (status, first) = engine.post_with(&path(&run), &key, json!({})).await;
        assert_eq!(status, 201);
        let (status, second) = engine.post_with(&path(&run), &key, json!({})).await;
        assert_eq!((status, &second["id"], &second["deduplicated"]), (200, &first["id"], &json!(true)));
        assert_eq!(second["replay_of"], run["id"]);
        // Another run, other options, and a trigger are other bodies.
        let refused = engine.request("POST", &path(&other), &key, "{}").await;
        assert_eq!(problem(&refused, 409, "idempotency_conflict")["existing"], first["id"]);
        problem(&engine.request("POST", &path(&run), &key, r#"{"version":"same"}"#).await, 409, "idempotency_conflict");
        problem(&engine.request("POST", "/v1/runs", &key, r#"{"workflow":"work"}"#).await, 409, "idempotency_conflict");

        // Lists find the replays of a run, open and ended ones.
        let task = worker.find_tasks().await.remove(0);
        worker.finish(&task, json!(1)).await;
        engine.run_is(&first["id"], "succeeded").await;
        let (_, third) = engine.post(&path(&run), json!({})).await;
        let ids = async |query: &str| -> Vec<Value> {
            pages(&engine, &format!("/v1/runs?{query}"), 1).await.iter().map(|run| run["id"].clone()).collect()
        };
        let of = format!("replay_of={}", run["id"].as_str().unwrap());
        assert_eq!(ids(&of).await, [third["id"].clone(), first["id"].clone()]);
        assert_eq!(ids(&format!("{of}&status=succeeded")).await, [first["id"].clone()]);
        assert_eq!(ids(&format!("replay_of={}", other["id"].as_str().unwrap())).await, Vec::<Value>::new());
    }
}

both_ways! {
    async fn what_is_open_foreign_or_wrong_is_refused(engine) {
        engine.workflow("waits").await;
        let run = engine.trigger("waits", json!(1)).await;
        let refused = problem(&engine.request("POST", &path(&run), &[], "").await, 409, "not_finished");
        assert_eq!(refused["existing"], run["id"]);
        engine.post(&path(&run).replace("replay", "cancel"), json!({})).await;
        let stranger = engine.second_tenant().await;
        problem(&stranger.request("POST", &path(&run), &[], "").await, 404, "not_found");
        problem(&engine.request("POST", &format!("/v1/runs/run_{NOBODY}/replay"), &[], "").await, 404, "not_found");
        problem(&engine.request("POST", "/v1/runs/evt_1/replay", &[], "").await, 400, "invalid_id");
        for (body, code, pointer) in [
            (r#"{"version":"old"}"#, "invalid_field", Some("/version")),
            (r#"{"version":3}"#, "invalid_field", Some("/version")),
            (r#"{"input":1}"#, "unknown_field", Some("/input")),
            ("[]", "invalid_field", Some("")),
            ("{", "malformed", None),
        ] {
            let refused = problem(&engine.request("POST", &path(&run), &[], body).await, 400, code);
            assert_eq!(refused["pointer"].as_str(), pointer, "{refused}");
        }
        let plain = [("content-type", "text/plain")];
        problem(&engine.request("POST", &path(&run), &plain, "{}").await, 415, "unsupported_media_type");
        problem(&engine.request("POST", &format!("{}?now=1", path(&run)), &[], "").await, 400, "unknown_field");
        problem(&engine.request("GET", "/v1/runs?replay_of=x", &[], "").await, 400, "invalid_field");
        // Nothing came of all that.
        assert_eq!(engine.get("/v1/runs").await.1["items"].as_array().unwrap().len(), 1);
    }
}

/// A replay that is taken over by another engine still says what it repeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_origin() {
    let engine = support::engine().await;
    engine.workflow("work").await;
    let mut worker = support::worker(&engine, &["work"], 1).await;
    let run = failed(&engine, &mut worker, json!({"workflow": "work"})).await;
    worker.goodbye().await;
    let replay = engine.post(&path(&run), json!({})).await.1;
    let engine = engine.restart().await;
    let waiting = engine.client();
    let mut worker = support::worker(&engine, &["work"], 1).await;
    let task = worker.find_tasks().await.remove(0);
    assert_eq!(task["run"], replay["id"]);
    worker.finish(&task, json!(1)).await;
    engine.run_is(&replay["id"], "succeeded").await;
    let (_, ended) = waiting.get(&format!("/v1/runs/{}", replay["id"].as_str().unwrap())).await;
    assert_eq!(ended["replay_of"], run["id"]);
}
