//! Tickets at engines that do not own the tenant's shard.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use super::Pair;
use crate::support::{Builder, Engine, Worker, hello, upgrade};

const PAGE: &str = "https://app.example";

async fn pair() -> Pair {
    Pair::with(Builder::new().http(|http| http.origins = vec![PAGE.to_owned()])).await
}

async fn ticket(engine: &Engine) -> String {
    let body = json!({"actions": ["a"], "slots": {"default": 1}, "origin": PAGE});
    let (status, made) = engine.post("/v1/worker/tickets", body).await;
    assert_eq!(status, 201, "{made}");
    made["ticket"].as_str().unwrap().to_owned()
}

fn page(engine: &Engine, offer: &str) -> Request {
    let mut request = upgrade(&engine.url, None);
    request.headers_mut().insert("origin", PAGE.parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", offer.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_leads_through_an_engine_that_is_not_the_owner_and_is_used_at_the_owner_once() {
    let Pair { owner, other } = pair().await;
    owner.workflow("a").await;
    for made_at in [&owner, &other] {
        let offer = format!("helve.v1, {}", ticket(made_at).await);
        // Only there: the owner would let the ticket in by itself, whatever becomes of it on the way.
        let tries = [&other; 5].map(|engine| connect_async(page(engine, &offer)));
        let mut opened: Vec<_> = join_all(tries).await.into_iter().filter_map(Result::ok).collect();
        assert_eq!(opened.len(), 1);
        let (socket, answer) = opened.remove(0);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "helve.v1");
        let mut worker = Worker { socket, welcome: Value::Null };
        worker.send(hello("page", &["a"], 1)).await;
        let welcome = worker.expect("welcome").await;
        assert_eq!(welcome["node"], owner.scheduler().node().to_string(), "the session is the owner's");
        let run = other.trigger("a", json!(1)).await;
        let task = worker.task().await;
        assert_eq!(task["task_run"], run["id"]);
        worker.finish(&task, json!(2)).await;
        worker.goodbye().await;
    }
    other.stop().await;
    owner.stop().await;
}

/// A page of another origin is refused where it asks, and a stolen ticket where it is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_bound_to_its_origin_through_any_engine() {
    let pages = ["https://b.example", PAGE].map(str::to_owned);
    let Pair { owner, other } = Pair::with(Builder::new().http(|http| http.origins = pages.to_vec())).await;
    let offer = format!("helve.v1, {}", ticket(&owner).await);
    for origin in ["https://b.example", "https://evil.example"] {
        let mut stolen = page(&other, &offer);
        stolen.headers_mut().insert("origin", origin.parse().unwrap());
        assert!(connect_async(stolen).await.is_err(), "{origin}");
    }
    connect_async(page(&other, &offer)).await.expect("it is not used up");
    other.stop().await;
    owner.stop().await;
}

/// The first frame is read by an engine that can do nothing with it, and says where the ticket belongs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_in_the_first_frame_is_for_the_owner_alone_and_stays_unused_elsewhere() {
    let Pair { owner, other } = pair().await;
    let ticket = ticket(&owner).await;
    let mut greeting = hello("page", &["a"], 1);
    greeting["ticket"] = json!(ticket);
    let (socket, _) = connect_async(page(&other, "helve.v1")).await.unwrap();
    let mut elsewhere = Worker { socket, welcome: Value::Null };
    elsewhere.send(greeting.clone()).await;
    let error = elsewhere.expect("error").await;
    assert_eq!(error["code"], "unavailable");
    assert!(error["message"].as_str().unwrap().contains("as a subprotocol"), "{error}");
    assert_eq!(elsewhere.closed().await, 4503);
    let (socket, _) = connect_async(page(&owner, "helve.v1")).await.unwrap();
    let mut here = Worker { socket, welcome: Value::Null };
    here.send(greeting).await;
    here.expect("welcome").await;
    here.goodbye().await;
    other.stop().await;
    owner.stop().await;
}
