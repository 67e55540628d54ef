//! Pauses: what they look like, what is refused, and that they stay within their tenant.

use serde_json::{Value, json};

use super::{NOBODY, pages, post, problem};
use crate::support::{self, worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_says_what_who_why_and_how_long() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let body = json!({"reason": "migration", "expires_in": "1h"});
    let (status, pause) = engine.post("/v1/workflows/w/pause", body).await;
    assert_eq!(status, 200, "{pause}");
    assert_eq!(
        (&pause["kind"], &pause["name"], &pause["state"], &pause["reason"]),
        (&json!("workflow"), &json!("w"), &json!("paused"), &json!("migration"))
    );
    assert!(pause["by"]["token"].as_str().unwrap().starts_with("tok_"), "{pause}");
    assert_eq!((&pause["by"]["name"], &pause["rate"]), (&json!("test"), &Value::Null));
    assert!(pause["since"].is_string() && pause["expires_at"].is_string());
    // Again: reason and expiry change, the beginning stays.
    let (_, again) = engine.post("/v1/workflows/w/pause", json!({"reason": "longer"})).await;
    assert_eq!((&again["reason"], &again["expires_at"]), (&json!("longer"), &Value::Null));
    assert_eq!(again["since"], pause["since"]);
    assert_eq!(engine.get("/v1/workflows/w").await.1["pause"], again);
    assert_eq!(engine.get("/v1/workflows").await.1["items"][0]["pause"], again);
    assert_eq!(engine.get("/v1/pauses").await.1["items"], json!([again]));
    // With and without a body, and what is not paused.
    for path in ["/v1/workflows/w/resume", "/v1/actions/a/resume"] {
        let answer = post(&engine, path, "").await;
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("open")), "{:?}", answer.json());
    }
    assert_eq!(engine.get("/v1/pauses").await.1["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_names_the_field() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(1025));
    for (path, body, code, pointer) in [
        ("pause", "{}", "missing_field", "/reason"),
        ("pause", r#"{"reason":" "}"#, "invalid_field", "/reason"),
        ("pause", r#"{"reason":"a\u0000b"}"#, "invalid_field", "/reason"),
        ("pause", long.as_str(), "invalid_field", "/reason"),
        ("pause", r#"{"reason":"a","expires_in":"soon"}"#, "invalid_field", "/expires_in"),
        ("pause", r#"{"reason":"a","expires_in":0}"#, "invalid_field", "/expires_in"),
        ("pause", r#"{"reason":"a","until":1}"#, "unknown_field", "/until"),
        ("resume", r#"{"rate":0}"#, "invalid_field", "/rate"),
        ("resume", r#"{"rate":-1}"#, "invalid_field", "/rate"),
        ("resume", r#"{"rate":10001}"#, "invalid_field", "/rate"),
        ("resume", r#"{"rate":"x"}"#, "invalid_field", "/rate"),
        ("resume", r#"{"speed":1}"#, "unknown_field", "/speed"),
    ] {
        let answer = post(&engine, &format!("/v1/workflows/w/{path}"), body).await;
        assert_eq!(problem(&answer, 400, code)["pointer"], pointer, "{body}");
    }
    problem(&post(&engine, "/v1/actions/a%20b/pause", r#"{"reason":"a"}"#).await, 400, "invalid_field");
    problem(&post(&engine, "/v1/workers/nobody/pause", r#"{"reason":"a"}"#).await, 400, "invalid_id");
    let nobody = format!("/v1/workers/wrk_{NOBODY}/pause");
    problem(&post(&engine, &nobody, r#"{"reason":"a"}"#).await, 404, "not_found");
    problem(&post(&engine, "/v1/workflows/v/pause", r#"{"reason":"a"}"#).await, 404, "workflow_not_found");
    assert_eq!(engine.get("/v1/pauses").await.1["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stays_within_its_tenant() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let mut mine = worker(&engine, &["w"], 1).await;
    let stranger = engine.second_tenant().await;
    assert_eq!(stranger.put("/v1/workflows/w", json!({"tasks": [{"name": "w"}]})).await.0, 200);
    for path in ["/v1/workflows/w/pause", "/v1/actions/w/pause"] {
        assert_eq!(stranger.post(path, json!({"reason": "theirs"})).await.0, 200);
    }
    let id = mine.welcome["worker"].as_str().unwrap();
    let foreign = format!("/v1/workers/{id}/pause");
    problem(&post(&stranger, &foreign, r#"{"reason":"theirs"}"#).await, 404, "not_found");
    assert_eq!(engine.get("/v1/pauses").await.1["items"], json!([]));
    assert_eq!(engine.get("/v1/workflows/w").await.1["pause"], Value::Null);
    let run = engine.trigger("w", json!(1)).await;
    assert_eq!(mine.task().await["run"], run["id"]);
    assert_eq!(engine.post("/v1/workflows/w/resume", json!({})).await.0, 200);
    assert_eq!(stranger.get("/v1/pauses").await.1["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_come_in_pages() {
    let engine = support::engine().await;
    for i in 0..5 {
        let path = format!("/v1/actions/a{i}/pause");
        assert_eq!(engine.post(&path, json!({"reason": "all of them"})).await.0, 200);
    }
    engine.workflow("z").await;
    engine.post("/v1/workflows/z/pause", json!({"reason": "too"})).await;
    for limit in [1, 2, 6] {
        let names: Vec<_> = pages(&engine, "/v1/pauses", limit).await.iter().map(|p| p["name"].clone()).collect();
        assert_eq!(names, ["z", "a0", "a1", "a2", "a3", "a4"], "limit {limit}");
    }
}
