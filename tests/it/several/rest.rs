//! REST through an engine that does not own the tenant's shard.

use std::time::Duration;

use helve::api::openapi_text;
use helve::cluster::Place;
use helve_domain::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Pair, place};
use crate::support::{Engine, Http, worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_works_through_any_engine() {
    let Pair { owner, other } = Pair::new().await;
    let task = json!({"tasks": [{"name": "a"}], "events": ["a.*"]});
    assert_eq!(other.put("/v1/workflows/a", task).await.0, 200);
    for path in ["/v1/workflows", "/v1/workflows/a", "/v1/workflows/a/versions"] {
        let (status, body) = other.get(path).await;
        assert_eq!((status, &body), (200, &owner.get(path).await.1), "{path}");
    }
    let again = json!({"workflow": "a", "input": {"n": 1}});
    let created = other.request("POST", "/v1/runs", &[("idempotency-key", "k")], again.to_string()).await;
    assert_eq!(created.status, 201);
    let run = created.json();
    assert_eq!(created.header("location"), format!("/v1/runs/{}", run["id"].as_str().unwrap()));
    let (status, same) = owner.post_with("/v1/runs", &[("idempotency-key", "k")], again.clone()).await;
    assert_eq!((status, &same["id"]), (200, &run["id"]), "{same}");
    let (status, bulk) = other.post("/v1/runs/bulk", json!({"runs": [again]})).await;
    assert_eq!(status, 200, "{bulk}");
    let (status, event) = other.post("/v1/events", json!({"key": "a.b"})).await;
    assert_eq!((status, event["runs"].as_array().unwrap().len()), (201, 1), "{event}");

    let mut worker = worker(&owner, &["a"], 10).await;
    let (status, workers) = other.get("/v1/workers").await;
    assert_eq!((status, workers["items"].as_array().unwrap().len()), (200, 1), "{workers}");
    let mut tasks = Vec::new();
    while tasks.len() < 3 {
        tasks.extend(worker.find_tasks().await);
    }
    worker.succeed(&tasks).await;
    other.run_is(&run["id"], "succeeded").await;
    let waiting = json!({"workflow": "a", "input": "w"});
    let (answer, ()) = tokio::join!(other.post("/v1/runs?wait=20s", waiting), async {
        let tasks = worker.find_tasks().await;
        worker.succeed(&tasks).await;
    });
    assert_eq!((answer.0, &answer.1["output"]), (200, &json!("w")), "{}", answer.1);
    let open = other.trigger("a", json!(null)).await;
    let (status, _) = other.post(&format!("/v1/runs/{}/cancel", open["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(status, 200);
    owner.run_is(&open["id"], "cancelled").await;
    for path in ["/v1/runs", "/v1/events"] {
        assert_eq!(other.get(path).await.1, owner.get(path).await.1, "{path}");
    }
    worker.goodbye().await;
    assert_eq!(other.delete("/v1/workflows/a").await.0, 204);
    assert_eq!(owner.get("/v1/workflows/a").await.0, 404);
    stop(owner, other).await;
}

/// Whatever the interface has, another engine answers as the owner does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_answered_as_by_the_owner() {
    let Pair { owner, other } = Pair::new().await;
    let document: Value = serde_json::from_slice(openapi_text()).unwrap();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods =
            item.as_object().unwrap().keys().filter(|m| ["get", "put", "post", "delete"].contains(&m.as_str()));
        for method in methods.filter(|_| path.starts_with("/v1/")) {
            let path: String =
                path.split('/').map(|s| if s.starts_with('{') { "none" } else { s }).collect::<Vec<_>>().join("/");
            let method = method.to_ascii_uppercase();
            let body = if method == "GET" || method == "DELETE" { "" } else { r#"{"nothing": 1}"# };
            let theirs = owner.request(&method, &path, &[], body).await;
            let ours = other.request(&method, &path, &[], body).await;
            assert_eq!((ours.status, ours.json()), (theirs.status, theirs.json()), "{method} {path}");
            assert_eq!(other.with_token(None).request(&method, &path, &[], body).await.status, 401, "{method} {path}");
            asked += 1;
        }
    }
    assert!(asked >= 14, "the document has operations: {asked}");
    stop(owner, other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenant_sees_nothing_through_any_engine() {
    let Pair { owner, other } = Pair::new().await;
    owner.workflow("a").await;
    let run = owner.trigger("a", json!(1)).await;
    let path = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    let stranger = other.with_token(Some(&owner.second_tenant().await.token));
    assert_eq!(stranger.get(&path).await.0, 404);
    assert_eq!(stranger.post(&format!("{path}/cancel"), json!({})).await.0, 404);
    assert_eq!(stranger.get("/v1/workflows/a").await.0, 404);
    assert_eq!(stranger.post("/v1/runs", json!({"workflow": "a"})).await.0, 404);
    let reader = other.with_token(Some(&owner.token_with("read").await));
    assert_eq!(reader.post("/v1/runs", json!({"workflow": "a"})).await.0, 403);
    stop(owner, other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_large_bodies_are_the_same_through_any_engine() {
    let Pair { owner, other } = Pair::new().await;
    owner.workflow("a").await;
    let large = json!({"workflow": "a", "input": "x".repeat(1_000_000)});
    let (status, run) = other.post("/v1/runs", large.clone()).await;
    assert_eq!((status, run["input"] == large["input"]), (201, true));
    let bulk = json!({"runs": vec![json!({"workflow": "a", "input": "x".repeat(40_000)}); 100]});
    assert_eq!(other.post("/v1/runs/bulk", bulk).await.0, 200);
    // Refused by what it announces: the body itself need not come.
    let mut stream = TcpStream::connect(&other.client().authority).await.unwrap();
    let (token, length) = (&other.token, 5 << 20);
    let head =
        format!("POST /v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n");
    stream
        .write_all(format!("{head}content-type: application/json\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"limit\":4194304"), "{answer}");
    let (status, problem) = other.post("/v1/runs", json!({"workflow": 1})).await;
    assert_eq!((status, &problem["pointer"]), (400, &json!("/workflow")), "{problem}");
    stop(owner, other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_passed_on_goes_no_further() {
    let Pair { owner, other } = Pair::new().await;
    owner.workflow("a").await;
    let body = json!({"workflow": "a"});
    let ask = async |engine: &Engine, headers: &[(&str, &str)]| {
        engine.request("POST", "/v1/runs", headers, body.to_string()).await
    };
    // The owner is named wrongly by a peer: it says so, and the request stays where it is.
    let secret = other.scheduler().secret().reveal().to_owned();
    let response = ask(&other, &[("helve-peer", &secret), ("helve-hops", "1")]).await;
    assert_eq!((response.status, response.header("helve-not-owner")), (503, "1"));
    assert_eq!((response.json()["code"].as_str(), response.header("retry-after")), (Some("unavailable"), "1"));
    // Nobody but a peer can keep it there, and nobody learns of these headers.
    for wrong in [&secret[1..], "", owner.scheduler().secret().reveal()] {
        let response = ask(&other, &[("helve-peer", wrong), ("helve-hops", "1")]).await;
        assert_eq!((response.status, response.header("helve-not-owner")), (201, ""), "{wrong}");
    }
    assert_eq!(ask(&other, &[("helve-hops", "3")]).await.status, 503);
    assert_eq!(ask(&owner, &[("helve-hops", "3")]).await.status, 201);
    // A secret replaces no token.
    let stranger = other.with_token(None);
    assert_eq!(stranger.request("POST", "/v1/runs", &[("helve-peer", &secret)], "{}").await.status, 401);
    stop(owner, other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_owner_reads_go_on_and_the_rest_is_refused_in_time() {
    let Pair { owner, other } = Pair::told(|_| ()).await;
    owner.workflow("a").await;
    let run = owner.trigger("a", json!(1)).await;
    other.scheduler().directory().move_to(&Place::Nowhere);
    assert_eq!(other.run(&run["id"]).await["status"], "queued");
    assert_eq!(other.get("/v1/runs").await.0, 200);
    let clock = Clock::system();
    let started = clock.instant();
    let response = other.request("POST", "/v1/runs", &[], json!({"workflow": "a"}).to_string()).await;
    assert_eq!((response.status, response.header("retry-after")), (503, "1"));
    assert_eq!(response.json()["code"], "unavailable");
    assert!(
        clock.instant().duration_since(started) < Duration::from_secs(5),
        "{:?}",
        clock.instant().duration_since(started)
    );
    // The owner comes while a request waits for it.
    let body = json!({"workflow": "a"});
    let (answer, ()) = tokio::join!(other.post("/v1/runs", body), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.scheduler().directory().move_to(&place(&owner));
    });
    assert_eq!(answer.0, 201);
    stop(owner, other).await;
}

/// The start of a task by way of another engine costs little more: measured by release builds, bounded here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_through_another_engine_is_almost_as_fast() {
    const ROUNDS: usize = 40;
    let (Pair { owner, other }, clock) = (Pair::new().await, Clock::system());
    owner.workflow("a").await;
    let mut worker = worker(&owner, &["a"], 1).await;
    let mut median = async |http: &Http| {
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            let started = clock.instant();
            let (answer, task) = tokio::join!(http.post("/v1/runs", json!({"workflow": "a"})), async {
                let task = worker.task().await;
                took.push(clock.instant().duration_since(started));
                task
            });
            assert_eq!(answer.0, 201);
            worker.finish(&task, json!(null)).await;
        }
        took.sort_unstable();
        took[ROUNDS / 2]
    };
    median(&other.client()).await;
    let (near, far) = (median(&owner.client()).await, median(&other.client()).await);
    println!("start latency p50: owner {near:?}, another engine {far:?}");
    assert!(far < near * 4 + Duration::from_millis(10), "owner {near:?}, another engine {far:?}");
    stop(owner, other).await;
}

async fn stop(owner: Engine, other: Engine) {
    other.stop().await;
    owner.stop().await;
}
