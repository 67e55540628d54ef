//! Pauses as a worker and a caller notice them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Engine, Incoming, Worker, hello, until, worker};

const SHORT: Duration = Duration::from_millis(300);

async fn pause(engine: &Engine, path: &str, body: Value) -> Value {
    let (status, pause) = engine.post(&format!("/v1/{path}/pause"), body).await;
    assert_eq!((status, &pause["state"]), (200, &json!("paused")), "{pause}");
    pause
}

async fn resume(engine: &Engine, path: &str, body: Value) -> Value {
    let (status, answer) = engine.post(&format!("/v1/{path}/resume"), body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Takes tasks and ends each, until there were so many; their runs in the order of arrival.
async fn work(worker: &mut Worker, count: usize) -> Vec<Value> {
    let mut done = Vec::new();
    while done.len() < count {
        for task in worker.find_tasks().await {
            worker.report(&task, json!({"outcome": "succeeded", "output": null})).await;
            done.push(task["run"].clone());
        }
    }
    done
}

async fn triggers(engine: &Engine, workflow: &str, count: usize) -> Vec<Value> {
    let mut runs = Vec::new();
    for i in 0..count {
        runs.push(engine.trigger(workflow, json!(i)).await["id"].clone());
    }
    runs
}

both_ways! {
    async fn a_paused_workflow_waits_and_its_neighbour_goes_on(engine) {
        engine.workflow_with("slow", json!({"action": "work"})).await;
        engine.workflow_with("fast", json!({"action": "work"})).await;
        let mut worker = worker(&engine, &["work"], 2).await;
        pause(&engine, "workflows/slow", json!({"reason": "the shop is closed"})).await;
        let slow = triggers(&engine, "slow", 5).await;
        let fast = triggers(&engine, "fast", 5).await;
        assert_eq!(work(&mut worker, 5).await, fast);
        for run in &slow {
            assert_eq!(engine.run(run).await["status"], "queued");
        }
        // A deploy does not end the pause.
        engine.workflow_with("slow", json!({"action": "work", "retries": 1})).await;
        let shown = engine.get("/v1/workflows/slow").await.1;
        assert_eq!((&shown["version"], &shown["pause"]["reason"]), (&json!(2), &json!("the shop is closed")));
        let mut deploy = hello("deploys", &["other"], 1);
        deploy["workflows"] = json!([{"name": "slow", "tasks": [{"name": "slow", "action": "work", "retries": 2}]}]);
        Worker::connect(&engine.url, &engine.token, deploy).await.goodbye().await;
        assert_eq!(engine.get("/v1/workflows/slow").await.1["pause"]["state"], "paused");
        assert_eq!(resume(&engine, "workflows/slow", json!({})).await["state"], "open");
        assert_eq!(work(&mut worker, 5).await, slow);
        assert_eq!(engine.get("/v1/workflows/slow").await.1["pause"], Value::Null);
    }
}

/// A pause with triggers right before and after it.
async fn pause_between(engine: &Engine) -> (Vec<Value>, Value) {
    let before = engine.trigger("work", json!("before")).await;
    let pause = pause(engine, "workflows/work", json!({"reason": "now"})).await;
    let after = engine.trigger("work", json!("after")).await;
    assert_eq!(after["status"], "queued");
    (vec![before, after], pause)
}

/// Results may be confirmed, but nothing is assigned.
async fn nothing_comes(worker: &mut Worker) {
    loop {
        match worker.incoming(Duration::from_millis(100)).await {
            Incoming::Silence => return,
            Incoming::Frame(frame) => assert_ne!(frame["type"], "assign", "{frame}"),
            other => panic!("expected nothing, got {other:?}"),
        }
    }
}

both_ways! {
    async fn after_the_answer_nothing_is_assigned(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 500).await;
        for round in 0..5 {
            let all = futures_util::future::join_all((0..30).map(|i| engine.trigger("work", json!(i))));
            let ((more, pause), runs) = tokio::join!(pause_between(&engine), all);
            let runs = [runs, more].concat();
            assert_eq!(pause["by"]["name"], "test");
            // Whatever was decided before the answer is committed: nothing queued may turn into running any more.
            let mut running = 0;
            let mut queued = Vec::new();
            for run in &runs {
                match engine.run(&run["id"]).await["status"].as_str() {
                    Some("running") => running += 1,
                    Some("queued") => queued.push(run["id"].clone()),
                    other => panic!("round {round}: {other:?}"),
                }
            }
            work(&mut worker, running).await;
            nothing_comes(&mut worker).await;
            for run in &queued {
                assert_eq!(engine.run(run).await["status"], "queued");
            }
            resume(&engine, "workflows/work", json!({})).await;
            work(&mut worker, queued.len()).await;
            for run in &runs {
                engine.run_is(&run["id"], "succeeded").await;
            }
        }
    }
}

both_ways! {
    async fn an_action_and_a_worker_can_be_paused(engine) {
        engine.workflow("work").await;
        let mut first = worker(&engine, &["work"], 1).await;
        let mut second = worker(&engine, &["work"], 5).await;
        let id = second.welcome["worker"].as_str().unwrap().to_owned();
        pause(&engine, &format!("workers/{id}"), json!({"reason": "looks ill"})).await;
        let workers = engine.get("/v1/workers").await.1;
        let shown = workers["items"].as_array().unwrap().iter().find(|w| w["id"] == json!(id)).unwrap();
        assert_eq!((&shown["pause"]["state"], &shown["pause"]["reason"]), (&json!("paused"), &json!("looks ill")));
        let runs = triggers(&engine, "work", 6).await;
        assert_eq!(work(&mut first, 6).await, runs);
        pause(&engine, "actions/work", json!({"reason": "its database is down"})).await;
        resume(&engine, &format!("workers/{id}"), json!({})).await;
        let runs = triggers(&engine, "work", 5).await;
        second.expect_silence(SHORT).await;
        resume(&engine, "actions/work", json!({})).await;
        let (by_first, by_second) = tokio::join!(first.find_tasks(), work(&mut second, 4));
        assert_eq!(by_first.len() + by_second.len(), runs.len());
    }
}

both_ways! {
    async fn a_running_task_ends_and_its_retry_waits_for_the_resume(engine) {
        engine.workflow_with("work", json!({"retries": {"count": 1, "base": "10ms", "jitter": false}})).await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!(1)).await;
        let task = worker.task().await;
        pause(&engine, "workflows/work", json!({"reason": "hands off"})).await;
        worker.fail(&task, json!({"message": "boom"})).await;
        engine.run_is(&run["id"], "queued").await;
        worker.expect_silence(SHORT).await;
        resume(&engine, "workflows/work", json!({})).await;
        let again = worker.find_tasks().await.remove(0);
        assert_eq!((&again["run"], &again["attempt"]), (&run["id"], &json!(2)));
    }
}

both_ways! {
    async fn a_pause_ends_by_itself(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let pause = pause(&engine, "workflows/work", json!({"reason": "a moment", "expires_in": "700ms"})).await;
        assert!(pause["expires_at"].is_string());
        let run = engine.trigger("work", json!(1)).await;
        assert_eq!(run["status"], "queued");
        assert_eq!(worker.task().await["run"], run["id"]);
        until("the pause is gone", || async {
            engine.get("/v1/pauses").await.1["items"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    }
}

both_ways! {
    async fn a_gentle_resume_keeps_its_rate(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 100).await;
        pause(&engine, "workflows/work", json!({"reason": "the other side is ill"})).await;
        let runs = triggers(&engine, "work", 20).await;
        let began = tokio::time::Instant::now();
        let answer = resume(&engine, "workflows/work", json!({"rate": 20})).await;
        assert_eq!((&answer["state"], &answer["rate"]), (&json!("resuming"), &json!(20.0)));
        assert_eq!(engine.get("/v1/pauses").await.1["items"][0]["state"], "resuming");
        assert_eq!(work(&mut worker, 20).await, runs, "in order");
        // 20 a second with two in store: the last one comes 0.9 s after the first at the earliest.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(850), "{took:?}");
        until("the gentle start is over", || async {
            (engine.get("/v1/workflows/work").await.1["pause"] == Value::Null).then_some(())
        })
        .await;
    }
}

both_ways! {
    async fn a_takeover_keeps_a_pause(engine) {
        engine.workflow("work").await;
        let first = worker(&engine, &["work"], 5).await;
        let id = first.welcome["worker"].as_str().unwrap().to_owned();
        let mut again = hello("test", &["work"], 5);
        again["resume"] = first.resume(&[]);
        pause(&engine, "workflows/work", json!({"reason": "kept"})).await;
        pause(&engine, "actions/other", json!({"reason": "kept", "expires_in": "1h"})).await;
        pause(&engine, &format!("workers/{id}"), json!({"reason": "kept"})).await;
        let runs = triggers(&engine, "work", 3).await;
        let engine = engine.restart().await;
        let mut second = Worker::connect(&engine.url, &engine.token, again).await;
        assert_eq!(second.welcome["resumed"], true);
        assert_eq!(engine.get("/v1/pauses").await.1["items"].as_array().unwrap().len(), 3);
        second.expect_silence(SHORT).await;
        resume(&engine, "workflows/work", json!({})).await;
        second.expect_silence(SHORT).await;
        resume(&engine, &format!("workers/{id}"), json!({})).await;
        assert_eq!(work(&mut second, 3).await, runs);
    }
}
