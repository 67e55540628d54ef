//! Triggers that wait for the end of their run.

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{self, Http};

async fn trigger(client: &Http, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let response = client.request("POST", path, headers, r#"{"workflow":"w"}"#).await;
    (response.status, response.json())
}

both_ways! {
    async fn the_answer_is_the_finished_run(engine) {
        engine.workflow("w").await;
        let mut worker = support::worker(&engine, &["w"], 1).await;
        for (path, headers, good) in [
            ("/v1/runs?wait=30s", &[][..], true),
            ("/v1/runs?wait=30", &[], false),
            ("/v1/runs", &[("prefer", "wait=30")], true),
            ("/v1/runs", &[("prefer", "respond-async, wait=60")], false),
        ] {
            let work = async {
                let task = worker.task().await;
                if good {
                    worker.finish(&task, json!({"ok": 1})).await;
                } else {
                    worker.fail(&task, json!({"message": "boom"})).await;
                }
            };
            let ((status, run), ()) = tokio::join!(trigger(&engine, path, headers), work);
            assert_eq!((status, &run["status"]), (200, &json!(if good { "succeeded" } else { "failed" })), "{run}");
            assert_eq!(run["output"], if good { json!({"ok": 1}) } else { Value::Null });
            assert_eq!(engine.run(&run["id"]).await, run);
        }
        worker.goodbye().await;
    }
}

both_ways! {
    async fn past_the_time_the_open_run_is_the_answer(engine) {
        engine.workflow("w").await;
        let response = engine.request("POST", "/v1/runs?wait=50ms", &[], r#"{"workflow":"w"}"#).await;
        let run = response.json();
        assert_eq!((response.status, &run["status"]), (202, &json!("queued")));
        assert_eq!(response.header("location"), format!("/v1/runs/{}", run["id"].as_str().unwrap()));
        // The run goes on.
        let mut worker = support::worker(&engine, &["w"], 1).await;
        let task = worker.task().await;
        assert_eq!(task["run"], run["id"]);
        worker.finish(&task, json!(null)).await;
        engine.run_is(&run["id"], "succeeded").await;
        worker.goodbye().await;
    }
}

both_ways! {
    async fn a_cancel_ends_the_wait(engine) {
        engine.workflow("w").await;
        let cancel = async {
            let id = support::until("the run is there", || async {
                engine.get("/v1/runs").await.1["items"][0]["id"].as_str().map(str::to_owned)
            }).await;
            assert_eq!(engine.post(&format!("/v1/runs/{id}/cancel"), json!({})).await.0, 200);
        };
        let ((status, run), ()) = tokio::join!(trigger(&engine, "/v1/runs?wait=30s", &[]), cancel);
        assert_eq!((status, &run["status"]), (200, &json!("cancelled")));
    }
}

both_ways! {
    async fn a_repeated_trigger_joins_the_wait(engine) {
        engine.workflow("w").await;
        let key = &[("idempotency-key", "k")];
        let (status, first) = trigger(&engine, "/v1/runs", key).await;
        assert_eq!(status, 201);
        let (status, open) = trigger(&engine, "/v1/runs?wait=50ms", key).await;
        assert_eq!((status, &open["id"], &open["deduplicated"]), (202, &first["id"], &json!(true)));
        let mut worker = support::worker(&engine, &["w"], 1).await;
        let work = async {
            let task = worker.task().await;
            worker.finish(&task, json!(7)).await;
        };
        let ((status, joined), ()) = tokio::join!(trigger(&engine, "/v1/runs?wait=30s", key), work);
        assert_eq!((status, &joined["id"], &joined["output"]), (200, &first["id"], &json!(7)));
        // And when it has ended before.
        let (status, late) = trigger(&engine, "/v1/runs?wait=30s", key).await;
        assert_eq!((status, late), (200, joined));
        worker.goodbye().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_the_engine_ends_the_wait() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let client = engine.client();
    let stop = async {
        let watched = support::until("the run is there", || async {
            engine.get("/v1/runs").await.1["items"][0]["id"].as_str().map(str::to_owned)
        });
        watched.await;
        engine.stop().await;
    };
    let ((status, run), ()) = tokio::join!(trigger(&client, "/v1/runs?wait=60s", &[]), stop);
    assert_eq!((status, &run["status"]), (202, &json!("queued")));
}
