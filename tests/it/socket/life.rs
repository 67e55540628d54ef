//! How sockets end: revocation, silence, goodbye, and an engine that stops.

use std::time::Duration;

use helve::ops::tokens;
use helve_domain::clock::Clock;
use serde_json::json;

use super::ready;
use crate::both_ways;
use crate::support::{Builder, Incoming, Worker, engine, hello, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_closes_its_sockets_within_five_seconds() {
    let engine = engine().await;
    let token = engine.token_with("worker").await;
    let mut revoked = Worker::connect(&engine.url, &token, hello("revoked", &["work"], 1)).await;
    let mut other = ready(&engine).await;
    let clock = Clock::system();
    let known = tokens::check(&engine.pool, &clock, &token).await.unwrap().unwrap();
    tokens::revoke(&engine.pool, &clock, known.id).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), revoked.closed()).await;
    assert_eq!(closed.expect("closed within 5 s"), 4401);
    other.send(json!({"type": "ping"})).await;
    other.expect("pong").await;
}

both_ways! {
    async fn a_goodbye_gives_the_work_back_at_once(engine) {
        let mut leaving = ready(&engine).await;
        let run = engine.trigger("work", json!({})).await;
        leaving.task().await;
        let mut staying = crate::support::worker(&engine, &["work"], 1).await;
        leaving.send(json!({"type": "goodbye"})).await;
        assert_eq!(leaving.closed().await, 1000);
        let task = staying.task().await;
        assert_eq!((&task["task_run"], &task["attempt"]), (&run["id"], &json!(2)));
        staying.finish(&task, json!(1)).await;
        let (_, workers) = engine.get("/v1/workers").await;
        assert_eq!(workers["items"].as_array().unwrap().len(), 1, "{workers}");
    }
}

both_ways! {
    async fn a_draining_worker_finishes_and_gets_nothing_new(engine) {
        let mut draining = ready(&engine).await;
        engine.trigger("work", json!({})).await;
        let task = draining.task().await;
        draining.send(json!({"type": "drain"})).await;
        draining.send(json!({"type": "ping"})).await;
        draining.expect("pong").await;
        until("the engine knows", || async {
            let (_, workers) = engine.get("/v1/workers").await;
            (workers["items"][0]["draining"] == true).then_some(())
        })
        .await;
        let waiting = engine.trigger("work", json!({})).await;
        draining.finish(&task, json!(1)).await;
        assert_eq!(engine.run(&waiting["id"]).await["status"], "queued");
        let mut fresh = crate::support::worker(&engine, &["work"], 1).await;
        assert_eq!(fresh.task().await["task_run"], waiting["id"]);
    }
}

both_ways! {
    async fn capacity_opens_more_slots(engine) {
        engine.workflow("work").await;
        let mut worker = crate::support::worker(&engine, &["work"], 0).await;
        let run = engine.trigger("work", json!({})).await;
        worker.send(json!({"type": "capacity", "slots": {"default": 1}})).await;
        assert_eq!(worker.task().await["task_run"], run["id"]);
        assert_eq!(engine.run(&run["id"]).await["status"], "running");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_worker_is_lost_and_one_that_only_answers_pings_is_not() {
    let builder = Builder::new().scheduling(|s| {
        s.heartbeat = Duration::from_millis(100);
        s.silence = Duration::from_millis(600);
        s.grace = Duration::from_millis(300);
    });
    let engine = builder.start().await;
    let mut silent = ready(&engine).await;
    let run = engine.trigger("work", json!({})).await;
    // A worker that reads answers the engine's pings, and lives.
    let task = silent.task().await;
    assert!(matches!(silent.incoming(Duration::from_secs(2)).await, Incoming::Silence));
    assert_eq!(engine.run(&run["id"]).await["attempt"], task["attempt"]);
    // From here on nobody reads its socket: no ping is answered.
    let mut other = crate::support::worker(&engine, &["work"], 1).await;
    let again = other.task().await;
    assert_eq!((&again["task_run"], &again["attempt"]), (&run["id"], &json!(2)));
    other.finish(&again, json!(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_engine_lets_its_workers_finish() {
    let engine = engine().await;
    let mut worker = ready(&engine).await;
    engine.trigger("work", json!({})).await;
    let task = worker.task().await;
    let (url, token) = (engine.url.clone(), engine.token.clone());
    let work = async {
        let reconnect = worker.expect("reconnect").await;
        assert!(reconnect["deadline_ms"].as_u64().unwrap() <= 2_000, "{reconnect}");
        // What was begun may still be finished.
        worker.finish(&task, json!("in time")).await;
        assert!(Worker::open(&url, Some(&token)).await.is_err(), "no new socket while it stops");
        assert_eq!(worker.closed().await, 4503);
    };
    let ((), ()) = tokio::join!(engine.stop(), work);
}
