//! The stream of one run.

use serde_json::{Value, json};

use super::sse::{Event, open, open_with};
use super::{logged, progress, say};
use crate::both_ways;
use crate::support::{self, Builder, Engine, Worker, hello, worker};

fn path(run: &Value) -> String {
    format!("/v1/runs/{}/events", run["id"].as_str().unwrap())
}

fn named<'a>(events: &'a [Event], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e.name == name).map(|e| &e.data).collect()
}

fn states(events: &[Event]) -> Vec<(String, i64)> {
    let state = |s: &&Value| (s["status"].as_str().unwrap().to_owned(), s["attempt"].as_i64().unwrap());
    named(events, "state").iter().map(state).collect()
}

fn offsets(events: &[Event]) -> Vec<i64> {
    named(events, "log").iter().map(|line| line["offset"].as_i64().unwrap()).collect()
}

both_ways! {
    async fn a_run_is_told_from_its_beginning_to_its_end(engine) {
        engine.workflow_with("work", json!({"retries": 2})).await;
        let run = engine.trigger("work", json!({"large": "x".repeat(2_000)})).await;
        let mut stream = open(&engine, &path(&run), "").await;
        assert_eq!(stream.expect("state").await["status"], "queued");
        let mut worker = worker(&engine, &["work"], 1).await;
        let task = worker.task().await;
        let state = stream.expect("state").await;
        assert_eq!((&state["status"], &state["attempt"], &state["workflow"]), (&json!("running"), &json!(1), &json!("work")));
        worker.send(say(&task, ["one".to_owned()])).await;
        let line = stream.expect("log").await;
        assert_eq!((&line["offset"], &line["message"], &line["level"]), (&json!(0), &json!("one"), &json!("info")));
        worker.send(progress(&task, json!({"current": 1, "total": 4}))).await;
        assert_eq!(stream.expect("progress").await["fraction"], 0.25);
        worker.fail(&task, json!({"message": "boom", "retry_after_ms": 1})).await;
        let state = stream.expect("state").await;
        assert_eq!((&state["status"], &state["attempt"], &state["reason"]), (&json!("scheduled"), &json!(1), &json!("retry")));
        let task = worker.task().await;
        // Lines just before the result are told before the end.
        worker.send(say(&task, (0..500).map(|i| i.to_string()))).await;
        worker.finish(&task, json!({"ok": 1})).await;
        let rest = stream.rest().await;
        assert_eq!(states(&rest).last(), Some(&("running".to_owned(), 2)));
        assert_eq!(offsets(&rest), (1..=500).collect::<Vec<_>>());
        let end = rest.last().unwrap();
        assert_eq!((end.name.as_str(), &end.data), ("end", &engine.run(&run["id"]).await));
        assert_eq!(end.id, "2-succeeded-501");

        // Who comes late reads the same from the rows.
        let late = open(&engine, &path(&run), "").await.rest().await;
        assert_eq!(offsets(&late), (0..=500).collect::<Vec<_>>());
        let told = states(&late);
        assert_eq!(told, [("running", 1), ("scheduled", 1), ("running", 2)].map(|(s, a)| (s.to_owned(), a)));
        assert_eq!(late.last(), Some(end));
        // And who has seen the end need not come again.
        assert_eq!(open_with(&engine, &path(&run), &end.id, None).await.status, 204);
        worker.goodbye().await;
    }
}

both_ways! {
    async fn nothing_is_lost_over_reconnects_while_the_run_goes_on(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        let (client, path) = (engine.client(), path(&run));
        let read = async {
            let (mut events, mut last_id, mut streams) = (Vec::new(), String::new(), 0);
            loop {
                let mut stream = open(&client, &path, &last_id).await;
                streams += 1;
                // Leaves after some events, in the middle of whatever comes.
                for _ in 0..7 + streams % 5 {
                    match stream.next().await {
                        Some(event) if event.name == "end" => {
                            events.push(event);
                            return (events, streams);
                        }
                        Some(event) => events.push(event),
                        None => break,
                    }
                }
                last_id.clone_from(&stream.last_id);
            }
        };
        let speak = async {
            for i in 0..300 {
                worker.send(say(&task, [i.to_string()])).await;
                if i % 10 == 0 {
                    worker.send(progress(&task, json!({"current": i, "total": 300}))).await;
                    logged(&engine, &run["id"], i + 1, 0).await;
                }
            }
            worker.finish(&task, json!(1)).await;
        };
        let ((events, streams), ()) = tokio::join!(read, speak);
        assert!(streams > 20, "{streams}");
        assert_eq!(offsets(&events), (0..300).collect::<Vec<_>>());
        assert_eq!(states(&events), [("running".to_owned(), 1)]);
        assert_eq!(events.last().unwrap().data["status"], "succeeded");
    }
}

both_ways! {
    async fn a_restart_of_the_engine_loses_nothing(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        let mut stream = open(&engine, &path(&run), "").await;
        worker.send(say(&task, ["before".to_owned()])).await;
        stream.expect("state").await;
        assert_eq!(stream.expect("log").await["message"], "before");
        let (resume, token) = (worker.resume(&[&task]), engine.token.clone());
        let engine = engine.restart().await;
        let close = stream.rest().await.pop().unwrap();
        assert_eq!((close.name.as_str(), &close.data["code"]), ("close", &json!("unavailable")));
        let mut again = open(&engine, &path(&run), &stream.last_id).await;
        let mut hello = hello("test", &["work"], 1);
        hello["resume"] = resume;
        let mut worker = Worker::connect(&engine.url, &token, hello).await;
        worker.send(say(&task, ["after".to_owned()])).await;
        assert_eq!(again.expect("log").await, json!({"offset": 1, "attempt": 1, "level": "info", "message": "after",
            "at": super::logged(&engine, &run["id"], 2, 0).await["items"][1]["at"]}));
        worker.finish(&task, json!(1)).await;
        assert_eq!(again.expect("end").await["status"], "succeeded");
        worker.goodbye().await;
    }
}

both_ways! {
    async fn a_cancel_in_the_queue_ends_the_stream(engine) {
        engine.workflow("work").await;
        let run = engine.trigger("work", json!({})).await;
        let mut stream = open(&engine, &path(&run), "").await;
        stream.expect("state").await;
        let cancel = format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap());
        assert_eq!(engine.post(&cancel, json!({})).await.0, 200);
        let end = stream.expect("end").await;
        assert_eq!((&end["status"], &end["error"]["code"]), (&json!("cancelled"), &json!("cancelled")));
        assert!(stream.next().await.is_none(), "the stream closes after the end");
    }
}

both_ways! {
    with Builder::new().http(|http| http.streams_per_tenant = 2);
    async fn streams_are_bounded_and_strangers_see_nothing(engine) {
        engine.workflow("work").await;
        let run = engine.trigger("work", json!({})).await;
        let path = path(&run);
        let first = open(&engine, &path, "").await;
        let _second = open(&engine, "/v1/events/stream", "").await;
        let third = engine.request("GET", &path, &[], "").await;
        assert_eq!((third.status, third.json()["code"].as_str()), (429, Some("too_many_requests")));
        assert_eq!(third.header("retry-after"), "5");
        // Another tenant has places of its own, and no such run.
        let stranger = engine.second_tenant().await;
        assert_eq!(stranger.get(&path).await.0, 404);
        drop(first);
        support::until("a place is free again", || async {
            (open_with(&engine, &path, "", None).await.status == 200).then_some(())
        })
        .await;
        for (bad, code) in [("x", 400), ("1-running", 400), ("0-cancelled-0", 400)] {
            let answer = engine.request("GET", &path, &[("last-event-id", bad)], "").await;
            assert_eq!((answer.status, answer.json()["code"].as_str()), (code, Some("invalid_cursor")), "{bad}");
        }
        assert_eq!(engine.get(&format!("{path}?x=1")).await.0, 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_ends_its_streams() {
    let engine: Engine = support::engine().await;
    engine.workflow("work").await;
    let run = engine.trigger("work", json!({})).await;
    let token = engine.token_with("read").await;
    let mut stream = open(&engine.client().with_token(Some(&token)), &path(&run), "").await;
    stream.expect("state").await;
    let sql = engine.sql().await;
    sql.execute("update token set revoked_at = now() where id = (select max(id::text)::uuid from token)", &[])
        .await
        .unwrap();
    let close = stream.expect("close").await;
    assert_eq!(close["code"], "unauthenticated");
    assert!(stream.next().await.is_none());
}
