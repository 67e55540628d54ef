//! Logs for a collector: every line is JSON, and none has what clients, workers or tokens say.

use helve::config::Database;
use helve::db::Pool;
use serde_json::{Value, json};

use crate::support::process::EngineProcess;
use crate::support::{self, Http, Worker, fresh_database, until};

/// Stands in everything that is nobody's business.
const MARKER: &str = "marker-4711-of-a-customer";

/// What happens on a day: good ends, failures, wrong bodies, wrong frames, wrong tokens, a lost worker that resumes.
/// Gives the secrets that were used.
async fn a_day(engine: &EngineProcess, token: &str) -> Vec<String> {
    let http = Http::new(&engine.url, Some(token));
    let definition = json!({"tasks": [{"name": "w", "action": "w", "retries": 0}], "events": ["e.*"],
        "input_schema": {"properties": {"number": {"type": "integer"}}}});
    let (status, body) = http.put("/v1/workflows/w", definition).await;
    assert_eq!(status, 200, "{body}");
    let hello = support::hello("w1", &["w"], 2);
    let mut worker = Worker::connect(&engine.url, token, hello.clone()).await;
    let input = json!({"secret": MARKER});
    let run = json!({"workflow": "w", "input": input, "metadata": {"k": MARKER}});
    for outcome in ["succeeded", "failed"] {
        let key = format!("{MARKER}-{outcome}");
        assert_eq!(http.post_with("/v1/runs", &[("idempotency-key", &key)], run.clone()).await.0, 201);
        let task = worker.task().await;
        if outcome == "failed" {
            worker.fail(&task, json!({"message": MARKER})).await;
        } else {
            worker.finish(&task, json!({"result": MARKER})).await;
        }
    }
    assert_eq!(http.post("/v1/events", json!({"key": "e.x", "payload": input})).await.0, 201);
    let task = worker.task().await;
    // The socket breaks, and its successor goes on with the session's secret.
    let secret = |worker: &Worker| worker.welcome["secret"].as_str().unwrap().to_owned();
    let (first, mut again) = (secret(&worker), hello);
    again["resume"] = worker.resume(&[&task]);
    drop(worker);
    let mut worker = Worker::connect(&engine.url, token, again).await;
    assert_eq!(worker.welcome["resumed"], true);
    worker.finish(&task, json!(MARKER)).await;
    let second = secret(&worker);
    // What is refused.
    for body in [
        json!({"workflow": "w", "input": {"number": MARKER}}),
        json!({"workflow": MARKER}),
        json!({"workflow": "w", "priority": MARKER}),
    ] {
        let (status, answer) = http.post("/v1/runs", body).await;
        assert!((400..500).contains(&status), "{status} {answer}");
    }
    let used = format!("{MARKER}-succeeded");
    assert_eq!(http.post_with("/v1/runs", &[("idempotency-key", &used)], json!({"workflow": "w"})).await.0, 409);
    assert_eq!(http.request("POST", "/v1/runs", &[], format!("{{\"workflow\": {MARKER}")).await.status, 400);
    let stranger = format!("helve_{MARKER}");
    assert_eq!(http.with_token(Some(&stranger)).get("/v1/runs").await.0, 401);
    assert!(Worker::open(&engine.url, Some(&stranger)).await.is_err());
    worker.send(json!({"type": "result", "results": [{"task_run": MARKER, "attempt": 1, "output": MARKER}]})).await;
    worker.send_text(format!("{{\"type\": \"{MARKER}\"")).await;
    worker.send_text(format!("\"{MARKER}\"")).await;
    worker.goodbye().await;
    for (field, value) in
        [("name", json!({"is": MARKER})), ("protocol", json!(MARKER)), ("resume", json!({"secret": MARKER}))]
    {
        let mut wrong = support::hello("w1", &["w"], 2);
        wrong[field] = value;
        let mut worker = Worker::open(&engine.url, Some(token)).await.unwrap();
        worker.send(wrong).await;
        assert_eq!(worker.closed().await, 4400);
    }
    vec![token.to_owned(), first, second]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_json_without_payloads_and_secrets() {
    let database = fresh_database().await;
    let pool = Pool::new(&Database { pool_size: 2, ..Database::at(&database) }).unwrap();
    let (_, token) = support::provision(&pool, "logs").await;
    let env = [("HELVE_LOG", "warn,helve=trace"), ("HELVE_LOG_FORMAT", "json")];
    let mut engine = EngineProcess::start(&database, &env).await;
    let mut secrets = a_day(&engine, &token).await;
    secrets.push(MARKER.to_owned());
    for line in ["worker socket ended", "a hello was refused", "a worker sent what is no frame"] {
        until(line, || async { engine.log().contains(line).then_some(()) }).await;
    }
    engine.stop().await;
    let log = engine.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}")))
        .collect();
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string(), "{line}");
    }
    let requests = lines.iter().filter(|line| line["message"] == "answered").count();
    assert!(requests >= 8, "the log is at its finest level: {requests} of {}", lines.len());
    for secret in &secrets {
        assert!(secret.len() > 16, "{secret}");
        let found: Vec<_> = log.lines().filter(|line| line.contains(secret.as_str())).collect();
        assert!(found.is_empty(), "`{secret}` stands in the log:\n{}", found.join("\n"));
    }
}
