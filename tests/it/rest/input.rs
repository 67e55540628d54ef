//! Bad input: each kind has its error, which names the field, and changes nothing.

use serde_json::{Value, json};

use super::{post, problem};
use crate::support::{self, Builder, Engine};

/// Nothing was created by all these requests.
async fn nothing_changed(engine: &Engine) {
    assert_eq!(engine.get("/v1/runs").await.1["items"], json!([]));
    assert_eq!(engine.get("/v1/events").await.1["items"], json!([]));
    let workflows = engine.get("/v1/workflows").await.1;
    assert_eq!(workflows["items"].as_array().unwrap().len(), 1, "{workflows}");
    assert_eq!(workflows["items"][0]["version"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_triggers_name_the_field() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let long = "x".repeat(256);
    let keys: serde_json::Map<_, _> = (0..65).map(|i| (format!("k{i}"), json!("v"))).collect();
    let cases: Vec<(String, u16, &str, Option<&str>)> = vec![
        (r#"{"workflow":"unknown"}"#.into(), 404, "workflow_not_found", None),
        (r#"{"workflow":"w","typo":1}"#.into(), 400, "unknown_field", Some("/typo")),
        (r#"{"workflow":"w","tenant":"ten_1"}"#.into(), 400, "unknown_field", Some("/tenant")),
        (r#"{"workflow":"w","idempotency_key":"k"}"#.into(), 400, "unknown_field", Some("/idempotency_key")),
        (r#"{}"#.into(), 400, "missing_field", Some("/workflow")),
        (r#"{"workflow":1}"#.into(), 400, "invalid_field", Some("/workflow")),
        (r#"{"workflow":"w","workflow":"w"}"#.into(), 400, "invalid_field", Some("/workflow")),
        (r#"{"workflow":""}"#.into(), 400, "invalid_field", Some("/workflow")),
        (r#"{"workflow":"a b"}"#.into(), 400, "invalid_field", Some("/workflow")),
        (format!(r#"{{"workflow":"{long}"}}"#), 400, "invalid_field", Some("/workflow")),
        (r#"{"workflow":"w\u0000"}"#.into(), 400, "invalid_field", Some("/workflow")),
        (r#"{"workflow":"\ud800"}"#.into(), 400, "malformed", Some("/workflow")),
        (r#"{"workflow":"w","priority":0}"#.into(), 400, "invalid_field", Some("/priority")),
        (r#"{"workflow":"w","priority":5}"#.into(), 400, "invalid_field", Some("/priority")),
        (r#"{"workflow":"w","priority":"2"}"#.into(), 400, "invalid_field", Some("/priority")),
        (r#"{"workflow":"w","priority":1.5}"#.into(), 400, "invalid_field", Some("/priority")),
        (r#"{"workflow":"w","priority":1e999}"#.into(), 400, "malformed", Some("/priority")),
        (r#"{"workflow":"w","priority":99999999999999999999}"#.into(), 400, "invalid_field", Some("/priority")),
        (r#"{"workflow":"w","delay":"soon"}"#.into(), 400, "invalid_field", Some("/delay")),
        (r#"{"workflow":"w","delay":-1}"#.into(), 400, "invalid_field", Some("/delay")),
        (r#"{"workflow":"w","delay":"1s1s"}"#.into(), 400, "invalid_field", Some("/delay")),
        (r#"{"workflow":"w","delay":"367d"}"#.into(), 400, "invalid_field", Some("/delay")),
        (r#"{"workflow":"w","run_at":"tomorrow"}"#.into(), 400, "invalid_field", Some("/run_at")),
        (r#"{"workflow":"w","run_at":"9999-01-01T00:00:00Z"}"#.into(), 400, "invalid_field", Some("/run_at")),
        (
            r#"{"workflow":"w","delay":"1s","run_at":"2030-01-01T00:00:00Z"}"#.into(),
            400,
            "invalid_field",
            Some("/run_at"),
        ),
        (r#"{"workflow":"w","metadata":[]}"#.into(), 400, "invalid_field", Some("/metadata")),
        (r#"{"workflow":"w","metadata":{"a":1}}"#.into(), 400, "invalid_field", Some("/metadata/a")),
        (r#"{"workflow":"w","metadata":{"a":"1","a":"2"}}"#.into(), 400, "invalid_field", Some("/metadata")),
        (r#"{"workflow":"w","metadata":{"":"1"}}"#.into(), 400, "invalid_field", Some("/metadata")),
        (r#"{"workflow":"w","metadata":{"a":"\u0000"}}"#.into(), 400, "invalid_field", Some("/metadata/a")),
        (r#"{"workflow":"w","metadata":{"a":"\udc00"}}"#.into(), 400, "malformed", Some("/metadata/a")),
        (json!({"workflow": "w", "metadata": keys}).to_string(), 400, "invalid_field", Some("/metadata")),
        (
            json!({"workflow": "w", "metadata": {"a": "x".repeat(16 << 10)}}).to_string(),
            400,
            "invalid_field",
            Some("/metadata"),
        ),
        (nested("w", 129), 400, "too_deep", Some("/input")),
        (json!({"workflow": "w", "input": "x".repeat(1 << 20)}).to_string(), 413, "too_large", None),
        ("".into(), 400, "malformed", None),
        ("{".into(), 400, "malformed", None),
        (r#"{"workflow":"w"} x"#.into(), 400, "malformed", None),
        (r#"{"workflow":"w","input":{"a":}}"#.into(), 400, "malformed", Some("/input")),
        (r#"["w"]"#.into(), 400, "invalid_field", Some("")),
        ("null".into(), 400, "invalid_field", Some("")),
    ];
    for (body, status, code, pointer) in cases {
        let response = engine.request("POST", "/v1/runs", &[("content-type", "application/json")], body.clone()).await;
        let problem = problem(&response, status, code);
        let shown: String = body.chars().take(80).collect();
        assert_eq!(problem["pointer"].as_str(), pointer, "{shown}: {problem}");
        assert!(response.body.len() < 2_000, "{shown}: the answer repeats the request");
    }
    nothing_changed(&engine).await;
}

fn nested(workflow: &str, depth: usize) -> String {
    format!(r#"{{"workflow":"{workflow}","input":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_odd_inside_a_payload_passes_unchanged() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let depth = format!("{}{}", "[".repeat(128), "]".repeat(128));
    for input in [
        r#"{"nul":"\u0000","lone":"\ud800","big":123456789012345678901234567890.5e400,"twice":1,"twice":2}"#,
        r#"[1.0, 1e2 ,  -0]"#,
        "\"\u{1f980} ü\"",
        &depth,
        "false",
        "0",
    ] {
        let body = format!(r#"{{"workflow":"w","input":{input}}}"#);
        let created = post(&engine, "/v1/runs", &body).await;
        assert_eq!(created.status, 201);
        let expected = format!(r#""input":{input},"output""#);
        let text = String::from_utf8(created.body.to_vec()).unwrap();
        assert!(text.contains(&expected), "{text}");
        let id = text.split('"').nth(3).unwrap().to_owned();
        let read = engine.request("GET", &format!("/v1/runs/{id}"), &[], "").await;
        let text = String::from_utf8(read.body.to_vec()).unwrap();
        assert!(text.contains(&expected), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_checked_before_they_are_read_whole() {
    let engine = Builder::new().limits(|l| l.body_bytes = 10_000).start().await;
    engine.workflow("w").await;
    let of_size = |size: usize| {
        let around = json!({"workflow": "w", "input": ""}).to_string().len();
        json!({"workflow": "w", "input": "x".repeat(size - around)}).to_string()
    };
    assert_eq!(post(&engine, "/v1/runs", &of_size(10_000)).await.status, 201);
    let over = problem(&post(&engine, "/v1/runs", &of_size(10_001)).await, 413, "too_large");
    assert_eq!((&over["size"], &over["limit"]), (&json!(10_001), &json!(10_000)));

    let typed =
        async |kind: &str| engine.request("POST", "/v1/runs", &[("content-type", kind)], r#"{"workflow":"w"}"#).await;
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        assert_eq!(typed(kind).await.status, 201, "{kind}");
    }
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        problem(&typed(kind).await, 415, "unsupported_media_type");
    }
    let mut broken = br#"{"workflow":"w","input":"?"}"#.to_vec();
    broken[25] = 0xff;
    let response = engine.request("POST", "/v1/runs", &[], broken).await;
    let text = problem(&response, 400, "malformed")["detail"].to_string();
    assert!(text.contains("UTF-8"), "{text}");
    assert_eq!(engine.get("/v1/runs").await.1["items"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_headers_and_parameters_are_named() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let long = "k".repeat(256);
    let body = r#"{"workflow":"w"}"#;
    for (name, value) in [
        ("idempotency-key", ""),
        ("idempotency-key", "a b"),
        ("idempotency-key", &long),
        ("prefer", "wait=soon"),
        ("prefer", "wait=61"),
    ] {
        let response = engine.request("POST", "/v1/runs", &[(name, value)], body).await;
        problem(&response, 400, "invalid_field");
    }
    for query in ["wait=61s", "wait=soon", "wait=1s&wait=2s"] {
        problem(&post(&engine, &format!("/v1/runs?{query}"), body).await, 400, "invalid_field");
    }
    problem(&post(&engine, "/v1/runs?wiat=1s", body).await, 400, "unknown_field");
    let event = r#"{"key":"k"}"#;
    problem(&post(&engine, "/v1/events?x=1", event).await, 400, "unknown_field");
    nothing_changed(&engine).await;

    for (path, code) in [
        ("/v1/runs?limit=0", "invalid_field"),
        ("/v1/runs?limit=1001", "invalid_field"),
        ("/v1/runs?limit=ten", "invalid_field"),
        ("/v1/runs?status=done", "invalid_field"),
        ("/v1/runs?status=", "invalid_field"),
        ("/v1/runs?created_after=yesterday", "invalid_field"),
        ("/v1/runs?metadata=user", "invalid_field"),
        ("/v1/runs?metadata=a%3D%00", "invalid_field"),
        ("/v1/runs?event=run_0190a000000070008000000000000000", "invalid_field"),
        ("/v1/runs?workflow=a%20b", "invalid_field"),
        ("/v1/runs?offset=5", "unknown_field"),
        ("/v1/runs?cursor=", "invalid_cursor"),
        ("/v1/runs?cursor=00", "invalid_cursor"),
        ("/v1/events?cursor=zz", "invalid_cursor"),
        ("/v1/workers?cursor=0123456789", "invalid_cursor"),
        ("/v1/workflows?cursor=0123456789", "invalid_cursor"),
        ("/v1/workflows/w/versions?cursor=0123456789", "invalid_cursor"),
        ("/v1/runs/42", "invalid_id"),
        ("/v1/runs/evt_0190a000000070008000000000000000", "invalid_id"),
        ("/v1/runs/RUN_0190A000000070008000000000000000", "invalid_id"),
        ("/v1/events/run_0190a000000070008000000000000000", "invalid_id"),
        ("/v1/runs/%FF", "malformed"),
    ] {
        problem(&engine.request("GET", path, &[], "").await, 400, code);
    }
    problem(&engine.request("POST", "/v1/runs/42/cancel", &[], "").await, 400, "invalid_id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_definitions_and_events_name_the_field() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let patterns: Vec<Value> = (0..101).map(|i| json!(format!("e{i}"))).collect();
    for (body, code, pointer) in [
        (json!({}), "missing_field", "/tasks"),
        (json!({"tasks": []}), "invalid_field", "/tasks"),
        (json!({"tasks": [{"name": "a"}, {"name": "b"}]}), "invalid_field", "/tasks"),
        (json!({"tasks": [{"name": "a b"}]}), "invalid_field", "/tasks/0/name"),
        (json!({"tasks": [{"name": "a", "retrys": 1}]}), "unknown_field", "/tasks/0/retrys"),
        (json!({"tasks": [{"name": "a", "retries": 10_001}]}), "invalid_field", "/tasks/0/retries"),
        (
            json!({"tasks": [{"name": "a", "retries": {"count": 1, "factor": 0.5}}]}),
            "invalid_field",
            "/tasks/0/retries/factor",
        ),
        (json!({"tasks": [{"name": "a", "execution_timeout": "soon"}]}), "invalid_field", "/tasks/0/execution_timeout"),
        (json!({"tasks": [{"name": "a", "priority": 9}]}), "invalid_field", "/tasks/0/priority"),
        (json!({"tasks": [{"name": "a", "slots": {"x": 0}}]}), "invalid_field", "/tasks/0/slots"),
        (json!({"tasks": [{"name": "a"}], "events": ["a b"]}), "invalid_field", "/events/0"),
        (json!({"tasks": [{"name": "a"}], "events": patterns}), "invalid_field", "/events"),
        (json!({"tasks": [{"name": "a"}], "name": "w"}), "unknown_field", "/name"),
        (json!({"tasks": [{"name": "a"}], "description": "a\u{0}"}), "invalid_field", "/description"),
    ] {
        let response = engine.request("PUT", "/v1/workflows/w", &[], body.to_string()).await;
        assert_eq!(problem(&response, 400, code)["pointer"], pointer, "{body}");
    }
    let definition = json!({"tasks": [{"name": "a"}]}).to_string();
    for name in ["a%20b", "%00", &"x".repeat(256)] {
        let response = engine.request("PUT", &format!("/v1/workflows/{name}"), &[], definition.clone()).await;
        problem(&response, 400, "invalid_field");
    }
    for (body, code, pointer) in [
        (json!({}), "missing_field", "/key"),
        (json!({"key": "a b"}), "invalid_field", "/key"),
        (json!({"key": "k", "source": "s"}), "missing_field", "/source_id"),
        (json!({"key": "k", "source_id": "1"}), "missing_field", "/source"),
        (json!({"key": "k", "source": "s", "source_id": ""}), "invalid_field", "/source_id"),
        (json!({"key": "k", "source": "s\n", "source_id": "1"}), "invalid_field", "/source"),
        (json!({"key": "k", "data": 1}), "unknown_field", "/data"),
        (json!({"key": "k", "metadata": {"a": 1}}), "invalid_field", "/metadata/a"),
    ] {
        let response = engine.request("POST", "/v1/events", &[], body.to_string()).await;
        assert_eq!(problem(&response, 400, code)["pointer"], pointer, "{body}");
    }
    let large = json!({"key": "k", "payload": "x".repeat(1 << 20)}).to_string();
    problem(&post(&engine, "/v1/events", &large).await, 413, "too_large");
    nothing_changed(&engine).await;
}
