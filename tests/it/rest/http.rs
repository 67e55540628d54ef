//! What holds for every answer.

use serde_json::json;

use super::problem;
use crate::support::{self, Builder};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_routes_and_methods_are_problems() {
    let engine = support::engine().await;
    for path in ["/v1", "/v1/nothing", "/v1/runs/", "/v2/runs", "/metrics/x"] {
        problem(&engine.request("GET", path, &[], "").await, 404, "not_found");
    }
    for (method, path, allowed) in [
        ("DELETE", "/v1/runs", ["GET", "POST"]),
        ("POST", "/v1/workflows/a", ["GET", "PUT"]),
        ("PATCH", "/v1/events", ["GET", "POST"]),
    ] {
        let response = engine.request(method, path, &[], "").await;
        let told = problem(&response, 405, "method_not_allowed");
        assert!(allowed.iter().all(|m| told["detail"].as_str().unwrap().contains(m)), "{told}");
        let allow = response.header("allow");
        assert!(allowed.iter().all(|m| allow.contains(m)), "{method} {path}: Allow: {allow}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_says_what_this_is() {
    let engine = support::engine().await;
    let root = engine.client().with_token(None).request("GET", "/", &[], "").await;
    assert_eq!((root.status, root.header("content-type")), (200, "text/plain; charset=utf-8"));
    let text = String::from_utf8(root.body.to_vec()).unwrap();
    assert!(
        text.lines().count() == 1 && text.contains(env!("CARGO_PKG_VERSION")) && text.contains("/openapi.json"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_listed_origins_may_ask_and_no_others() {
    let page = "https://app.example";
    let listed = Builder::new().http(|http| http.origins = vec![page.to_owned()]).start().await;
    let anyone = listed.client().with_token(None);
    let asks = [
        ("origin", page),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,idempotency-key"),
    ];
    let preflight = anyone.request("OPTIONS", "/v1/runs", &asks, "").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, page));
    assert!(preflight.header("access-control-allow-methods").contains("POST"));
    assert!(preflight.header("access-control-allow-headers").contains("idempotency-key"));
    let answer = listed.request("GET", "/v1/runs", &[("origin", page)], "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, page));
    assert!(answer.header("access-control-expose-headers").contains("x-request-id"));
    let refused = anyone.request("GET", "/v1/runs", &[("origin", page)], "").await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, page), "a page may read why");
    let other = listed.request("GET", "/v1/runs", &[("origin", "https://other.example")], "").await;
    assert_eq!(other.header("access-control-allow-origin"), "");

    let unlisted = support::engine().await;
    let silent = unlisted.request("GET", "/v1/runs", &[("origin", page)], "").await;
    assert_eq!((silent.status, silent.header("access-control-allow-origin"), silent.header("vary")), (200, "", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_a_request_id_and_forbids_caching() {
    let engine = support::engine().await;
    for path in ["/healthz", "/v1/runs", "/v1/runs/run_x", "/nothing"] {
        let response = engine.request("GET", path, &[("x-request-id", "my-request.1")], "").await;
        assert_eq!(response.header("x-request-id"), "my-request.1", "{path}");
        assert_eq!(response.header("cache-control"), "no-store", "{path}");
        assert_eq!(response.header("x-content-type-options"), "nosniff", "{path}");
        let made = engine.request("GET", path, &[], "").await;
        assert!(made.header("x-request-id").starts_with("req_"), "{path}");
        let dirty = engine.request("GET", path, &[("x-request-id", "a b\"c")], "").await;
        assert!(dirty.header("x-request-id").starts_with("req_"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_the_document_need_no_token() {
    let engine = support::engine().await;
    let anyone = engine.client().with_token(None);
    assert_eq!(anyone.get("/healthz").await, (200, json!({"status": "ok"})));
    assert_eq!(anyone.get("/readyz").await, (200, json!({"status": "ok"})));
    let document = anyone.request("GET", "/openapi.json", &[], "").await;
    assert_eq!(document.body, *helve::api::openapi_text());
    assert_eq!(document.json()["openapi"], "3.1.0");
}

/// Compressed bytes would become the payload: they are refused before they are read, whatever the route.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encoded_body_is_refused_on_every_route() {
    let engine = support::engine().await;
    let document: serde_json::Value = serde_json::from_slice(helve::api::openapi_text()).unwrap();
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["post", "put", "delete", "get"].iter().filter(|method| item[**method].is_object()) {
            let method = method.to_uppercase();
            for coding in ["gzip", "identity, br"] {
                let refused = engine.request(&method, path, &[("content-encoding", coding)], "{}").await;
                let problem = problem(&refused, 415, "unsupported_media_type");
                assert!(problem["detail"].as_str().unwrap().contains("Content-Encoding"), "{method} {path}: {problem}");
                assert_eq!(refused.header("accept-encoding"), "identity");
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried}");
    engine.workflow("w").await;
    let plain = [("content-encoding", "Identity")];
    assert_eq!(engine.request("POST", "/v1/runs", &plain, r#"{"workflow":"w"}"#).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charset_that_is_not_utf_8_is_refused() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    for (kind, status) in [
        ("application/json; charset=utf-8", 201),
        ("Application/JSON;charset=\"UTF-8\"", 201),
        ("application/json; charset=iso-8859-1", 415),
    ] {
        let answer = engine.request("POST", "/v1/runs", &[("content-type", kind)], r#"{"workflow":"w"}"#).await;
        assert_eq!(answer.status, status, "{kind}");
    }
}
