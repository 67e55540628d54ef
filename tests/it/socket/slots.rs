//! Slots that a worker gives back early, and labels that it changes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::process::EngineProcess;
use crate::support::{Builder, Engine, Http, Worker, attempt, fresh_database, hello, provision, until, worker};

async fn free(worker: &mut Worker, task: &Value) {
    worker.send(json!({"type": "free_slot", "tasks": [attempt(task)]})).await;
}

async fn freed(worker: &mut Worker, task: &Value) {
    assert_eq!(worker.find("freed").await["tasks"], json!([attempt(task)]));
}

/// The next task, passing over other frames.
async fn next(worker: &mut Worker) -> Value {
    worker.find_tasks().await.remove(0)
}

async fn used(engine: &Engine) -> Value {
    let (_, list) = engine.get("/v1/workers").await;
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w["slots"]["default"]["used"].as_u64().unwrap())
        .sum::<u64>()
        .into()
}

both_ways! {
    async fn a_slot_given_back_takes_the_next_run(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let runs = [engine.trigger("work", json!(1)).await, engine.trigger("work", json!(2)).await];
        let first = next(&mut worker).await;
        free(&mut worker, &first).await;
        freed(&mut worker, &first).await;
        let second = next(&mut worker).await;
        assert_eq!([&first["run"], &second["run"]], [&runs[0]["id"], &runs[1]["id"]]);
        for run in &runs {
            assert_eq!(engine.run(&run["id"]).await["status"], "running");
        }
        free(&mut worker, &first).await;
        freed(&mut worker, &first).await;
        let third = engine.trigger("work", json!(3)).await;
        assert_eq!((&third["status"], used(&engine).await), (&json!("queued"), json!(1)), "twice is once");
        worker.finish(&first, json!("slotless")).await;
        assert_eq!(engine.run(&third["id"]).await["status"], "queued", "its end frees nothing more");
        worker.finish(&second, json!(2)).await;
        assert_eq!(next(&mut worker).await["run"], third["id"]);
        assert_eq!(engine.run(&runs[0]["id"]).await["output"], "slotless");
    }
}

both_ways! {
    async fn only_the_holder_gives_a_slot_back(engine) {
        engine.workflow("work").await;
        let mut ours = worker(&engine, &["work"], 1).await;
        let other = engine.second_tenant().await;
        let mut theirs = Worker::connect(&engine.url, &other.token, hello("theirs", &["work"], 1)).await;
        let mut colleague = worker(&engine, &["other"], 1).await;
        engine.trigger("work", json!(1)).await;
        let task = ours.task().await;
        for stranger in [&mut theirs, &mut colleague] {
            free(stranger, &task).await;
            let told = stranger.expect("superseded").await;
            assert_eq!(told["tasks"][0]["reason"], "unknown");
        }
        let (status, _) = engine.get("/v1/workers").await;
        assert_eq!((status, used(&engine).await), (200, json!(1)));
        ours.finish(&task, json!(1)).await;
        free(&mut ours, &task).await;
        assert_eq!(ours.expect("superseded").await["tasks"][0]["reason"], "unknown");
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.grace = Duration::from_millis(300));
    async fn a_lost_worker_loses_also_what_holds_no_slot(engine) {
        engine.workflow("work").await;
        let mut first = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!(1)).await;
        let task = first.task().await;
        free(&mut first, &task).await;
        freed(&mut first, &task).await;
        drop(first);
        let mut second = worker(&engine, &["work"], 1).await;
        let again = second.task().await;
        assert_eq!((&again["run"], &again["attempt"]), (&run["id"], &json!(2)));
        let waits = engine.trigger("work", json!(2)).await;
        assert_eq!(waits["status"], "queued", "the new attempt has a slot of its own");
    }
}

/// Killed right after `freed`: the successor does not count the slot as held.
async fn survives_a_kill(optimistic: bool) {
    let database = fresh_database().await;
    let pool = helve::db::Pool::new(&helve_postgres::Database::at(&database)).unwrap();
    let (_, token) = provision(&pool, "slots").await;
    let on = if optimistic { "on" } else { "off" };
    let mut engine = EngineProcess::start(&database, &[("HELVE_SCHEDULING_OPTIMISTIC", on)]).await;
    let http = Http::new(&engine.url, Some(&token));
    assert_eq!(http.put("/v1/workflows/work", json!({"tasks": [{"name": "work"}]})).await.0, 200);
    let mut first = Worker::connect(&engine.url, &token, hello("w", &["work"], 1)).await;
    let mut tasks = Vec::new();
    for _ in 0..2 {
        http.post("/v1/runs", json!({"workflow": "work"})).await;
        let task = next(&mut first).await;
        if tasks.is_empty() {
            free(&mut first, &task).await;
            freed(&mut first, &task).await;
        }
        tasks.push(task);
    }
    first.send(json!({"type": "labels", "labels": {"zone": "b"}})).await;
    let labelled = || async { (http.get("/v1/workers").await.1["items"][0]["labels"]["zone"] == "b").then_some(()) };
    until("the labels are known", labelled).await;
    // A change of a worker is committed in order: when this answer is there, the labels are in its row.
    first.finish(&tasks[1], json!(2)).await;
    engine.kill9();
    engine.restart().await;
    let mut again = hello("w", &["work"], 1);
    again["labels"] = json!({"zone": "c"});
    let listed = http.get("/v1/workers").await.1["items"][0].clone();
    assert_eq!((&listed["labels"]["zone"], &listed["slots"]["default"]["used"]), (&json!("b"), &json!(0)), "{listed}");
    again["resume"] = json!({"session": first.welcome["session"], "secret": first.welcome["secret"],
                             "holding": [attempt(&tasks[0])]});
    let mut second = Worker::connect(&engine.url, &token, again).await;
    assert_eq!((&second.welcome["resumed"], &second.welcome["superseded"]), (&json!(true), &json!([])));
    let (_, run) = http.post("/v1/runs", json!({"workflow": "work"})).await;
    let third = next(&mut second).await;
    assert_eq!(third["run"], run["id"], "beside the one without a slot");
    for task in [&tasks[0], &third] {
        second.finish(task, json!("kept")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_given_back_stays_so_over_a_kill_optimistic() {
    survives_a_kill(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_given_back_stays_so_over_a_kill_queued() {
    survives_a_kill(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_frames_change_nothing() {
    let engine = Builder::new().start().await;
    engine.workflow("work").await;
    let mut introduction = hello("test", &["work"], 1);
    introduction["labels"] = json!({"zone": "a"});
    let mut worker = Worker::connect(&engine.url, &engine.token, introduction).await;
    engine.trigger("work", json!(1)).await;
    let task = worker.task().await;
    let many: serde_json::Map<String, Value> = (0..65).map(|i| (format!("l{i}"), json!("x"))).collect();
    for (frame, pointer) in [
        (json!({"type": "labels"}), "/labels"),
        (json!({"type": "labels", "labels": {"zone": 1}}), "/labels/zone"),
        (json!({"type": "labels", "labels": {"": "x"}}), "/labels"),
        (json!({"type": "labels", "labels": many}), "/labels"),
        (json!({"type": "free_slot", "tasks": [{"task_run": task["task_run"]}]}), "/tasks/0/attempt"),
        (json!({"type": "free_slot", "tasks": {}}), "/tasks"),
    ] {
        worker.send(frame.clone()).await;
        let error = worker.expect("error").await;
        assert_eq!((&error["code"], &error["pointer"]), (&json!("bad_frame"), &json!(pointer)), "{frame}");
    }
    let (_, list) = engine.get("/v1/workers").await;
    assert_eq!((&list["items"][0]["labels"], used(&engine).await), (&json!({"zone": "a"}), json!(1)));
    worker.send(json!({"type": "labels", "labels": {"gpu": "a100"}})).await;
    let labels = || async { Some(engine.get("/v1/workers").await.1["items"][0]["labels"].clone()) };
    until("the labels are replaced", || async { (labels().await? == json!({"gpu": "a100"})).then_some(()) }).await;
}
