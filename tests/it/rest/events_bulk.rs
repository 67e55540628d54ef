//! Many events in one request.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{pages, post, problem};
use crate::both_ways;
use crate::support::{self, Builder, Engine, Http};

async fn workflow(engine: &Engine, name: &str, pattern: &str) {
    let definition = json!({"tasks": [{"name": name}], "events": [pattern]});
    assert_eq!(engine.put(&format!("/v1/workflows/{name}"), definition).await.0, 200);
}

async fn bulk(client: &Http, body: &Value) -> Vec<Value> {
    let response = post(client, "/v1/events/bulk", &body.to_string()).await;
    assert_eq!(response.status, 200, "{}", response.json());
    response.json()["results"].as_array().unwrap().clone()
}

both_ways! {
    with Builder::new().limits(|l| l.event_matches = 1);
    async fn each_event_has_its_own_outcome(engine) {
        workflow(&engine, "a", "one.*").await;
        workflow(&engine, "b", "two").await;
        workflow(&engine, "c", "tw*").await;
        let results = bulk(&engine, &json!({"events": [
            {"key": "one.x", "payload": {"n": 0}, "metadata": {"a": "b"}},
            {"key": "two"},
            {"key": "one.y", "typo": 1},
            {"key": "a b"},
            7,
            {"key": "nobody"},
            {"key": "one.z", "source": "s"},
        ]})).await;
        let statuses: Vec<_> = results.iter().map(|r| r["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [201, 422, 400, 400, 400, 201, 400]);
        let pointers: Vec<_> = results.iter().map(|r| r["problem"]["pointer"].as_str().unwrap_or("")).collect();
        assert_eq!(pointers, ["", "/events/1/key", "/events/2/typo", "/events/3/key", "/events/4", "", "/events/6/source_id"]);
        for result in &results {
            assert_ne!(result.get("event").is_some(), result.get("problem").is_some(), "{result}");
            if let Some(event) = result.get("event") {
                assert_eq!(engine.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.1, *event);
            }
        }
        let run = engine.run(&results[0]["event"]["runs"][0]).await;
        assert_eq!((&run["workflow"], &run["input"], &run["event"]), (&json!("a"), &json!({"n": 0}), &results[0]["event"]["id"]));
        assert_eq!(pages(&engine, "/v1/events", 100).await.len(), 2);
        assert_eq!(pages(&engine, "/v1/runs", 100).await.len(), 1);
    }
}

both_ways! {
    async fn a_thousand_events_start_two_thousand_runs_that_are_executed(engine) {
        workflow(&engine, "a", "x.*").await;
        workflow(&engine, "b", "*").await;
        let mut worker = support::worker(&engine, &["a", "b"], 50).await;
        let items = |n: usize| json!({"events": (0..n).map(|i| json!({"key": "x.y", "payload": i, "source": "s", "source_id": i.to_string()})).collect::<Vec<_>>()});
        let results = bulk(&engine, &items(1_000)).await;
        let mut runs = BTreeSet::new();
        for (i, result) in results.iter().enumerate() {
            assert_eq!((&result["status"], &result["event"]["payload"]), (&json!(201), &json!(i)));
            runs.extend(result["event"]["runs"].as_array().unwrap().iter().map(Value::to_string));
        }
        assert_eq!((results.len(), runs.len()), (1_000, 2_000));
        // Every one of them, once.
        let mut left = runs.clone();
        while !left.is_empty() {
            let tasks = worker.find_tasks().await;
            assert!(tasks.iter().all(|task| left.remove(&task["run"].to_string())));
            worker.succeed(&tasks).await;
        }
        worker.goodbye().await;
        let again = bulk(&engine, &items(1_000)).await;
        for (first, again) in results.iter().zip(&again) {
            assert_eq!((&again["status"], &again["event"]["id"]), (&json!(200), &first["event"]["id"]));
            assert_eq!((&again["event"]["deduplicated"], &again["event"]["runs"]), (&json!(true), &first["event"]["runs"]));
        }
        assert_eq!(pages(&engine, "/v1/runs", 1_000).await.len(), 2_000);
        for wrong in [items(1_001), items(0)] {
            let refused = post(&engine, "/v1/events/bulk", &wrong.to_string()).await;
            assert_eq!(problem(&refused, 400, "invalid_field")["pointer"], "/events");
        }
    }
}

both_ways! {
    async fn one_source_id_is_one_event_within_a_request_and_over_requests(engine) {
        workflow(&engine, "a", "x").await;
        let item = |id: &str, n: u32| json!({"key": "x", "payload": n, "source": "s", "source_id": id});
        let results = bulk(&engine, &json!({"events": [item("1", 1), item("1", 1), item("2", 1), item("1", 2)]})).await;
        let statuses: Vec<_> = results.iter().map(|r| r["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [201, 200, 201, 409]);
        assert_eq!(results[1]["event"]["id"], results[0]["event"]["id"]);
        assert_eq!(results[3]["problem"]["existing"], results[0]["event"]["id"]);
        // Sent alone, with other white space, it is the same one.
        let alone = post(&engine, "/v1/events", "{ \"source_id\": \"2\", \"source\": \"s\", \"payload\": 1, \"key\": \"x\" }").await;
        assert_eq!((alone.status, &alone.json()["id"]), (200, &results[2]["event"]["id"]));
        assert_eq!(pages(&engine, "/v1/runs", 100).await.len(), 2);
    }
}
