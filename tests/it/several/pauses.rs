//! A pause belongs to the tenant, not to the engine that took it.

use std::time::Duration;

use serde_json::json;

use super::Pair;
use crate::support::{Http, Worker, hello, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_goes_over_with_its_shard_and_is_ended_through_any_engine() {
    let Pair { owner, other } = Pair::new().await;
    owner.workflow("work").await;
    let http = Http::new(&other.url, Some(&other.token));
    let (status, pause) = http.post("/v1/workflows/work/pause", json!({"reason": "a deploy"})).await;
    assert_eq!((status, &pause["state"]), (200, &json!("paused")), "taken through the engine that does not own it");
    let run = owner.trigger("work", json!(1)).await;

    // A planned stop: the shards go over before the process ends.
    owner.stop().await;
    let mut worker = Worker::connect(&other.url, &other.token, hello("w", &["work"], 1)).await;
    worker.expect_silence(Duration::from_millis(500)).await;
    let later = other.trigger("work", json!(2)).await;
    worker.expect_silence(Duration::from_millis(300)).await;
    let (_, why) = http.get(&format!("/v1/runs/{}/why", run["id"].as_str().unwrap())).await;
    assert_eq!(why["reason"], "paused", "{why}");

    assert_eq!(http.post("/v1/workflows/work/resume", json!({})).await.0, 200);
    for expected in [&run, &later] {
        let task = worker.task().await;
        assert_eq!((&task["run"], &task["attempt"]), (&expected["id"], &json!(1)));
        worker.finish(&task, json!("done")).await;
    }
    until("nothing is paused", || async {
        let (_, page) = http.get("/v1/pauses").await;
        (page["items"] == json!([])).then_some(())
    })
    .await;
}
