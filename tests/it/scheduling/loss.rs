//! Workers that go away, come back, or never confirm.

use std::time::Duration;

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Builder, Worker, attempt, hello, worker};

both_ways! {
    with Builder::new().scheduling(|s| s.grace = Duration::from_millis(300));
    async fn after_the_grace_a_lost_workers_run_goes_to_another(engine) {
        engine.workflow("work").await;
        let mut first = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        first.task().await;
        drop(first);
        let mut second = worker(&engine, &["work"], 1).await;
        let task = second.task().await;
        assert_eq!((&task["run"], &task["attempt"]), (&run["id"], &json!(2)));
        second.finish(&task, json!("done")).await;
        let end = engine.run(&run["id"]).await;
        assert_eq!((&end["status"], &end["retries"]), (&json!("succeeded"), &json!(0)), "no retry was spent");
    }
}

both_ways! {
    async fn within_the_grace_a_worker_goes_on_where_it_was(engine) {
        engine.workflow("work").await;
        let mut first = worker(&engine, &["work"], 2).await;
        let run = engine.trigger("work", json!({})).await;
        let task = first.task().await;
        let mut again = hello("test", &["work"], 2);
        again["resume"] = json!({"session": first.welcome["session"], "secret": first.welcome["secret"],
                                 "holding": [attempt(&task)]});
        drop(first);
        let mut second = Worker::connect(&engine.url, &engine.token, again).await;
        assert_eq!(second.welcome["resumed"], true);
        assert_eq!(second.welcome["superseded"], json!([]));
        second.finish(&task, json!(1)).await;
        assert_eq!(engine.run(&run["id"]).await["attempt"], 1);
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.ack = Duration::from_millis(200));
    async fn an_assignment_that_is_not_confirmed_is_sent_again_and_then_taken_back(engine) {
        engine.workflow("work").await;
        let mut deaf = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        for _ in 0..3 {
            let frame = deaf.expect("assign").await;
            assert_eq!(frame["tasks"][0]["attempt"], 1, "the same attempt again");
        }
        assert_eq!(deaf.closed().await, 4410);
        let mut other = worker(&engine, &["work"], 1).await;
        let task = other.task().await;
        assert_eq!((&task["run"], &task["attempt"]), (&run["id"], &json!(2)));
        other.finish(&task, Value::Null).await;
    }
}

both_ways! {
    async fn a_goodbye_gives_everything_back_at_once(engine) {
        engine.workflow("work").await;
        let mut first = worker(&engine, &["work"], 5).await;
        for i in 0..5 {
            engine.trigger("work", json!(i)).await;
        }
        let mut held = 0;
        while held < 5 {
            held += first.find_tasks().await.len();
        }
        let mut second = worker(&engine, &["work"], 5).await;
        first.send(json!({"type": "goodbye"})).await;
        assert_eq!(first.closed().await, 1000);
        let mut taken = 0;
        while taken < 5 {
            for task in second.find_tasks().await {
                assert_eq!(task["attempt"], 2);
                taken += 1;
            }
        }
    }
}

both_ways! {
    async fn a_draining_worker_finishes_and_gets_nothing_new(engine) {
        engine.workflow("work").await;
        let mut first = worker(&engine, &["work"], 5).await;
        engine.trigger("work", json!(1)).await;
        let task = first.task().await;
        first.send(json!({"type": "drain"})).await;
        first.finish(&task, Value::Null).await;
        let run = engine.trigger("work", json!(2)).await;
        assert_eq!(run["status"], "queued");
        let mut second = worker(&engine, &["work"], 5).await;
        assert_eq!(second.task().await["run"], run["id"]);
    }
}
