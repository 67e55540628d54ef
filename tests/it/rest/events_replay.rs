//! Events once more, for the workflows of now.

use serde_json::{Value, json};

use super::{NOBODY, pages, post, problem};
use crate::both_ways;
use crate::support::{self, Engine};

async fn workflow(engine: &Engine, name: &str, pattern: &str) {
    let definition = json!({"tasks": [{"name": name}], "events": [pattern]});
    assert_eq!(engine.put(&format!("/v1/workflows/{name}"), definition).await.0, 200);
}

async fn push(engine: &Engine, key: &str, n: usize) -> Value {
    let body = json!({"key": key, "payload": {"n": n}, "metadata": {"n": n.to_string()}, "source": "s", "source_id": n.to_string()});
    let (status, event) = engine.post("/v1/events", body).await;
    assert_eq!(status, 201, "{event}");
    event
}

both_ways! {
    async fn a_replay_starts_the_workflows_of_now(engine) {
        workflow(&engine, "old", "x").await;
        let event = push(&engine, "x", 1).await;
        assert_eq!(engine.post(&format!("/v1/runs/{}/cancel", event["runs"][0].as_str().unwrap()), json!({})).await.0, 200);
        assert_eq!(engine.delete("/v1/workflows/old").await.0, 204);
        workflow(&engine, "new", "*").await;
        let path = format!("/v1/events/{}/replay", event["id"].as_str().unwrap());
        let response = engine.request("POST", &path, &[], "").await;
        let replay = response.json();
        assert_eq!(response.status, 201, "{replay}");
        assert_eq!(response.header("location"), format!("/v1/events/{}", replay["id"].as_str().unwrap()));
        assert_ne!(replay["id"], event["id"]);
        for same in ["key", "payload", "metadata"] {
            assert_eq!(replay[same], event[same], "{same}");
        }
        assert_eq!((&replay["replay_of"], &replay["source"], &event["replay_of"]), (&event["id"], &Value::Null, &Value::Null));
        let mut worker = support::worker(&engine, &["new"], 1).await;
        let task = worker.task().await;
        assert_eq!((&task["run"], &task["input"], &task["workflow"]), (&replay["runs"][0], &json!({"n": 1}), &json!("new")));
        worker.finish(&task, json!(1)).await;
        assert_eq!(engine.run_is(&replay["runs"][0], "succeeded").await["event"], replay["id"]);
        assert_eq!(engine.get(&format!("/v1/events/{}", replay["id"].as_str().unwrap())).await.1, replay);
        worker.goodbye().await;

        // Without a key each call is another replay; with one it is the same, and only of this event.
        let keyed = [("idempotency-key", "k")];
        let first = engine.request("POST", &path, &keyed, "").await;
        let second = engine.request("POST", &path, &keyed, "").await;
        assert_eq!((first.status, second.status), (201, 200));
        assert_eq!((&second.json()["id"], &second.json()["deduplicated"]), (&first.json()["id"], &json!(true)));
        let of_replay = format!("/v1/events/{}/replay", replay["id"].as_str().unwrap());
        let other = engine.request("POST", &of_replay, &keyed, "").await;
        assert_eq!((other.status, &other.json()["replay_of"]), (201, &replay["id"]));
        assert_eq!(pages(&engine, "/v1/events", 100).await.len(), 4);
        // Its source's id is still that of the first.
        let body = json!({"key": "x", "payload": {"n": 1}, "metadata": {"n": "1"}, "source": "s", "source_id": "1"});
        assert_eq!(engine.post("/v1/events", body).await.1["id"], event["id"]);
        problem(&engine.request("POST", &format!("/v1/events/evt_{NOBODY}/replay"), &[], "").await, 404, "not_found");
        problem(&engine.request("POST", "/v1/events/evt_1/replay", &[], "").await, 400, "invalid_id");
    }
}

both_ways! {
    async fn a_filter_replays_the_oldest_first_and_each_once_under_a_key(engine) {
        let mut events = Vec::new();
        for i in 0..7 {
            events.push(push(&engine, if i % 2 == 0 { "a.x" } else { "b_y" }, i).await);
        }
        workflow(&engine, "w", "a.*").await;
        workflow(&engine, "v", "*").await;
        let preview = json!({"filter": {"key": "a*"}, "preview": true});
        let (status, seen) = engine.post("/v1/events/replay", preview).await;
        assert_eq!((status, &seen["preview"]), (200, &json!({"events": 4, "more": false, "runs": 8})), "{seen}");
        assert_eq!((&seen["results"], pages(&engine, "/v1/runs", 100).await.len()), (&json!([]), 0));

        let keyed = [("idempotency-key", "once")];
        let mut body = json!({"filter": {"key": "a*", "source": "s"}, "limit": 3});
        let mut done: Vec<Value> = Vec::new();
        loop {
            let (status, page) = engine.post_with("/v1/events/replay", &keyed, body.clone()).await;
            assert_eq!(status, 200, "{page}");
            done.extend(page["results"].as_array().unwrap().iter().cloned());
            if page["next_cursor"].is_null() {
                break;
            }
            body["cursor"] = page["next_cursor"].clone();
        }
        let of: Vec<_> = done.iter().map(|r| r["event"].clone()).collect();
        assert_eq!(of, [0, 2, 4, 6].map(|i| events[i]["id"].clone()));
        assert!(done.iter().all(|r| r["status"] == 201 && r["runs"].as_array().unwrap().len() == 2), "{done:?}");
        assert_eq!(pages(&engine, "/v1/runs", 100).await.len(), 8);
        // Once more under the key: the same ones. And a replay is not replayed by a filter.
        let all = json!({"filter": {"key": "a.x"}});
        let (_, again) = engine.post_with("/v1/events/replay", &keyed, all.clone()).await;
        let again = again["results"].as_array().unwrap().clone();
        assert_eq!(again.len(), 4);
        for (first, again) in done.iter().zip(&again) {
            assert_eq!((&again["status"], &again["replay"], &again["runs"]), (&json!(200), &first["replay"], &first["runs"]));
        }
        let (_, without) = engine.post("/v1/events/replay", all).await;
        assert!(without["results"].as_array().unwrap().iter().all(|r| r["status"] == 201), "{without}");
        assert_eq!(pages(&engine, "/v1/runs", 100).await.len(), 16);
        // Another tenant replays nothing of it.
        let stranger = engine.second_tenant().await;
        let (_, nothing) = stranger.post("/v1/events/replay", json!({"filter": {"key": "*"}})).await;
        assert_eq!((&nothing["results"], &nothing["next_cursor"]), (&json!([]), &Value::Null));
        let used = done[0]["event"].as_str().unwrap();
        problem(&stranger.request("POST", &format!("/v1/events/{used}/replay"), &keyed, "").await, 404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_by_filter_is_checked() {
    let engine = support::engine().await;
    for (body, code, pointer) in [
        (r"{}", "missing_field", "/filter"),
        (r#"{"filter":{}}"#, "missing_field", "/filter"),
        (r#"{"filter":{"key":"a b"}}"#, "invalid_field", "/filter/key"),
        (r#"{"filter":{"typo":1}}"#, "unknown_field", "/filter/typo"),
        (r#"{"filter":{"created_after":"x"}}"#, "invalid_field", "/filter/created_after"),
        (r#"{"filter":{"source":""}}"#, "invalid_field", "/filter/source"),
        (r#"{"filter":{"metadata":{"a":1}}}"#, "invalid_field", "/filter/metadata/a"),
        (r#"{"filter":{"key":"a"},"limit":0}"#, "invalid_field", "/limit"),
        (r#"{"filter":{"key":"a"},"limit":1001}"#, "invalid_field", "/limit"),
        (r#"{"filter":{"key":"a"},"cursor":"00"}"#, "invalid_cursor", "/cursor"),
        (r#"{"filter":{"key":"a"},"preview":1}"#, "invalid_field", "/preview"),
    ] {
        let refused = post(&engine, "/v1/events/replay", body).await;
        assert_eq!(problem(&refused, 400, code)["pointer"], pointer, "{body}");
    }
    let key = [("idempotency-key", "a b")];
    let refused = engine.request("POST", "/v1/events/replay", &key, r#"{"filter":{"key":"a"}}"#).await;
    problem(&refused, 400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_listed_by_a_pattern_of_their_key() {
    let engine = support::engine().await;
    for (i, key) in ["a.x", "a.y", "b.x", "a_x", "abx"].iter().enumerate() {
        push(&engine, key, i).await;
    }
    let keys = async |pattern: &str| -> Vec<String> {
        let found = pages(&engine, &format!("/v1/events?key={pattern}"), 2).await;
        found.iter().map(|event| event["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys("a.*").await, ["a.y", "a.x"]);
    assert_eq!(keys("*x").await, ["abx", "a_x", "b.x", "a.x"]);
    assert_eq!(keys("a_*").await, ["a_x"]);
    assert_eq!(keys("*").await.len(), 5);
    assert_eq!(keys("a.x").await, ["a.x"]);
    problem(&engine.request("GET", "/v1/events?key=a%25", &[], "").await, 400, "invalid_field");
}
