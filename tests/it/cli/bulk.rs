//! Bulk work: counted, asked for, followed; and events.

use serde_json::json;

use super::{Person, rows};
use crate::support::engine;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_counted_asked_about_and_worked_off() {
    let engine = engine().await;
    engine.workflow("resize").await;
    engine.workflow("other").await;
    let kept = engine.trigger("other", json!({})).await;
    for _ in 0..3 {
        engine.trigger("resize", json!({})).await;
    }
    let person = Person::of(&engine);
    let cancel = ["runs", "cancel", "--workflow", "resize", "--status", "queued"];
    person.is_refused(&cancel, 2, "those with workflow resize, status queued?").await;
    assert_eq!(person.json(&["runs", "list", "--status", "queued"]).await["items"].as_array().unwrap().len(), 4);
    assert_eq!(person.json(&["jobs", "list"]).await["items"], json!([]), "nothing was created");

    let done = person.run(&[cancel.as_slice(), &["--yes"]].concat()).await;
    assert!(done.code == 0 && done.err.contains("finished: 3 of 3 done, 0 skipped, 0 failed"), "{done:?}");
    assert_eq!(engine.run(&kept["id"]).await["status"], "queued");
    let none = person.run(&cancel).await;
    assert!(none.code == 0 && none.err.contains("no run matches"), "{none:?}");

    let created =
        person.json(&["runs", "replay", "--workflow", "resize", "--status", "cancelled", "--yes", "--no-wait"]).await;
    let job = created["id"].as_str().unwrap();
    let watched = person.run(&["jobs", "watch", job]).await;
    assert!(watched.code == 0 && watched.err.contains("3 of 3 done"), "{watched:?}");
    let items = person.prints(&["jobs", "runs", job, "--outcome", "done"]).await;
    assert_eq!(rows(&items).len(), 4, "{items}");
    let run = rows(&items)[1][0].to_owned();
    assert_eq!(rows(&person.prints(&["runs", "list", "--replay-of", &run]).await).len(), 2);
    let listed = person.prints(&["jobs", "list", "--kind", "replay"]).await;
    assert_eq!(rows(&listed)[1][..7], [job, "replay", "finished", "3", "0", "0", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_ids_are_done_in_turn_and_a_wrong_one_stops_nothing() {
    let engine = engine().await;
    engine.workflow("resize").await;
    let (a, b) = (engine.trigger("resize", json!({})).await, engine.trigger("resize", json!({})).await);
    let missing = "run_00000000000000000000000000000001";
    let ids = [a["id"].as_str().unwrap(), missing, b["id"].as_str().unwrap()];
    let done = Person::of(&engine).run(&[["runs", "cancel"].as_slice(), &ids].concat()).await;
    assert!(done.code == 3 && done.err.contains(missing), "{done:?}");
    assert_eq!(done.out.matches("cancelled on request").count(), 2, "{done:?}");
    let replayed = Person::of(&engine).json(&["runs", "replay", ids[0], "--version", "same"]).await;
    assert_eq!((&replayed["replay_of"], &replayed["status"]), (&a["id"], &json!("queued")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_pushed_found_and_replayed() {
    let engine = engine().await;
    let person = Person::of(&engine);
    let definition = r#"{"tasks": [{"name": "heard"}], "events": ["image.*"]}"#;
    person.prints(&["workflows", "put", "heard", definition]).await;
    let push = ["events", "push", "image.up", "--payload", r#"{"n": 1e400}"#, "--source", "shop", "--source-id", "7"];
    let event = person.prints(&push).await;
    assert!(event.contains(r#"{"n": 1e400}"#) && event.contains("run_"), "{event}");
    assert!(person.prints(&push).await.contains("deduplicated"));
    person.prints(&["events", "push", "other"]).await;
    let found = person.prints(&["events", "list", "--key", "image.*"]).await;
    assert_eq!(rows(&found)[1][1..4], ["image.up", "shop", "1"]);

    let id = rows(&found)[1][0].to_owned();
    assert!(person.prints(&["events", "replay", &id]).await.contains(&id));
    let replay = ["events", "replay", "--key", "image.*"];
    person.is_refused(&replay, 2, "Replay 1 events of http").await;
    let done = person.run(&[replay.as_slice(), &["--yes"]].concat()).await;
    assert!(done.code == 0 && done.err.contains("1 events replayed, 1 runs started, 0 failed"), "{done:?}");
    assert_eq!(rows(&person.prints(&["runs", "list", "--workflow", "heard"]).await).len(), 4);
    person.is_refused(&["events", "replay"], 2, "--key").await;
}
