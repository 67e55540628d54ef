//! A session survives its sockets, and belongs to one worker.

use serde_json::{Value, json};

use super::ready;
use crate::both_ways;
use crate::support::{Worker, attempt, hello};

fn resuming(of: &Worker, secret: &Value, holding: &[Value]) -> Value {
    let mut frame = hello("test", &["work"], 2);
    let holding: Vec<_> = holding.iter().map(attempt).collect();
    frame["resume"] = json!({"session": of.welcome["session"], "secret": secret, "holding": holding});
    frame
}

both_ways! {
    async fn work_goes_on_over_a_new_socket(engine) {
        let mut first = ready(&engine).await;
        let run = engine.trigger("work", json!({})).await;
        let task = first.task().await;
        let resume = resuming(&first, &first.welcome["secret"], std::slice::from_ref(&task));
        drop(first.socket);
        let mut second = Worker::connect(&engine.url, &engine.token, resume).await;
        assert_eq!(second.welcome["resumed"], true);
        assert_eq!(second.welcome["superseded"], json!([]));
        second.finish(&task, json!("kept")).await;
        let run = engine.run(&run["id"]).await;
        assert_eq!((&run["output"], &run["attempt"]), (&json!("kept"), &json!(1)));
    }
}

both_ways! {
    async fn a_newer_socket_replaces_the_older(engine) {
        let mut first = ready(&engine).await;
        let frame = resuming(&first, &first.welcome["secret"], &[]);
        let second = Worker::connect(&engine.url, &engine.token, frame).await;
        assert_eq!(second.welcome["resumed"], true);
        assert_eq!(second.welcome["worker"], first.welcome["worker"]);
        assert_eq!(first.closed().await, 4409);
    }
}

both_ways! {
    async fn a_session_is_not_taken_over_with_a_wrong_secret_or_from_another_tenant(engine) {
        let mut first = ready(&engine).await;
        engine.trigger("work", json!({})).await;
        let task = first.task().await;
        let other = engine.second_tenant().await;
        let wrong = json!("0".repeat(64));
        let attempts = [
            (&engine.token, &wrong),
            (&engine.token, &first.welcome["session"]),
            (&other.token, &first.welcome["secret"]),
        ];
        for (token, secret) in attempts {
            let frame = resuming(&first, secret, std::slice::from_ref(&task));
            let mut thief = Worker::connect(&engine.url, token, frame).await;
            assert_eq!(thief.welcome["resumed"], false);
            assert_ne!(thief.welcome["session"], first.welcome["session"]);
            assert_eq!(attempt(&thief.welcome["superseded"][0]), attempt(&task));
            thief.send(json!({"type": "goodbye"})).await;
            assert_eq!(thief.closed().await, 1000);
        }
        first.finish(&task, json!("still mine")).await;
    }
}

both_ways! {
    async fn what_the_worker_no_longer_holds_goes_to_others(engine) {
        let mut first = ready(&engine).await;
        let run = engine.trigger("work", json!({})).await;
        let task = first.task().await;
        let frame = resuming(&first, &first.welcome["secret"], &[]);
        drop(first.socket);
        let mut second = Worker::connect(&engine.url, &engine.token, frame).await;
        assert_eq!(attempt(&second.expect("superseded").await["tasks"][0]), attempt(&task));
        let again = second.task().await;
        assert_eq!((&again["task_run"], &again["attempt"]), (&run["id"], &json!(2)));
        second.report(&task, json!({"outcome": "succeeded", "output": "stale"})).await;
        second.expect("superseded").await;
        second.finish(&again, json!("right")).await;
        assert_eq!(engine.run(&run["id"]).await["output"], "right");
    }
}
