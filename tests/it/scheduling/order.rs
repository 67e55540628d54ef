//! Who is next, and how many at once.

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Builder, attempt, worker};

both_ways! {
    async fn runs_start_in_the_order_of_their_triggers_and_higher_priorities_first(engine) {
        engine.workflow("work").await;
        let mut expected = Vec::new();
        for (priority, n) in [(1, 5), (2, 5), (4, 5)] {
            let mut of_class = Vec::new();
            for i in 0..n {
                let body = json!({"workflow": "work", "input": i, "priority": priority});
                let (status, run) = engine.post("/v1/runs", body).await;
                assert_eq!(status, 201, "{run}");
                of_class.push(run["id"].clone());
            }
            expected.splice(0..0, of_class);
        }
        let mut worker = worker(&engine, &["work"], 1).await;
        let mut started = Vec::new();
        for _ in 0..expected.len() {
            let task = worker.task().await;
            started.push(task["run"].clone());
            worker.finish(&task, Value::Null).await;
        }
        assert_eq!(started, expected);
    }
}

both_ways! {
    async fn a_worker_never_has_more_than_its_slots(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 3).await;
        let triggers = (0..40).map(|i| engine.trigger("work", json!(i)));
        let runs = futures_util::future::join_all(triggers).await;
        let (mut held, mut done, mut most) = (Vec::new(), 0, 0);
        while done < runs.len() {
            while held.len() < 3.min(runs.len() - done) {
                held.extend(worker.find_tasks().await);
            }
            most = most.max(held.len());
            let task = held.remove(0);
            worker.report(&task, json!({"outcome": "succeeded", "output": null})).await;
            done += 1;
        }
        assert_eq!(most, 3, "never more, and all of them used");
        for run in &runs {
            engine.run_is(&run["id"], "succeeded").await;
        }
    }
}

both_ways! {
    async fn kinds_and_costs_of_slots_are_kept_apart(engine) {
        engine.workflow_with("big", json!({"slots": {"gpu": 2}})).await;
        engine.workflow("small").await;
        let mut hello = crate::support::hello("gpu", &["big", "small"], 1);
        hello["slots"] = json!({"default": 1, "gpu": 3});
        let mut worker = crate::support::Worker::connect(&engine.url, &engine.token, hello).await;
        let first = engine.trigger("big", json!(1)).await;
        let second = engine.trigger("big", json!(2)).await;
        let small = engine.trigger("small", json!(3)).await;
        let mut tasks = worker.find_tasks().await;
        while tasks.len() < 2 {
            tasks.extend(worker.find_tasks().await);
        }
        let runs: Vec<_> = tasks.iter().map(|t| t["run"].clone()).collect();
        assert!(runs.contains(&first["id"]) && runs.contains(&small["id"]), "{runs:?}");
        assert_eq!(engine.run(&second["id"]).await["status"], "queued", "three slots are not enough for two of cost two");
        let big = tasks.iter().find(|t| t["run"] == first["id"]).unwrap();
        worker.report(big, json!({"outcome": "succeeded", "output": null})).await;
        engine.run_is(&second["id"], "running").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_optimistic_share_is_high_with_free_slots_and_zero_when_off() {
    for (on, least, most) in [(true, 95, 100), (false, 0, 0)] {
        let engine = Builder::new().optimistic(on).start().await;
        engine.workflow("work").await;
        let _worker = worker(&engine, &["work"], 200).await;
        let mut at_once = 0;
        for i in 0..100 {
            let run = engine.trigger("work", json!(i)).await;
            at_once += i32::from(run["status"] == "running" && run["attempt"] == 1);
        }
        assert!((least..=most).contains(&at_once), "optimistic {on}: {at_once} of 100 were created assigned");
    }
}

both_ways! {
    async fn a_cancel_and_a_result_that_meet_give_one_end(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        for i in 0..30 {
            let run = engine.trigger("work", json!(i)).await;
            let task = worker.find_tasks().await.remove(0);
            let path = format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap());
            let cancel = engine.post(&path, json!({}));
            let report = worker.report(&task, json!({"outcome": "succeeded", "output": i}));
            let ((status, body), ()) = tokio::join!(cancel, report);
            let end = engine.run(&run["id"]).await;
            match status {
                200 => assert_eq!(end["status"], "cancelled", "{end}"),
                409 => assert_eq!((&end["status"], &body["code"]), (&json!("succeeded"), &json!("already_finished"))),
                other => panic!("{other}: {body}"),
            }
            assert_eq!(attempt(&task)["attempt"], 1);
        }
    }
}
