//! The stream of a tenant.

use std::collections::BTreeSet;
use std::time::Duration;

use helve_domain::id::RunId;
use serde_json::{Value, json};

use super::sse::{Event, Stream, open, open_with};
use crate::both_ways;
use crate::support::{Builder, worker};

const PATH: &str = "/v1/events/stream";

async fn of_run(stream: &mut Stream) -> (Value, String, i64) {
    let run = stream.expect("run").await;
    (run["run"].clone(), run["status"].as_str().unwrap().to_owned(), run["attempt"].as_i64().unwrap())
}

both_ways! {
    async fn changes_and_events_come_as_they_are_committed(engine) {
        let definition = json!({"tasks": [{"name": "work"}], "events": ["image.*"]});
        assert_eq!(engine.put("/v1/workflows/work", definition).await.0, 200);
        let mut stream = open(&engine, PATH, "").await;
        stream.expect("open").await;
        let stranger = engine.second_tenant().await;
        let mut theirs = open(&stranger, PATH, "").await;
        theirs.expect("open").await;
        let (_, event) = engine.post("/v1/events", json!({"key": "image.new"})).await;
        let told = stream.expect("event").await;
        assert_eq!((&told["event"], &told["key"], &told["runs"]), (&event["id"], &json!("image.new"), &event["runs"]));
        let run = event["runs"][0].clone();
        assert_eq!(of_run(&mut stream).await, (run.clone(), "queued".to_owned(), 0));
        let mut worker = worker(&engine, &["work"], 1).await;
        let task = worker.task().await;
        assert_eq!(of_run(&mut stream).await, (run.clone(), "running".to_owned(), 1));
        worker.fail(&task, json!({"message": "boom"})).await;
        assert_eq!(of_run(&mut stream).await, (run, "failed".to_owned(), 1));
        // The stranger heard nothing of it; its own comes first.
        stranger.post("/v1/events", json!({"key": "theirs"})).await;
        assert_eq!(theirs.expect("event").await["key"], "theirs");
        worker.goodbye().await;
    }
}

both_ways! {
    async fn filters_leave_out_the_rest(engine) {
        engine.workflow("a").await;
        engine.workflow("b").await;
        let mut only_b = open(&engine, &format!("{PATH}?workflow=b&kind=run"), "").await;
        let mut ends = open(&engine, &format!("{PATH}?status=cancelled,failed&kind=run"), "").await;
        let mut events = open(&engine, &format!("{PATH}?kind=event"), "").await;
        for stream in [&mut only_b, &mut ends, &mut events] {
            stream.expect("open").await;
        }
        let (a, b) = (engine.trigger("a", json!({})).await, engine.trigger("b", json!({})).await);
        let cancel = format!("/v1/runs/{}/cancel", a["id"].as_str().unwrap());
        assert_eq!(engine.post(&cancel, json!({})).await.0, 200);
        engine.post("/v1/events", json!({"key": "x"})).await;
        assert_eq!(of_run(&mut only_b).await.0, b["id"]);
        assert_eq!(of_run(&mut ends).await, (a["id"].clone(), "cancelled".to_owned(), 0));
        assert_eq!(events.expect("event").await["key"], "x");
        for bad in ["kind=x", "status=gone", "workflow=", "limit=1"] {
            let answer = engine.request("GET", &format!("{PATH}?{bad}"), &[], "").await;
            assert_eq!(answer.status, 400, "{bad}");
        }
        let answer = engine.request("GET", PATH, &[("last-event-id", "x")], "").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("invalid_cursor")));
    }
}

both_ways! {
    async fn who_comes_back_has_missed_nothing(engine) {
        engine.workflow("work").await;
        let before = engine.trigger("work", json!({})).await;
        let mut stream = open(&engine, PATH, "").await;
        stream.expect("open").await;
        let first = engine.trigger("work", json!({})).await;
        assert_eq!(of_run(&mut stream).await.0, first["id"]);
        let last_id = stream.last_id.clone();
        drop(stream);
        // Nobody is there: a run from before the stream ends, another one is made.
        let cancel = format!("/v1/runs/{}/cancel", before["id"].as_str().unwrap());
        assert_eq!(engine.post(&cancel, json!({})).await.0, 200);
        let second = engine.trigger("work", json!({})).await;
        let mut stream = open(&engine, PATH, &last_id).await;
        assert_eq!(of_run(&mut stream).await, (before["id"].clone(), "cancelled".to_owned(), 0));
        assert_eq!(of_run(&mut stream).await.0, second["id"]);

        // Another process says what it does not know.
        let engine = engine.restart().await;
        let close = stream.expect("close").await;
        assert_eq!(close["code"], "unavailable");
        let third = engine.trigger("work", json!({})).await;
        let mut stream = open(&engine, PATH, &last_id).await;
        let gap = stream.expect("gap").await;
        assert_eq!(gap["truncated"], false);
        let mut runs = Vec::new();
        loop {
            let event = stream.next().await.unwrap();
            if event.name == "open" {
                break;
            }
            runs.push(event.data["run"].clone());
        }
        // What was made shortly before its last id may come twice: it may as well have been committed after that.
        let ids = [&before, &first, &second, &third].map(|run| run["id"].clone());
        assert_eq!(runs, ids);
        let fourth = engine.trigger("work", json!({})).await;
        assert_eq!(of_run(&mut stream).await.0, fourth["id"]);
    }
}

both_ways! {
    async fn what_was_committed_late_is_told_after_a_gap(engine) {
        engine.workflow("work").await;
        let mut stream = open(&engine, PATH, "").await;
        stream.expect("open").await;
        let told = engine.trigger("work", json!({})).await;
        assert_eq!(of_run(&mut stream).await.0, told["id"]);
        let last_id = stream.last_id.clone();
        // What a statement that hung would have done: rows made before that change, committed after it. The engine was
        // killed between, and never knew.
        let engine = engine.restart().await;
        let created: RunId = told["id"].as_str().unwrap().parse().unwrap();
        let made = |before: u64| RunId::generate(created.created_at().minus(Duration::from_secs(before)));
        let (late, old) = (made(30), made(600));
        let sql = engine.sql().await;
        for id in [late, old] {
            let at = id.created_at();
            sql.batch_execute(&format!(
                "create temp table copy as select * from open_run where id = '{}';
                 update copy set id = '{}', created_at = '{at}';
                 insert into open_run select * from copy; drop table copy",
                created.uuid(),
                id.uuid()
            ))
            .await
            .unwrap();
        }
        let mut stream = open(&engine, PATH, &last_id).await;
        let gap = stream.expect("gap").await;
        assert!(gap["since"].as_str().unwrap() < told["created_at"].as_str().unwrap(), "{gap}");
        assert_eq!(of_run(&mut stream).await.0, json!(late.to_string()));
        assert_eq!(of_run(&mut stream).await.0, told["id"], "it may come twice");
        stream.expect("open").await;
    }
}

both_ways! {
    with Builder::new().limits(|l| l.name_bytes = 1_000);
    async fn a_reader_that_does_not_read_is_cut_and_can_go_on(engine) {
        let name = "w".repeat(900);
        engine.workflow(&name).await;
        let mut stream = open_with(&engine, PATH, "", Some(4_096)).await;
        stream.expect("open").await;
        let runs: Vec<Value> = (0..1_000).map(|_| json!({"workflow": name})).collect();
        // More than the buffers of both sides take.
        for _ in 0..12 {
            let (status, _) = engine.post("/v1/runs/bulk", json!({"runs": runs})).await;
            assert_eq!(status, 200);
        }
        // The others are not held up by it.
        let mut other = open(&engine, PATH, "").await;
        other.expect("open").await;
        let last = engine.trigger(&name, json!({})).await;
        assert_eq!(of_run(&mut other).await.0, last["id"]);

        let mut events: Vec<Event> = stream.rest().await;
        let close = events.pop().unwrap();
        assert_eq!((close.name.as_str(), &close.data["code"]), ("close", &json!("too_slow")));
        let seen: BTreeSet<String> = events.iter().map(|e| e.data["run"].to_string()).collect();
        assert_eq!(seen.len(), events.len(), "each once");
        assert!(seen.len() < 12_001);
        // It goes on, and hears of what is missing or of the gap.
        let mut again = open(&engine, PATH, &stream.last_id).await;
        let next = again.next().await.unwrap();
        assert!(next.name == "gap" || !seen.contains(&next.data["run"].to_string()), "{next:?}");
    }
}
