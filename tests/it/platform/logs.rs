//! Logs for a collector: every line is JSON, and none has what clients, workers or tokens say.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use helve::db::{Pool, migrate};
use helve_postgres::Database;
use helve_postgres::cluster::Cluster;
use serde_json::{Value, json};

use crate::support::process::EngineProcess;
use crate::support::{self, Http, Worker, fresh_database, options, until};

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
        .map(|line| {
            let read: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
            assert_eq!(read.to_string(), line, "a key stands there twice");
            read
        })
        .collect();
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string(), "{line}");
    }
    let requests = lines.iter().filter(|line| line["message"] == "answered").count();
    let said = |message: &str| {
        let line = lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("no line: {message}"));
        (line["span"]["request.id"].as_str().is_some_and(|id| id.starts_with("req_")), line)
    };
    let (has_id, refused) = said("a caller was not authenticated");
    assert!(has_id && refused["span"]["peer"] == "127.0.0.1" && refused["why"].is_string(), "{refused}");
    let (has_id, bad) = said("refused");
    assert!(has_id && bad["target"] == "helve::api::refused" && bad["code"].is_string(), "{bad}");
    let (_, worker) = said("worker connected");
    assert_eq!((&worker["name"], &worker["actions"]), (&json!("w1"), &json!("w")), "{worker}");
    // It is written by a task that the request has started.
    let (has_id, changed) = said("a workflow has changed");
    assert!(has_id, "{changed}");
    assert!(requests >= 8, "the log is at its finest level: {requests} of {}", lines.len());
    for secret in &secrets {
        assert!(secret.len() > 16, "{secret}");
        let found: Vec<_> = log.lines().filter(|line| line.contains(secret.as_str())).collect();
        assert!(found.is_empty(), "`{secret}` stands in the log:\n{}", found.join("\n"));
    }
}

/// Everything that needs the database finds out by itself that it is gone; an operator reads it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_is_one_line_at_its_begin_and_one_at_its_end() {
    let mut cluster = Cluster::start(options(false)).await.unwrap();
    let url = cluster.url("postgres");
    migrate::migrate(&Database::at(&url)).await.unwrap();
    let pool = Pool::new(&Database { pool_size: 2, ..Database::at(&url) }).unwrap();
    let (_, token) = support::provision(&pool, "logs").await;
    let mut engine = EngineProcess::start(&url, &[("HELVE_LOG", "info")]).await;
    let before = engine.log().len();
    let told = |words: &str| engine.log()[before..].matches(words).count();
    cluster.kill().await;
    until("the outage is told", || async { (told("cannot be reached; the next line") > 0).then_some(()) }).await;
    let http = Http::new(&engine.url, Some(&token));
    let refused = futures_util::future::join_all((0..8).map(|_| http.get("/v1/runs"))).await;
    for (status, problem) in refused {
        assert_eq!((status, &problem["code"]), (503, &json!("unavailable")));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.ends_with("a retry is safe") && !detail.contains("written"), "{detail}");
    }
    cluster.start_again().await.unwrap();
    until("its end is told", || async { (told("the database is back after") > 0).then_some(()) }).await;
    until("it reads again", || async { (http.get("/v1/runs").await.0 == 200).then_some(()) }).await;
    assert_eq!((told("cannot be reached; the next line"), told("the database is back after")), (1, 1));
    assert_eq!(told(" WARN "), 1, "{}", &engine.log()[before..]);
    engine.stop().await;
    cluster.stop().await;
}

/// `helve serve` with a standard error that the test holds.
struct Watched {
    child: Child,
    url: String,
    token: String,
}

impl Watched {
    async fn start(level: &str) -> Self {
        let database = fresh_database().await;
        let pool = Pool::new(&Database { pool_size: 2, ..Database::at(&database) }).unwrap();
        let (_, token) = support::provision(&pool, "logs").await;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(env!("CARGO_BIN_EXE_helve"))
            .args(["serve", "--listen", &address, "--allow-unsafe-settings"])
            .env("DATABASE_URL", &database)
            .env("HELVE_LOG", level)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, url: format!("http://{address}"), token }
    }

    fn http(&self) -> Http {
        Http::new(&self.url, Some(&self.token))
    }

    async fn ready(&self) {
        let http = self.http();
        until("the engine is ready", || async {
            let answer = http.try_request("GET", "/readyz", &[], "").await;
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        })
        .await;
    }

    /// Everything that logs: workers that come and go, changes, refusals.
    async fn work(&self, workers: usize) {
        let http = self.http();
        for n in 0..workers {
            let hello = support::hello(&format!("w{n}"), &["a"], 1);
            Worker::connect(&self.url, &self.token, hello).await.goodbye().await;
            assert_eq!(http.with_token(Some("helve_x")).get("/v1/runs").await.0, 401);
        }
        let definition = json!({"tasks": [{"name": "a"}]});
        assert_eq!(http.put("/v1/workflows/a", definition).await.0, 200);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_works_when_nobody_reads_its_log_any_more() {
    let mut engine = Watched::start("debug").await;
    drop(engine.child.stderr.take());
    engine.ready().await;
    engine.work(3).await;
    let page = engine.http().request("GET", "/metrics", &[], "").await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let dropped = page.lines().find_map(|line| line.strip_prefix("helve_log_lines_dropped_total ")).unwrap();
    assert!(dropped.parse::<u64>().unwrap() > 0, "{dropped}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(engine.child.id().cast_signed()), nix::sys::signal::SIGTERM)
        .unwrap();
    let child = std::cell::RefCell::new(&mut engine.child);
    let ended = until("it stops", || std::future::ready(child.borrow_mut().try_wait().unwrap())).await;
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_works_when_the_reader_of_its_log_is_stuck() {
    let mut engine = Watched::start("helve=trace").await;
    let unread = engine.child.stderr.take().unwrap();
    engine.ready().await;
    // Far more than the pipe holds.
    engine.work(120).await;
    let lines = std::thread::spawn(move || {
        let mut bytes = 0;
        for line in BufReader::new(unread).lines().map_while(Result::ok) {
            bytes += line.len();
            if line.contains("a workflow has changed") {
                return bytes;
            }
        }
        0
    });
    until("the log goes on where it stood", || async { lines.is_finished().then_some(()) }).await;
    let bytes = lines.join().unwrap();
    assert!(bytes > 64 << 10, "the pipe was full: {bytes}");
}
