//! The engine dies while something is paused, and while a pause is being written.

use helve::db::Pool;
use helve_postgres::Database;
use serde_json::{Value, json};

use crate::support::process::EngineProcess;
use crate::support::{Http, Worker, fresh_database, hello, provision, until};

/// What a test holds on to over the engine's deaths.
struct Setting {
    engine: EngineProcess,
    http: Http,
    token: String,
}

impl Setting {
    async fn start(optimistic: bool, failpoints: &str) -> Self {
        let database = fresh_database().await;
        let pool = Pool::new(&Database { pool_size: 1, ..Database::at(&database) }).unwrap();
        let (_, token) = provision(&pool, "pauses").await;
        let optimistic = if optimistic { "on" } else { "off" };
        let env = [("HELVE_SCHEDULING_OPTIMISTIC", optimistic), ("HELVE_FAILPOINTS", failpoints)];
        let engine = EngineProcess::start(&database, &env).await;
        let http = Http::new(&engine.url, Some(&token));
        let (status, body) = http.put("/v1/workflows/w", json!({"tasks": [{"name": "w"}]})).await;
        assert_eq!(status, 200, "{body}");
        Self { engine, http, token }
    }

    async fn trigger(&self) -> Value {
        let (status, run) = self.http.post("/v1/runs", json!({"workflow": "w"})).await;
        assert_eq!((status, &run["status"]), (201, &json!("queued")), "{run}");
        run["id"].clone()
    }

    async fn connect(&self) -> Worker {
        Worker::connect(&self.engine.url, &self.token, hello("w", &["w"], 10)).await
    }
}

async fn killed_while_paused(optimistic: bool) {
    let mut s = Setting::start(optimistic, "").await;
    assert_eq!(s.http.post("/v1/workflows/w/pause", json!({"reason": "standing"})).await.0, 200);
    let mut runs = vec![s.trigger().await];
    for _ in 0..3 {
        s.engine.kill9();
        s.engine.restart().await;
        let mut worker = s.connect().await;
        runs.push(s.trigger().await);
        worker.expect_silence(std::time::Duration::from_millis(200)).await;
        assert_eq!(s.http.get("/v1/pauses").await.1["items"][0]["reason"], "standing");
        worker.goodbye().await;
    }
    let mut worker = s.connect().await;
    assert_eq!(s.http.post("/v1/workflows/w/resume", json!({"rate": 100})).await.0, 200);
    let mut started = Vec::new();
    while started.len() < runs.len() {
        started.extend(worker.find_tasks().await.iter().map(|t| t["run"].clone()));
    }
    assert_eq!(started, runs);
    s.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_pause_survives_kills_optimistic() {
    killed_while_paused(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_pause_survives_kills_queued() {
    killed_while_paused(false).await;
}

/// The answer of the statement that writes the pause is lost: it is resolved, and the caller is told the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_whose_commit_was_not_answered_is_written_again() {
    let mut s = Setting::start(true, "lane.finish.after_send=error@1").await;
    let mut worker = s.connect().await;
    let (status, pause) = s.http.post("/v1/workflows/w/pause", json!({"reason": "unsure"})).await;
    assert_eq!((status, &pause["state"]), (200, &json!("paused")), "{pause}");
    let run = s.trigger().await;
    assert_eq!(s.http.get("/v1/pauses").await.1["items"].as_array().unwrap().len(), 1);
    assert_eq!(s.http.post("/v1/workflows/w/resume", json!({})).await.0, 200);
    assert_eq!(worker.task().await["run"], run);
    s.engine.stop().await;
}

/// The engine dies before or after the pause is committed, and its caller gets no answer: the pause stands or not, and
/// nothing is stuck either way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_dies_with_a_pause_in_its_hands() {
    for (point, stands) in [("lane.finish.before_send", false), ("lane.finish.after_send", true)] {
        let mut s = Setting::start(true, &format!("{point}=exit@1")).await;
        // The answer never comes; how the client notices is of no interest.
        let _ = s.http.try_request("POST", "/v1/workflows/w/pause", &[], r#"{"reason":"dies"}"#).await;
        s.engine.ended().await;
        s.engine.set("HELVE_FAILPOINTS", "");
        s.engine.restart().await;
        let paused = s.http.get("/v1/pauses").await.1["items"].as_array().unwrap().len() == 1;
        assert_eq!(paused, stands, "{point}");
        s.http.post("/v1/workflows/w/resume", json!({})).await;
        let mut worker = s.connect().await;
        let (_, run) = s.http.post("/v1/runs", json!({"workflow": "w"})).await;
        assert_eq!(worker.task().await["run"], run["id"]);
        until("the pause is gone", || async {
            s.http.get("/v1/pauses").await.1["items"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
        s.engine.stop().await;
    }
}
