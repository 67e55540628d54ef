//! What runs show while they run: logs, progress, and streams of what happens.

mod logs;
mod progress;
mod run_stream;
pub mod sse;
mod tenant_stream;

use serde_json::{Value, json};

use crate::support::{Engine, Worker, attempt, until};

/// A `log` frame with these lines of one attempt.
fn log(task: &Value, lines: &[Value]) -> Value {
    let mut item = attempt(task);
    item["lines"] = json!(lines);
    json!({"type": "log", "logs": [item]})
}

/// A `log` frame with one line for each message.
fn say(task: &Value, messages: impl IntoIterator<Item = String>) -> Value {
    let lines: Vec<Value> = messages.into_iter().map(|message| json!({"message": message})).collect();
    log(task, &lines)
}

/// A `progress` frame.
fn progress(task: &Value, how_far: Value) -> Value {
    let mut item = attempt(task);
    item.as_object_mut().unwrap().extend(how_far.as_object().unwrap().clone());
    json!({"type": "progress", "progress": [item]})
}

/// The log of a run, when it counts this many lines and dropped ones.
async fn logged(engine: &Engine, run: &Value, total: i64, dropped: i64) -> Value {
    let path = format!("/v1/runs/{}/logs?limit=1000", run.as_str().unwrap());
    until(&format!("{total} lines are stored and {dropped} dropped"), || async {
        let (status, page) = engine.get(&path).await;
        assert_eq!(status, 200, "{page}");
        assert!(page["total"].as_i64().unwrap() <= total && page["dropped"].as_i64().unwrap() <= dropped, "{page}");
        (page["total"] == total && page["dropped"] == dropped).then_some(page)
    })
    .await
}

/// Everything sent before was taken in: the owner answers in order.
async fn taken_in(worker: &mut Worker) {
    let nothing = json!({"task_run": "run_01932c4f8a2b7c3d9e4f506172839401", "attempt": 1});
    worker.send(json!({"type": "received", "tasks": [nothing]})).await;
    worker.expect("superseded").await;
}
