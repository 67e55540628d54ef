//! Why a run waits, what its worker says, and pauses.

use std::time::Duration;

use serde_json::json;

use super::{Person, rows};
use crate::support::{attempt, engine, until, worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_asks_why_pauses_and_resumes() {
    let engine = engine().await;
    engine.workflow("resize").await;
    let run = engine.trigger("resize", json!({})).await;
    let id = run["id"].as_str().unwrap();
    let person = Person::of(&engine);
    let why = person.prints(&["runs", "why", id]).await;
    assert!(why.contains("resize"), "{why}");
    assert_eq!(person.json(&["runs", "why", id]).await["reason"], "no_worker");

    let pause = ["pauses", "start", "workflow", "resize", "--reason", "the disk is full"];
    assert_eq!(person.json(&[pause.as_slice(), &["--expires-in", "2h"]].concat()).await["state"], "paused");
    let why = person.prints(&["runs", "why", id]).await;
    assert!(why.contains("the disk is full"), "{why}");
    let table = person.prints(&["pauses", "list"]).await;
    assert_eq!(rows(&table)[1][..3], ["workflow", "resize", "paused"], "{table}");
    let mut worker = worker(&engine, &["resize"], 1).await;
    worker.expect_silence(Duration::from_millis(300)).await;
    assert_eq!(person.json(&["pauses", "resume", "workflow", "resize", "--rate", "5"]).await["kind"], "workflow");
    let task = worker.task().await;
    worker.finish(&task, json!(1)).await;
    engine.run_is(&run["id"], "succeeded").await;
    assert_eq!(person.json(&["runs", "why", id]).await["reason"], "final");

    person.is_refused(&["pauses", "start", "workflow", "resize"], 2, "--reason").await;
    person.is_refused(&["pauses", "start", "workflow", "resize", "--reason", ""], 2, "field /reason").await;
    person.is_refused(&["pauses", "resume", "action", "resize", "--rate", "0"], 2, "field /rate").await;
    person.is_refused(&["pauses", "start", "workflow", "missing", "--reason", "x"], 3, "missing").await;
    let other = engine.second_tenant().await;
    let stranger = Person::new().with("HELVE_URL", &engine.url).with("HELVE_TOKEN", &other.token);
    for command in ["why", "logs"] {
        stranger.is_refused(&["runs", command, id], 3, id).await;
    }
    stranger.is_refused(&pause, 3, "resize").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_are_shown_and_followed_to_the_end() {
    let engine = engine().await;
    engine.workflow("resize").await;
    let run = engine.trigger("resize", json!({})).await;
    let id = run["id"].as_str().unwrap();
    let person = Person::of(&engine);
    let mut worker = worker(&engine, &["resize"], 1).await;
    let task = worker.task().await;
    let log = |level: &str, message: &str| {
        let mut item = attempt(&task);
        item["lines"] = json!([{"level": level, "message": message}]);
        json!({"type": "log", "logs": [item]})
    };
    worker.send(log("info", "begun \u{1b}[2J")).await;
    worker.send(log("error", "it smokes")).await;
    let logs = ["runs", "logs", id];
    let shown = until("both lines are stored", || async {
        let shown = person.prints(&logs).await;
        (shown.lines().count() == 2).then_some(shown)
    })
    .await;
    assert!(shown.contains("begun") && shown.contains("error  it smokes") && !shown.contains('\u{1b}'), "{shown}");
    let errors = person.prints(&["runs", "logs", id, "--level", "error", "--json"]).await;
    let line: serde_json::Value = serde_json::from_str(&errors).unwrap();
    assert_eq!((line["offset"].as_u64(), line["message"].as_str()), (Some(1), Some("it smokes")));
    assert_eq!(person.prints(&["runs", "logs", id, "--after", "1"]).await, "");

    let follow = ["runs", "logs", id, "--follow", "--after", "0"];
    let (followed, ()) = tokio::join!(person.prints(&follow), async {
        worker.send(log("warn", "nearly done")).await;
        worker.finish(&task, json!("done")).await;
    });
    let messages: Vec<_> = followed.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(messages, ["it smokes", "nearly done"], "{followed}");
    person.is_refused(&["runs", "logs", id, "--level", "loud"], 2, "expected debug, info, warn or error").await;
}
