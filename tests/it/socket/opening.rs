//! Who gets a socket, and who is refused before or after the upgrade.

use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};

use crate::support::{Builder, Engine, Worker, engine, hello, upgrade, worker};

/// The answer to an upgrade that must be refused: status and problem.
async fn refused(request: Request) -> (u16, Value) {
    match connect_async(request).await {
        Err(Error::Http(answer)) => {
            let kind = answer.headers()["content-type"].to_str().unwrap();
            assert_eq!(kind, "application/problem+json");
            (answer.status().as_u16(), serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap())
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn accepted(request: Request) -> Response {
    connect_async(request).await.unwrap().1
}

fn with(engine: &Engine, name: &'static str, value: &str) -> Request {
    let mut request = upgrade(&engine.url, Some(&engine.token));
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_before_the_upgrade() {
    let engine = engine().await;
    let (status, problem) = refused(upgrade(&engine.url, None)).await;
    assert_eq!((status, &problem["code"]), (401, &json!("unauthenticated")));
    let mut broken = engine.token.clone();
    broken.pop();
    for token in ["", "helve_x", &broken] {
        let (status, problem) = refused(upgrade(&engine.url, Some(token))).await;
        assert_eq!((status, &problem["code"]), (401, &json!("unauthenticated")), "{token}");
    }
    let (status, problem) = refused(upgrade(&engine.url, Some(&engine.token_with("read,write").await))).await;
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
    assert!(problem["detail"].as_str().unwrap().contains("`worker`"));
    // Without an upgrade too, a stranger learns nothing but that it is one.
    let response = engine.with_token(None).request("GET", "/v1/worker/connect", &[], "").await;
    assert_eq!((response.status, response.header("www-authenticate")), (401, "Bearer realm=\"helve\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_subprotocol_is_ours_or_none() {
    let engine = engine().await;
    let answer = accepted(with(&engine, "sec-websocket-protocol", "chat, helve.v1")).await;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "helve.v1");
    let mut request = upgrade(&engine.url, Some(&engine.token));
    request.headers_mut().remove("sec-websocket-protocol");
    assert!(!accepted(request).await.headers().contains_key("sec-websocket-protocol"));
    let (status, problem) = refused(with(&engine, "sec-websocket-protocol", "helve.v2")).await;
    assert_eq!((status, &problem["code"]), (400, &json!("unsupported_protocol")));
    let response = engine.request("GET", "/v1/worker/connect", &[], "").await;
    assert_eq!((response.status, response.header("upgrade")), (426, "websocket"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_gets_no_socket() {
    let engine = Builder::new().http(|http| http.origins = vec!["https://app.example".to_owned()]).start().await;
    for origin in ["https://evil.example", "https://app.example.evil", "null"] {
        let (status, problem) = refused(with(&engine, "origin", origin)).await;
        assert_eq!((status, &problem["code"]), (403, &json!("origin_not_allowed")), "{origin}");
    }
    accepted(with(&engine, "origin", "https://app.example")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_without_hello_is_closed() {
    let engine = engine().await;
    let mut worker = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
    worker.send(json!({"type": "ping"})).await;
    assert_eq!(worker.recv().await["code"], "hello_required");
    assert_eq!(worker.closed().await, 4408);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_socket_too_many_is_closed_and_its_place_is_given_back() {
    let engine = Builder::new().http(|http| http.sockets_per_tenant = 1).start().await;
    let first = worker(&engine, &["work"], 1).await;
    assert_eq!(Worker::open(&engine.url, Some(&engine.token)).await.unwrap().closed().await, 4429);
    let other = engine.second_tenant().await;
    Worker::connect(&engine.url, &other.token, hello("other", &["work"], 1)).await;
    drop(first);
    crate::support::until("the place is free", || async {
        let mut next = Worker::open(&engine.url, Some(&engine.token)).await.ok()?;
        next.send(hello("next", &["work"], 1)).await;
        match next.incoming(crate::support::worker::FRAME).await {
            crate::support::Incoming::Frame(frame) => (frame["type"] == "welcome").then_some(()),
            _ => None,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_hello_names_the_field_and_closes() {
    let engine = engine().await;
    for (changes, code, pointer, close) in [
        (json!({"protocol": 2}), "unsupported_protocol", "/protocol", 4400),
        (json!({"name": 5}), "bad_frame", "/name", 4400),
        (json!({"actions": []}), "invalid_field", "/actions", 4400),
        (json!({"slots": {"default": 100_001}}), "invalid_field", "/slots/default", 4400),
        (json!({"workflows": [{"name": "w", "tasks": []}]}), "invalid_field", "/workflows/0/tasks", 4400),
    ] {
        let mut frame = hello("w", &["a"], 1);
        frame.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut worker = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
        worker.send(frame).await;
        let error = worker.expect("error").await;
        assert_eq!((&error["code"], &error["pointer"]), (&json!(code), &json!(pointer)));
        assert_eq!(worker.closed().await, close, "{changes}");
    }
    let (_, workers) = engine.get("/v1/workers").await;
    assert_eq!(workers["items"], json!([]), "a refused hello leaves no worker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_repeats_a_wrong_hello_waits_for_the_answer_and_nobody_else_does() {
    let engine = engine().await;
    let (wrong, good) = (json!({"type": "hello", "protocol": 2}), hello("good", &["a"], 1));
    let started = tokio::time::Instant::now();
    for _ in 0..7 {
        let mut worker = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
        worker.send(wrong.clone()).await;
        worker.expect("error").await;
        assert_eq!(worker.closed().await, 4400);
    }
    // Three at once, then 100, 200, 400 and 800 ms.
    assert!(started.elapsed() >= std::time::Duration::from_millis(1_500), "{:?}", started.elapsed());
    let mut waiting = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
    waiting.send(wrong).await;
    // A good one of the same token, and of another, is welcomed while that waits.
    for token in [engine.token.clone(), engine.token_with("worker").await] {
        Worker::connect(&engine.url, &token, good.clone()).await;
    }
    waiting.expect_silence(std::time::Duration::from_millis(100)).await;
    assert_eq!(waiting.closed().await, 4400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_registers_workflows_with_the_scope_to_write() {
    let engine = engine().await;
    let mut frame = hello("w", &["resize"], 1);
    frame["workflows"] =
        json!([{"name": "resize", "tasks": [{"name": "resize", "retries": 3}], "events": ["image.*"]}]);
    let mut without = Worker::open(&engine.url, Some(&engine.token_with("worker").await)).await.unwrap();
    without.send(frame.clone()).await;
    assert_eq!(without.expect("error").await["code"], "forbidden");
    assert_eq!(without.closed().await, 4403);
    assert_eq!(engine.get("/v1/workflows/resize").await.0, 404);

    let token = engine.token_with("worker,write").await;
    let mut worker = Worker::connect(&engine.url, &token, frame).await;
    let run = engine.trigger("resize", json!({"url": "a.png"})).await;
    let task = worker.task().await;
    assert_eq!(task["task_run"], run["id"]);
    worker.finish(&task, json!(1)).await;
}

/// What is allowed and hardly meant is told once, when a person looks: not to a session that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_is_told_what_it_hardly_means() {
    let engine = engine().await;
    engine.workflow("known").await;
    let warned = |worker: &Worker| {
        let warnings = worker.welcome["warnings"].as_array().cloned().unwrap_or_default();
        warnings.into_iter().map(|w| (w["code"].clone(), w["pointer"].clone())).collect::<Vec<_>>()
    };
    let mut odd = hello("w1", &["known", "unknown"], 0);
    odd["slot"] = json!({"default": 1});
    let worker = Worker::connect(&engine.url, &engine.token, odd.clone()).await;
    let told = [("unknown_field", "/slot"), ("no_slots", "/slots/default"), ("no_workflow", "/actions")];
    assert_eq!(warned(&worker), told.map(|(code, pointer)| (json!(code), json!(pointer))));
    let text = worker.welcome["warnings"].to_string();
    assert!(
        text.contains("`unknown`") && text.contains("did you mean `slots`?") && !text.contains("`known`"),
        "{text}"
    );
    odd["resume"] = worker.resume(&[]);
    odd.as_object_mut().unwrap().remove("slot");
    odd["slots"]["default"] = json!(1);
    drop(worker);
    let worker = Worker::connect(&engine.url, &engine.token, odd).await;
    assert_eq!((worker.welcome["resumed"].clone(), warned(&worker)), (json!(true), vec![]));
    // What it brings itself is there when it is asked for.
    let mut whole = hello("w2", &["brought"], 1);
    whole["workflows"] = json!([{"name": "brought", "tasks": [{"name": "brought"}]}]);
    let worker = Worker::connect(&engine.url, &engine.token, whole).await;
    assert!(worker.welcome.get("warnings").is_none(), "{}", worker.welcome);
}
