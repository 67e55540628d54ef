//! Worker sockets at an engine that does not own the tenant's shard.

use std::time::Duration;

use futures_util::SinkExt;
use helve::cluster::Place;
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Pair;
use crate::support::{Builder, Worker, hello, until, upgrade, worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_works_through_any_engine() {
    let Pair { owner, other } = Pair::new().await;
    owner.workflow("a").await;
    let mut worker = worker(&other, &["a"], 2).await;
    assert_eq!(worker.welcome["node"], owner.scheduler().node().to_string(), "the session is the owner's");
    for engine in [&owner, &other] {
        let run = engine.trigger("a", json!({"big": "x".repeat(300_000)})).await;
        assert_eq!(run["status"], "running");
        let task = worker.task().await;
        assert_eq!(task["input"]["big"].as_str().unwrap().len(), 300_000);
        worker.finish(&task, json!("y".repeat(300_000))).await;
        assert_eq!(other.run_is(&run["id"], "succeeded").await["output"].as_str().unwrap().len(), 300_000);
    }
    worker.goodbye().await;
    let mut bad = crate::support::worker(&other, &["a"], 1).await;
    for _ in 0..11 {
        bad.send_text("{".to_owned()).await;
        assert_eq!(bad.expect("error").await["code"], "bad_frame");
    }
    assert_eq!(bad.closed().await, 4400);
    other.stop().await;
    owner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_codes_arrive_on_both_sides() {
    let Pair { owner, other } = Pair::with(Builder::new().http(|h| h.sockets_per_tenant = 2)).await;
    let first = worker(&other, &["a"], 1).await;
    let mut second = worker(&owner, &["a"], 1).await;
    // Counted at the owner, by whatever way they came.
    let mut third = Worker::open(&other.url, Some(&other.token)).await.unwrap();
    assert_eq!(third.closed().await, 4429);
    // A worker that closes by itself is gone at the owner too: not lost, but closed.
    let mut socket = first.socket;
    socket.send(Message::Close(Some(CloseFrame { code: 1000.into(), reason: "".into() }))).await.unwrap();
    until("the owner has seen the end", || async {
        let workers = owner.get("/v1/workers").await.1;
        let connected = workers["items"].as_array().unwrap().iter().filter(|w| w["connected"] == true).count();
        (connected == 1).then_some(())
    })
    .await;
    second.expect_silence(Duration::from_millis(50)).await;
    other.stop().await;
    owner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_the_same_through_any_engine() {
    let origin = "https://app.example";
    let Pair { owner, other } = Pair::told(|http| http.origins = vec![origin.to_owned()]).await;
    let status = async |change: &dyn Fn(&mut tokio_tungstenite::tungstenite::http::HeaderMap)| {
        let mut request = upgrade(&other.url, Some(&other.token));
        change(request.headers_mut());
        match connect_async(request).await {
            Ok((_, response)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], "helve.v1");
                101
            }
            Err(Error::Http(refusal)) => refusal.status().as_u16(),
            Err(other) => panic!("{other}"),
        }
    };
    let reader = owner.token_with("read").await;
    assert_eq!(status(&|_| ()).await, 101);
    assert_eq!(status(&|h| drop(h.insert("origin", origin.parse().unwrap()))).await, 101);
    assert_eq!(status(&|h| drop(h.insert("origin", "https://evil.example".parse().unwrap()))).await, 403);
    assert_eq!(status(&|h| drop(h.remove("authorization"))).await, 401);
    assert_eq!(status(&|h| drop(h.insert("authorization", format!("Bearer {reader}").parse().unwrap()))).await, 403);
    assert_eq!(status(&|h| drop(h.insert("sec-websocket-protocol", "x".parse().unwrap()))).await, 400);
    assert_eq!(status(&|h| drop(h.insert("helve-hops", "3".parse().unwrap()))).await, 503);
    assert_eq!(status(&|h| drop(h.insert("helve-peer", "wrong".parse().unwrap()))).await, 101);
    let secret = other.scheduler().secret().reveal().to_owned();
    assert_eq!(status(&|h| drop(h.insert("helve-peer", secret.parse().unwrap()))).await, 503);
    other.scheduler().directory().move_to(&Place::Nowhere);
    assert_eq!(status(&|_| ()).await, 503);
    other.stop().await;
    owner.stop().await;
}

/// The way goes, the worker stays: its session and its work are at the owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_on_the_way_stops_and_nothing_is_lost() {
    let Pair { owner, other } = Pair::new().await;
    owner.workflow("a").await;
    let run = owner.trigger("a", json!(1)).await;
    let mut first = worker(&other, &["a"], 1).await;
    let task = first.task().await;
    other.stop().await;
    assert_eq!(first.closed().await, 4503);
    let mut greeting = hello("test", &["a"], 1);
    greeting["resume"] = first.resume(&[&task]);
    let mut again = Worker::connect(&owner.url, &owner.token, greeting).await;
    assert_eq!(again.welcome["resumed"], true);
    again.finish(&task, json!(2)).await;
    assert_eq!(owner.run_is(&run["id"], "succeeded").await["attempt"], 1);
    owner.stop().await;
}

/// The owner hands its shards over: its worker that came by another engine hears of it and goes on at the next owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_stops_sends_its_workers_on() {
    let Pair { owner, other } = Pair::new().await;
    owner.workflow("a").await;
    let mut worker = worker(&other, &["a"], 1).await;
    let run = other.trigger("a", json!(1)).await;
    let task = worker.task().await;
    let ((), mut again) = tokio::join!(owner.stop(), async {
        worker.find("reconnect").await;
        let mut greeting = hello("test", &["a"], 1);
        greeting["resume"] = worker.resume(&[&task]);
        let again = Worker::connect(&other.url, &other.token, greeting).await;
        worker.closed().await;
        again
    });
    assert_eq!(again.welcome["resumed"], true);
    assert_eq!(again.welcome["node"], other.scheduler().node().to_string());
    again.finish(&task, json!(2)).await;
    assert_eq!(other.run_is(&run["id"], "succeeded").await["attempt"], 1);
    other.stop().await;
}
