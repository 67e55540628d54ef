//! The frame `progress`, and the run that shows it.

use serde_json::{Value, json};

use super::progress;
use crate::both_ways;
use crate::support::{Engine, Worker, hello, until, worker};

async fn shows(engine: &Engine, run: &Value, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, || async {
        let run = engine.run(&run["id"]).await;
        wanted(&run["progress"]).then_some(run)
    })
    .await
}

both_ways! {
    async fn the_run_shows_the_last_progress(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        assert!(engine.run(&run["id"]).await.get("progress").is_none());
        let task = worker.task().await;
        worker.send(progress(&task, json!({"fraction": 0.25, "data": {"file": "a.png"}}))).await;
        let shown = shows(&engine, &run, "the first progress", |p| p["fraction"] == 0.25).await;
        assert_eq!((&shown["progress"]["attempt"], &shown["progress"]["data"]), (&json!(1), &json!({"file": "a.png"})));
        for i in 0..=50 {
            worker.send(progress(&task, json!({"current": i, "total": 50}))).await;
        }
        let shown = shows(&engine, &run, "the last progress", |p| p["current"] == 50).await;
        assert_eq!(shown["progress"]["fraction"], 1.0);
        assert_eq!(shown["progress"].get("data"), None);
        let (_, list) = engine.get("/v1/runs").await;
        assert_eq!(list["items"][0]["progress"], shown["progress"]);
        // It stays with the finished run.
        worker.finish(&task, json!(1)).await;
        assert_eq!(engine.run(&run["id"]).await["progress"], shown["progress"]);
        worker.goodbye().await;
    }
}

both_ways! {
    async fn only_the_holder_tells_how_far_it_is(engine) {
        engine.workflow("work").await;
        let mut holder = worker(&engine, &["work"], 1).await;
        let tenant = engine.second_tenant().await;
        let mut foreign = Worker::connect(&engine.url, &tenant.token, hello("theirs", &["work"], 1)).await;
        let run = engine.trigger("work", json!({})).await;
        let task = holder.task().await;
        foreign.send(progress(&task, json!({"fraction": 0.9}))).await;
        assert_eq!(foreign.expect("error").await["code"], "not_held");
        holder.send(progress(&task, json!({"fraction": 2}))).await;
        let error = holder.expect("error").await;
        assert_eq!((&error["code"], &error["pointer"]), (&json!("bad_frame"), &json!("/progress/0/fraction")));
        holder.send(progress(&task, json!({"fraction": 0.5}))).await;
        shows(&engine, &run, "the holder's progress", |p| p["fraction"] == 0.5).await;
        holder.finish(&task, json!(1)).await;
        holder.send(progress(&task, json!({"fraction": 0.6}))).await;
        assert_eq!(holder.expect("error").await["code"], "not_held");
        holder.goodbye().await;
    }
}
