//! Runs that ask for workers with labels: who gets them, and what they do not hold up.

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::process::EngineProcess;
use crate::support::{Builder, Engine, Http, Worker, fresh_database, hello, provision, until};

fn labelled(labels: &Value, slots: u32) -> Value {
    let mut hello = hello("test", &["work"], slots);
    hello["labels"] = labels.clone();
    hello
}

async fn connect(engine: &Engine, labels: Value, slots: u32) -> Worker {
    Worker::connect(&engine.url, &engine.token, labelled(&labels, slots)).await
}

fn gpu() -> Value {
    json!([{"key": "gpu", "op": "eq", "value": "yes"}])
}

async fn trigger(engine: &Engine, labels: Value) -> Value {
    let (status, run) = engine.post("/v1/runs", json!({"workflow": "work", "labels": labels})).await;
    assert_eq!(status, 201, "{run}");
    run["id"].clone()
}

both_ways! {
    async fn a_task_goes_to_a_worker_with_its_labels_only(engine) {
        engine.workflow_with("work", json!({"labels": gpu()})).await;
        let mut plain = connect(&engine, json!({"gpu": "no"}), 5).await;
        let mut fit = connect(&engine, json!({"gpu": "yes"}), 1).await;
        let runs = [engine.trigger("work", json!(1)).await, engine.trigger("work", json!(2)).await];
        for run in &runs {
            let task = fit.task().await;
            assert_eq!(task["run"], run["id"]);
            fit.finish(&task, json!(0)).await;
        }
        let own = trigger(&engine, json!([])).await;
        assert_eq!(plain.task().await["run"], own, "a run with no labels of its own asks for none");
        plain.expect_silence(std::time::Duration::from_millis(50)).await;
    }
}

both_ways! {
    async fn what_nobody_can_take_blocks_nothing_and_new_labels_wake_it(engine) {
        engine.workflow("work").await;
        let mut worker = connect(&engine, json!({}), 1).await;
        let blocked = trigger(&engine, gpu()).await;
        let plain = trigger(&engine, json!([])).await;
        let task = worker.task().await;
        let (_, why) = engine.get(&format!("/v1/runs/{}/why", blocked.as_str().unwrap())).await;
        assert_eq!(why["details"]["workers"][0]["lacks"], json!(["gpu=yes"]), "{why}");
        assert!(why["text"].as_str().unwrap().contains("lacks the labels that it requires, gpu=yes"), "{why}");
        assert_eq!(task["run"], plain);
        worker.finish(&task, json!(0)).await;
        assert_eq!(engine.run(&blocked).await["status"], "queued");
        worker.send(json!({"type": "labels", "labels": {"gpu": "yes"}})).await;
        let task = worker.task().await;
        assert_eq!(task["run"], blocked);
        worker.finish(&task, json!(0)).await;
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.window = 4);
    async fn a_backlog_that_nobody_can_take_hides_nothing(engine) {
        engine.workflow("work").await;
        let mut items = vec![json!({"workflow": "work", "labels": gpu()}); 11];
        items.extend(vec![json!({"workflow": "work"}); 3]);
        let (status, answer) = engine.post("/v1/runs/bulk", json!({"runs": items})).await;
        assert_eq!((status, &answer["results"][13]["status"]), (200, &json!(201)), "{answer}");
        let id = |i: usize| answer["results"][i]["run"]["id"].clone();
        let mut worker = connect(&engine, json!({}), 1).await;
        for i in 11..14 {
            let task = worker.find_tasks().await.remove(0);
            assert_eq!(task["run"], id(i));
            worker.finish(&task, json!(0)).await;
        }
        let mut fit = connect(&engine, json!({"gpu": "yes"}), 1).await;
        for i in 0..11 {
            let task = fit.find_tasks().await.remove(0);
            assert_eq!(task["run"], id(i), "in order");
            fit.finish(&task, json!(0)).await;
        }
    }
}

both_ways! {
    async fn a_preferred_worker_goes_first_and_the_others_are_no_less_able(engine) {
        let labels = json!([{"key": "zone", "op": "in", "values": ["a", "b"], "required": false, "weight": 10},
                            {"key": "cpus", "op": "gt", "value": "8", "required": false}]);
        engine.workflow_with("work", json!({"labels": labels})).await;
        let mut far = connect(&engine, json!({"cpus": "8"}), 1).await;
        let mut large = connect(&engine, json!({"cpus": "16"}), 1).await;
        let mut near = connect(&engine, json!({"zone": "b"}), 1).await;
        for worker in [&mut near, &mut large, &mut far] {
            let run = engine.trigger("work", json!(0)).await;
            assert_eq!(worker.task().await["run"], run["id"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_labels_are_refused() {
    let engine = Builder::new().start().await;
    engine.workflow("work").await;
    for (labels, pointer) in [
        (json!({"gpu": "yes"}), "/labels"),
        (json!([{"key": "gpu", "op": "like", "value": "y"}]), "/labels/0/op"),
        (json!([{"key": "gpu", "op": "eq"}]), "/labels/0/value"),
        (json!([{"key": "gpu", "op": "gt", "value": "x"}]), "/labels/0/value"),
        (json!([{"key": "gpu", "op": "exists", "weight": 3}]), "/labels/0/weight"),
        (json!(vec![json!({"key": "k", "op": "exists"}); 17]), "/labels"),
        (json!([{"key": "k", "op": "exists", "extra": 1}]), "/labels/0/extra"),
    ] {
        let (status, problem) = engine.post("/v1/runs", json!({"workflow": "work", "labels": labels})).await;
        assert_eq!((status, &problem["pointer"]), (400, &json!(pointer)), "{labels}: {problem}");
        let definition = json!({"tasks": [{"name": "a", "labels": labels}]});
        let (status, problem) = engine.put("/v1/workflows/a", definition).await;
        assert_eq!((status, &problem["pointer"]), (400, &json!(format!("/tasks/0{pointer}"))), "{problem}");
    }
    let bulk = json!({"runs": [{"workflow": "work", "labels": [{"key": "k", "op": "ne"}]}]});
    let (_, answer) = engine.post("/v1/runs/bulk", bulk).await;
    let problem = &answer["results"][0]["problem"];
    assert_eq!(problem["pointer"], "/runs/0/labels/0/value", "{answer}");
}

/// Killed with a run that has labels of its own in the queue: the successor keeps to them, and so does its retry.
async fn survives_a_kill(optimistic: bool) {
    let database = fresh_database().await;
    let pool = helve::db::Pool::new(&helve_postgres::Database::at(&database)).unwrap();
    let (_, token) = provision(&pool, "labels").await;
    let on = if optimistic { "on" } else { "off" };
    let mut engine = EngineProcess::start(&database, &[("HELVE_SCHEDULING_OPTIMISTIC", on)]).await;
    let http = Http::new(&engine.url, Some(&token));
    let definition = json!({"tasks": [{"name": "work", "retries": {"count": 1, "base": "0s"}}]});
    assert_eq!(http.put("/v1/workflows/work", definition).await.0, 200);
    let (status, own) = http.post("/v1/runs", json!({"workflow": "work", "labels": gpu()})).await;
    assert_eq!(status, 201, "{own}");
    engine.kill9();
    engine.restart().await;
    let mut plain = Worker::connect(&engine.url, &token, labelled(&json!({}), 5)).await;
    let (_, other) = http.post("/v1/runs", json!({"workflow": "work"})).await;
    assert_eq!(plain.task().await["run"], other["id"]);
    let mut fit = Worker::connect(&engine.url, &token, labelled(&json!({"gpu": "yes"}), 1)).await;
    let task = fit.task().await;
    assert_eq!(task["run"], own["id"]);
    fit.fail(&task, json!({"message": "boom"})).await;
    let again = fit.find_tasks().await.remove(0);
    assert_eq!((&again["run"], &again["attempt"]), (&own["id"], &json!(2)));
    fit.finish(&again, json!("kept")).await;
    let path = format!("/v1/runs/{}", own["id"].as_str().unwrap());
    until("the run has succeeded", || async { (http.get(&path).await.1["output"] == "kept").then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_of_a_run_survive_a_kill_optimistic() {
    survives_a_kill(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_of_a_run_survive_a_kill_queued() {
    survives_a_kill(false).await;
}
