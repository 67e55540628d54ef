//! Connected workers.

use serde_json::{Value, json};

use super::pages;
use crate::support::{self, Worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_shows_what_it_offers_and_what_it_does() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let mut hello = support::hello("w1", &["w", "v"], 3);
    hello["labels"] = json!({"zone": "a"});
    hello["sdk"] = json!("tests");
    let mut worker = Worker::connect(&engine.url, &engine.token, hello).await;
    engine.trigger("w", json!(1)).await;
    let task = worker.task().await;
    let (status, list) = engine.get("/v1/workers").await;
    assert_eq!((status, &list["next_cursor"]), (200, &Value::Null));
    let shown = &list["items"][0];
    assert!(shown["id"].as_str().unwrap().starts_with("wrk_"));
    assert_eq!(
        (&shown["name"], &shown["sdk"], &shown["labels"]),
        (&json!("w1"), &json!("tests"), &json!({"zone": "a"}))
    );
    assert_eq!(shown["slots"], json!({"default": {"total": 3, "used": 1}}));
    assert_eq!(
        (&shown["connected"], &shown["draining"], &shown["lost_at"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    worker.finish(&task, json!(null)).await;
    support::until("the slot is free", || async {
        (engine.get("/v1/workers").await.1["items"][0]["slots"]["default"]["used"] == 0).then_some(())
    })
    .await;
    worker.goodbye().await;
    support::until("the worker is gone", || async {
        engine.get("/v1/workers").await.1["items"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_come_in_pages() {
    let engine = support::engine().await;
    let mut workers = Vec::new();
    for _ in 0..5 {
        workers.push(support::worker(&engine, &["w"], 1).await);
    }
    for limit in [1, 2, 5] {
        let mut ids: Vec<_> = pages(&engine, "/v1/workers", limit).await.iter().map(|w| w["id"].to_string()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "newest first");
        ids.dedup();
        assert_eq!(ids.len(), 5, "limit {limit}");
    }
}
