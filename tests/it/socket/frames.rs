//! Frames that are wrong: each has its answer and changes nothing.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{ready, text};
use crate::both_ways;
use crate::support::{attempt, engine, hello, worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_answered_and_the_socket_goes_on() {
    let engine = engine().await;
    let mut worker = ready(&engine).await;
    for (frame, code) in [
        (hello("again", &["work"], 1), "hello_twice"),
        (json!({"type": "jump"}), "unknown_frame"),
        (json!({"type": "received"}), "bad_frame"),
        (json!({"type": "received", "tasks": 1}), "bad_frame"),
        (json!({"type": "result", "results": [{"task_run": "run_1", "attempt": 1}]}), "bad_frame"),
        (json!({"type": "extend", "tasks": [{"attempt": 1}]}), "bad_frame"),
        (json!({"type": "capacity", "slots": {"default": "many"}}), "bad_frame"),
    ] {
        worker.send(frame.clone()).await;
        let error = worker.expect("error").await;
        assert_eq!(error["code"], code, "{frame}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    worker.send(json!({"type": "ping", "a": {"field": ["of", "the", "future"]}})).await;
    worker.expect("pong").await;
    engine.trigger("work", json!({})).await;
    let task = worker.task().await;
    worker.finish(&task, json!(null)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_frame_closes() {
    let engine = engine().await;
    for (message, code) in [
        (Message::text("{"), 4400),
        (Message::text("[]"), 4400),
        (Message::text("{}"), 4400),
        (Message::text(r#"{"type":7}"#), 4400),
        (Message::binary(r#"{"type":"ping"}"#), 4400),
        (Message::text("x".repeat((4 << 20) + 1)), 4413),
    ] {
        let mut worker = worker(&engine, &["work"], 1).await;
        futures_util::SinkExt::send(&mut worker.socket, message.clone()).await.unwrap();
        assert_eq!(worker.closed().await, code, "{} bytes", message.len());
    }
}

both_ways! {
    async fn one_bad_item_does_not_lose_the_others(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 3).await;
        let mut tasks = Vec::new();
        for _ in 0..3 {
            engine.trigger("work", json!({})).await;
        }
        while tasks.len() < 3 {
            tasks.extend(worker.tasks().await);
        }
        let result = |i: usize, outcome: &str| {
            json!({"task_run": tasks[i]["task_run"], "attempt": 1, "outcome": outcome, "output": i})
        };
        worker
            .send(json!({"type": "result", "results": [result(0, "succeeded"), result(1, "gone"), result(2, "succeeded")]}))
            .await;
        let error = worker.find("error").await;
        assert_eq!((&error["code"], &error["pointer"]), (&json!("bad_frame"), &json!("/results/1/outcome")));
        engine.run_is(&tasks[0]["run"], "succeeded").await;
        engine.run_is(&tasks[2]["run"], "succeeded").await;
        assert_eq!(engine.run(&tasks[1]["run"]).await["status"], "running");
        worker.finish(&tasks[1], json!(1)).await;
    }
}

both_ways! {
    async fn an_output_over_the_limit_fails_the_run_at_once(engine) {
        engine.workflow_with("work", json!({"retries": 5})).await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        worker.report(&task, json!({"outcome": "succeeded", "output": "x".repeat(1 << 20)})).await;
        let error = worker.expect("error").await;
        assert_eq!((&error["code"], &error["pointer"]), (&json!("too_large"), &json!("/results/0/output")));
        assert_eq!(worker.stored(&task).await["status"], "failed");
        let run = engine.run(&run["id"]).await;
        assert_eq!((&run["error"]["code"], &run["attempt"]), (&json!("output_too_large"), &json!(1)));
        engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        worker.finish(&task, json!("x".repeat((1 << 20) - 2))).await;
    }
}

both_ways! {
    async fn large_inputs_are_split_over_frames(engine) {
        engine.workflow("work").await;
        let input = "x".repeat((1 << 20) - 2);
        for _ in 0..6 {
            engine.trigger("work", json!(input)).await;
        }
        let mut worker = worker(&engine, &["work"], 10).await;
        let mut runs = std::collections::BTreeSet::new();
        while runs.len() < 6 {
            let text = text(&mut worker).await;
            assert!(text.len() <= 4 << 20, "a frame of {} bytes", text.len());
            let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
            for task in frame["tasks"].as_array().unwrap() {
                assert_eq!(task["input"].as_str().unwrap().len(), input.len());
                worker.send(json!({"type": "received", "tasks": [attempt(task)]})).await;
                runs.insert(task["task_run"].to_string());
            }
        }
    }
}
