//! Events and the runs that they start.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{NOBODY, pages, post, problem};
use crate::both_ways;
use crate::support::{self, Builder, Engine};

async fn workflow(engine: &Engine, name: &str, patterns: &[&str]) {
    let definition = json!({"tasks": [{"name": name}], "events": patterns});
    assert_eq!(engine.put(&format!("/v1/workflows/{name}"), definition).await.0, 200);
}

both_ways! {
    async fn an_event_starts_the_workflows_that_match(engine) {
        workflow(&engine, "a", &["image.*"]).await;
        workflow(&engine, "b", &["video.*", "*.uploaded"]).await;
        workflow(&engine, "c", &["image"]).await;
        engine.workflow("d").await;
        let body = r#"{"key":"image.uploaded","payload":{"n": 1e999},"metadata":{"user":"42"}}"#;
        let response = post(&engine, "/v1/events", body).await;
        assert_eq!(response.status, 201);
        let event = response.body.clone();
        let text = String::from_utf8(event.to_vec()).unwrap();
        assert!(text.contains(r#""payload":{"n": 1e999}"#), "{text}");
        let id = text.split('"').nth(3).unwrap();
        assert!(id.starts_with("evt_"));
        assert_eq!(response.header("location"), format!("/v1/events/{id}"));
        assert_eq!(engine.request("GET", &format!("/v1/events/{id}"), &[], "").await.body, event);

        let runs = engine.request("GET", &format!("/v1/runs?event={id}"), &[], "").await;
        let runs = String::from_utf8(runs.body.to_vec()).unwrap();
        assert_eq!(runs.matches(r#""input":{"n": 1e999}"#).count(), 2, "{runs}");
        assert_eq!(runs.matches(r#""metadata":{"user":"42"}"#).count(), 2, "{runs}");
        assert_eq!(runs.matches(&format!(r#""event":"{id}""#)).count(), 2, "{runs}");
        for workflow in ["a", "b"] {
            assert!(runs.contains(&format!(r#""workflow":"{workflow}""#)), "{runs}");
        }
    }
}

both_ways! {
    async fn an_event_without_a_match_is_kept(engine) {
        let (status, event) = engine.post("/v1/events", json!({"key": "nobody.cares"})).await;
        assert_eq!((status, &event["runs"], &event["payload"], &event["metadata"]), (201, &json!([]), &Value::Null, &json!({})));
        let (status, read) = engine.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await;
        assert_eq!((status, read), (200, event));
        problem(&engine.request("GET", &format!("/v1/events/evt_{NOBODY}"), &[], "").await, 404, "not_found");
    }
}

both_ways! {
    async fn a_worker_gets_the_payload_as_input(engine) {
        workflow(&engine, "a", &["x"]).await;
        let mut worker = support::worker(&engine, &["a"], 1).await;
        let (_, event) = engine.post("/v1/events", json!({"key": "x", "payload": {"large": "y".repeat(5_000)}})).await;
        let task = worker.task().await;
        assert_eq!((&task["run"], &task["input"]), (&event["runs"][0], &event["payload"]));
        worker.finish(&task, json!(1)).await;
        let run = engine.run_is(&event["runs"][0], "succeeded").await;
        assert_eq!(run["input"], event["payload"]);
        worker.goodbye().await;
    }
}

both_ways! {
    async fn one_source_id_is_one_event(engine) {
        workflow(&engine, "a", &["x"]).await;
        let body = json!({"key": "x", "payload": 1, "source": "s3", "source_id": "o 1"});
        let pushes = (0..30).map(|_| {
            let (client, body) = (engine.client(), body.clone());
            async move { client.post("/v1/events", body).await }
        });
        let answers = join_all(pushes).await;
        let ids: BTreeSet<_> = answers.iter().map(|(_, event)| event["id"].to_string()).collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1);
        assert!(answers.iter().all(|(status, event)| *status == 201 || event["deduplicated"] == true));
        assert_eq!(engine.get("/v1/runs").await.1["items"].as_array().unwrap().len(), 1);

        let other = json!({"key": "x", "payload": 2, "source": "s3", "source_id": "o 1"});
        let conflict = engine.request("POST", "/v1/events", &[], other.to_string()).await;
        assert_eq!(problem(&conflict, 409, "idempotency_conflict")["existing"], answers[0].1["id"]);
        // Another source, and a run's key of the same text, are something else.
        let elsewhere = json!({"key": "x", "payload": 1, "source": "s4", "source_id": "o 1"});
        assert_eq!(engine.post("/v1/events", elsewhere).await.0, 201);
    }
}

both_ways! {
    with Builder::new().limits(|l| l.event_matches = 3);
    async fn too_many_matches_write_nothing(engine) {
        for i in 0..3 {
            workflow(&engine, &format!("w{i}"), &["x"]).await;
        }
        let (status, event) = engine.post("/v1/events", json!({"key": "x"})).await;
        assert_eq!((status, event["runs"].as_array().unwrap().len()), (201, 3));
        workflow(&engine, "w3", &["*"]).await;
        let refused = post(&engine, "/v1/events", r#"{"key":"x"}"#).await;
        problem(&refused, 422, "too_many_matches");
        assert_eq!(engine.get("/v1/events").await.1["items"].as_array().unwrap().len(), 1);
        assert_eq!(engine.get("/v1/runs").await.1["items"].as_array().unwrap().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_listed_newest_first_and_filtered() {
    let engine = support::engine().await;
    let mut ids = Vec::new();
    for i in 0..7 {
        let mut body = json!({"key": format!("k{}", i % 2), "metadata": {"n": (i % 3).to_string()}});
        if i < 2 {
            body["source"] = json!("s");
            body["source_id"] = json!(i.to_string());
        }
        ids.push(engine.post("/v1/events", body).await.1["id"].clone());
    }
    let list = async |query: &str| -> Vec<Value> {
        pages(&engine, &format!("/v1/events{query}"), 2).await.iter().map(|e| e["id"].clone()).collect()
    };
    let wanted = |keep: &dyn Fn(usize) -> bool| -> Vec<Value> {
        (0..7).rev().filter(|i| keep(*i)).map(|i| ids[i].clone()).collect()
    };
    assert_eq!(list("").await, wanted(&|_| true));
    assert_eq!(list("?key=k1").await, wanted(&|i| i % 2 == 1));
    assert_eq!(list("?source=s").await, wanted(&|i| i < 2));
    assert_eq!(list("?metadata=n%3D0&key=k0").await, wanted(&|i| i % 6 == 0));
    assert_eq!(list("?created_after=2100-01-01T00:00:00Z").await, [] as [Value; 0]);
    assert_eq!(list("?created_before=2100-01-01T00:00:00Z").await.len(), 7);
}
