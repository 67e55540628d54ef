//! Runs whose last failure keeps them for a person: parked, unparked, cancelled, over takeovers.

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::process::EngineProcess;
use crate::support::{Builder, Engine, Http, Worker, attempt, fresh_database, provision, until, worker};

fn parks(count: u32) -> Value {
    let rules = json!([{"codes": ["hopeless"], "retry": false, "on_exhausted": "fail"}]);
    json!({"retries": {"count": count, "base": "0s", "on_exhausted": "park", "rules": rules}})
}

async fn unpark(engine: &Engine, run: &Value) -> (u16, Value) {
    engine.post(&format!("/v1/runs/{}/unpark", run.as_str().unwrap()), json!(null)).await
}

/// A run that was parked by its only attempt.
async fn parked(engine: &Engine, worker: &mut Worker) -> Value {
    engine.workflow_with("work", parks(0)).await;
    let run = engine.trigger("work", json!({"n": 1})).await;
    let task = worker.task().await;
    assert_eq!(worker.fail(&task, json!({"message": "boom", "code": "x"})).await["status"], "parked");
    run["id"].clone()
}

both_ways! {
    async fn spent_retries_park_and_unpark_gives_them_again(engine) {
        engine.workflow_with("work", parks(1)).await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!(1)).await["id"].clone();
        for (number, status) in [(1, "queued"), (2, "parked")] {
            let task = worker.task().await;
            assert_eq!(task["attempt"], number);
            assert_eq!(worker.fail(&task, json!({"message": "boom", "code": "x"})).await["status"], status);
        }
        let found = engine.run(&run).await;
        assert_eq!((&found["status"], &found["retries"], &found["worker"]), (&json!("parked"), &json!(1), &Value::Null));
        assert_eq!((&found["error"]["code"], &found["finished_at"]), (&json!("x"), &Value::Null));
        let (_, list) = engine.get("/v1/runs?status=parked").await;
        assert_eq!(list["items"][0]["id"], run);
        let (status, back) = unpark(&engine, &run).await;
        assert_eq!((status, &back["retries"]), (200, &json!(0)), "{back}");
        assert!(["queued", "running"].contains(&back["status"].as_str().unwrap()), "{back}");
        let task = worker.task().await;
        assert_eq!((&task["attempt"], &task["input"]), (&json!(3), &json!(1)));
        assert_eq!(worker.fail(&task, json!({"message": "boom"})).await["status"], "queued", "a retry again");
        let task = worker.task().await;
        worker.finish(&task, json!("at last")).await;
        assert_eq!(engine.run(&run).await["output"], "at last");
        let sql = engine.sql().await;
        let rows = sql.query("select reason, state from run_transition order by at", &[]).await.unwrap();
        let told: Vec<(String, i16)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
        let expected = [("retry", 1), ("parked", 4), ("unparked", 1), ("retry", 1)];
        assert_eq!(told, expected.map(|(reason, state)| (reason.to_owned(), state)));
    }
}

both_ways! {
    async fn errors_that_are_not_retried_park_unless_a_rule_says_fail(engine) {
        engine.workflow_with("work", parks(5)).await;
        let mut worker = worker(&engine, &["work"], 1).await;
        for (error, status) in [
            (json!({"message": "m", "retryable": false}), "parked"),
            (json!({"message": "m", "code": "hopeless"}), "failed"),
        ] {
            let run = engine.trigger("work", json!(1)).await;
            let task = worker.task().await;
            assert_eq!(worker.fail(&task, error).await["status"], status);
            assert_eq!(engine.run(&run["id"]).await["status"], status);
        }
    }
}

both_ways! {
    async fn a_wait_goes_on_over_a_park(engine) {
        let mut worker = worker(&engine, &["work"], 1).await;
        engine.workflow_with("work", parks(0)).await;
        let plays = async {
            let task = worker.task().await;
            worker.fail(&task, json!({"message": "boom"})).await;
            assert_eq!(unpark(&engine, &task["run"]).await.0, 200);
            let again = worker.task().await;
            worker.finish(&again, json!("done")).await;
        };
        let body = json!({"workflow": "work"});
        let ((status, run), ()) = tokio::join!(engine.post("/v1/runs?wait=30s", body.clone()), plays);
        assert_eq!((status, &run["status"], &run["output"]), (200, &json!("succeeded"), &json!("done")));
        let plays = async {
            let task = worker.task().await;
            worker.fail(&task, json!({"message": "boom"})).await;
        };
        let ((status, run), ()) = tokio::join!(engine.post("/v1/runs?wait=1s", body), plays);
        assert_eq!((status, &run["status"]), (202, &json!("parked")), "not final");
    }
}

both_ways! {
    async fn only_a_parked_run_of_the_tenant_is_unparked(engine) {
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = parked(&engine, &mut worker).await;
        let other = engine.second_tenant().await;
        let path = format!("/v1/runs/{}/unpark", run.as_str().unwrap());
        assert_eq!(other.post(&path, json!(null)).await.0, 404);
        assert_eq!(engine.run(&run).await["status"], "parked");
        assert_eq!(unpark(&engine, &run).await.0, 200);
        let (status, problem) = unpark(&engine, &run).await;
        assert_eq!((status, &problem["code"], &problem["existing"]), (409, &json!("not_parked"), &run), "{problem}");
        let task = worker.task().await;
        worker.finish(&task, json!(1)).await;
        assert_eq!(unpark(&engine, &run).await.1["code"], "not_parked");
        let (status, problem) = engine.post("/v1/runs/run_x/unpark", json!(null)).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_id")));
        let (_, problem) = engine.post(&format!("{path}?hard=true"), json!(null)).await;
        assert_eq!(problem["status"], 400, "{problem}");
    }
}

both_ways! {
    async fn a_parked_run_is_cancelled_and_keeps_its_workflow(engine) {
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = parked(&engine, &mut worker).await;
        let deleted = engine.delete("/v1/workflows/work").await;
        assert_eq!(deleted.0, 409, "a parked run is open");
        let (status, end) = engine.post(&format!("/v1/runs/{}/cancel", run.as_str().unwrap()), json!(null)).await;
        assert_eq!((status, &end["status"]), (200, &json!("cancelled")), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_with_a_wrong_end_is_refused() {
    let engine = Builder::new().start().await;
    for retries in [
        json!({"count": 1, "on_exhausted": "hide"}),
        json!({"count": 1, "rules": [{"codes": ["x"], "on_exhausted": "later"}]}),
    ] {
        let definition = json!({"tasks": [{"name": "a", "retries": retries}]});
        let (status, problem) = engine.put("/v1/workflows/a", definition).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_field")), "{problem}");
        assert!(problem["pointer"].as_str().unwrap().ends_with("/on_exhausted"), "{problem}");
    }
}

/// The process is killed with a parked run in the rows, and again right after an unpark was answered.
async fn survives_kills(optimistic: bool) {
    let database = fresh_database().await;
    let pool = helve::db::Pool::new(&helve_postgres::Database::at(&database)).unwrap();
    let (_, token) = provision(&pool, "parked").await;
    let on = if optimistic { "on" } else { "off" };
    let mut engine = EngineProcess::start(&database, &[("HELVE_SCHEDULING_OPTIMISTIC", on)]).await;
    let http = Http::new(&engine.url, Some(&token));
    let mut task = parks(0);
    task["name"] = json!("work");
    assert_eq!(http.put("/v1/workflows/work", json!({"tasks": [task]})).await.0, 200);
    let connect = async |url: String| Worker::connect(&url, &token, crate::support::hello("w", &["work"], 1)).await;
    let mut first = connect(engine.url.clone()).await;
    let (_, run) = http.post("/v1/runs", json!({"workflow": "work"})).await;
    let task = first.task().await;
    first.fail(&task, json!({"message": "boom"})).await;
    engine.kill9();
    engine.restart().await;
    let path = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    assert_eq!(http.get(&path).await.1["status"], "parked");
    assert_eq!(http.post(&format!("{path}/unpark"), json!(null)).await.0, 200);
    engine.kill9();
    engine.restart().await;
    let mut second = connect(engine.url.clone()).await;
    let task = second.task().await;
    assert_eq!(attempt(&task), json!({"task_run": run["id"], "attempt": 2}));
    second.finish(&task, json!("kept")).await;
    until("the run has succeeded", || async { (http.get(&path).await.1["output"] == "kept").then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_and_unparked_runs_survive_kills_optimistic() {
    survives_kills(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_and_unparked_runs_survive_kills_queued() {
    survives_kills(false).await;
}
