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
    // A field of the future changes nothing, and is named once.
    for told in [true, false] {
        worker.send(json!({"type": "ping", "a": {"field": ["of", "the", "future"]}})).await;
        if told {
            let error = worker.expect("error").await;
            assert_eq!((&error["code"], &error["pointer"]), (&json!("unknown_field"), &json!("/a")));
        }
        worker.expect("pong").await;
    }
    engine.trigger("work", json!({})).await;
    let task = worker.task().await;
    worker.finish(&task, json!(null)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_frame_is_answered_and_closes_only_when_it_repeats() {
    let engine = engine().await;
    let mut worker = ready(&engine).await;
    engine.trigger("work", json!({})).await;
    let task = worker.task().await;
    let wrong = [
        (Message::text("{"), "line 1 column 1"),
        (Message::text("[]"), "object"),
        (Message::text("{}"), "`type`"),
        (Message::text(r#"{"type":7}"#), "string"),
        (Message::binary(r#"{"type":"ping"}"#), "binary"),
    ];
    for (message, told) in wrong.iter().cycle().take(10) {
        futures_util::SinkExt::send(&mut worker.socket, message.clone()).await.unwrap();
        let error = worker.expect("error").await;
        assert_eq!(error["code"], "bad_frame");
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
    }
    worker.finish(&task, json!("its other work is not harmed")).await;
    worker.send_text("{".to_owned()).await;
    assert_eq!(worker.closed().await, 4400);
    let mut worker = crate::support::worker(&engine, &["work"], 1).await;
    worker.send_text("x".repeat((4 << 20) + 1)).await;
    assert_eq!(worker.closed().await, 4413);
}

both_ways! {
    async fn an_output_that_is_not_json_ends_its_attempt_and_harms_no_neighbour(engine) {
        engine.workflow_with("work", json!({"retries": {"count": 1, "base": "1ms", "jitter": false}})).await;
        let mut worker = worker(&engine, &["work"], 3).await;
        let mut tasks = Vec::new();
        for i in 0..3 {
            engine.trigger("work", json!(i)).await;
        }
        while tasks.len() < 3 {
            tasks.extend(worker.tasks().await);
        }
        let mut broken = tasks.remove(0);
        for status in ["scheduled", "failed"] {
            worker
                .send_text(format!(
                    r#"{{"type":"result","results":[{{"task_run":{},"attempt":{},"outcome":"succeeded","output":{{"loss":NaN}}}}]}}"#,
                    broken["task_run"], broken["attempt"]
                ))
                .await;
            let error = worker.expect("error").await;
            assert!(error["message"].as_str().unwrap().contains("at line 1 column"), "the parser's words: {error}");
            assert_eq!(worker.expect("error").await["pointer"], "/results/0/output");
            assert_eq!(worker.stored(&broken).await["status"], status);
            if status == "scheduled" {
                broken = worker.task().await;
            }
        }
        let run = engine.run(&broken["run"]).await;
        assert_eq!((&run["error"]["code"], &run["attempt"]), (&json!("bad_result"), &json!(2)));
        assert!(run["error"]["message"].as_str().unwrap().contains("NaN"), "{run}");
        for task in &tasks {
            worker.finish(task, json!(1)).await;
            let run = engine.run(&task["run"]).await;
            assert_eq!((&run["status"], &run["attempt"]), (&json!("succeeded"), &json!(1)));
        }
    }
}

both_ways! {
    async fn a_text_beyond_repair_ends_the_one_attempt_that_it_names_if_the_worker_holds_it(engine) {
        engine.workflow("work").await;
        let mut holder = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let task = holder.task().await;
        let text = format!(
            r#"{{"type":"result","results":[{{"task_run":{},"attempt":1,"outcome":"succeeded","output":"say "hi""}}]}}"#,
            task["task_run"]
        );
        let mut stranger = worker(&engine, &["other"], 1).await;
        stranger.send_text(text.clone()).await;
        stranger.expect("error").await;
        assert_eq!(attempt(&stranger.expect("superseded").await["tasks"][0]), attempt(&task));
        assert_eq!(engine.run(&run["id"]).await["status"], "running", "it is not the stranger's");
        holder.send_text(text).await;
        holder.expect("error").await;
        assert_eq!(holder.stored(&task).await["status"], "failed");
        assert_eq!(engine.run(&run["id"]).await["error"]["code"], "bad_result");
    }
}

both_ways! {
    async fn a_failure_that_is_slightly_wrong_is_kept_with_its_text(engine) {
        engine.workflow_with("work", json!({"retries": {"count": 1, "base": "1h"}})).await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        // A wait that a float says, and half an emoji, which only text can have.
        worker
            .send_text(format!(
                r#"{{"type":"result","results":[{{"task_run":{},"attempt":1.0,"outcome":"failed",
                    "error":{{"message":"no paper \ud83d","code":503,"retry_after_ms":1.0}}}}]}}"#,
                task["task_run"]
            ))
            .await;
        for field in ["message", "code"] {
            let error = worker.expect("error").await;
            assert_eq!(error["pointer"], format!("/results/0/error/{field}"));
        }
        assert_eq!(worker.stored(&task).await["status"], "scheduled");
        let again = worker.task().await;
        let error = engine.run(&run["id"]).await["error"].clone();
        assert_eq!(error, json!({"message": "no paper \u{fffd}", "code": "503", "retry_after_ms": 1}));
        worker.fail(&again, json!({"message": "worse", "code": {"http": 503}})).await;
        let run = engine.run_is(&run["id"], "failed").await;
        assert_eq!((&run["error"]["code"], &run["attempt"]), (&json!("bad_result"), &json!(2)));
        assert!(run["error"]["message"].as_str().unwrap().ends_with("its message was: worse"), "{run}");
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
        // Its worker is done with it, too.
        let run = engine.run_is(&tasks[1]["run"], "failed").await;
        assert_eq!(run["error"]["code"], "bad_result");
        assert!(run["error"]["message"].as_str().unwrap().contains("got `gone`"), "{run}");
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
