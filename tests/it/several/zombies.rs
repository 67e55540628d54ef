//! An engine stands still with something committed in its hands, another takes over, and the first goes on.

use std::time::Duration;

use helve_domain::clock::Clock;
use nix::sys::signal::Signal;
use serde_json::json;

use super::faults::{GOES_ON, Processes, reconnect};
use crate::live::sse;
use crate::support::{Http, Incoming, Worker, hello, sql, until_within};

const PATIENCE: Duration = Duration::from_secs(30);

/// What was committed before is not pushed afterwards, and not answered: its run was cancelled meanwhile.
async fn a_cancel_in_between(point: &str, optimistic: bool) {
    let stall = format!("{point}=stall:2000@1");
    let switch = if optimistic { "on" } else { "off" };
    let mut processes = Processes::with(&[("HELVE_FAILPOINTS", &stall), ("HELVE_SCHEDULING_OPTIMISTIC", switch)]).await;
    let (owner, other) = (processes.owner(), processes.other());
    let client = sql(&processes.owner.setup().database).await;
    let mut worker = Worker::connect(&processes.owner.url, &processes.token, hello("w", &["a"], 1)).await;
    let body = json!({"workflow": "a"}).to_string();
    let trigger = owner.try_request("POST", "/v1/runs", &[], body);
    let meanwhile = async {
        // Committed, and its engine does not know it yet.
        let run = until_within("the assignment is committed", PATIENCE, || async {
            let row =
                client.query_opt("select replace(id::text, '-', '') from open_run where state = 2", &[]).await.unwrap();
            row.map(|row| row.get::<_, String>(0))
        })
        .await;
        processes.owner.signal(Signal::SIGSTOP);
        let path = format!("/v1/runs/run_{run}/cancel");
        until_within("the run is cancelled by the next engine", PATIENCE, || async {
            let answer = other.try_request("POST", &path, &[], "{}").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        processes.owner.signal(Signal::SIGCONT);
    };
    let (answered, ()) = tokio::join!(trigger, meanwhile);
    if optimistic {
        let created = answered.as_ref().is_ok_and(|answer| answer.status == 201);
        assert!(!created, "told of a running run that another engine has cancelled: {answered:?}");
    }
    loop {
        match worker.incoming(PATIENCE).await {
            Incoming::Frame(frame) => assert_ne!(frame["type"], "assign", "started after its cancel was answered"),
            Incoming::Closed(_) | Incoming::Broken(_) => break,
            Incoming::Silence => panic!("the engine that was replaced keeps its worker"),
        }
    }
    processes.owner.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_standstill_nothing_of_before_is_pushed_optimistic() {
    a_cancel_in_between("lane.create.after_send", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_standstill_nothing_of_before_is_pushed_queued() {
    a_cancel_in_between("lane.finish.after_send", false).await;
}

/// A standstill that nobody noticed costs nothing: the lease is renewed, and what was held goes out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_goes_out_when_nobody_has_taken_over() {
    let processes = Processes::with(&[("HELVE_FAILPOINTS", "lane.create.after_send=stall:500@1")]).await;
    let client = sql(&processes.owner.setup().database).await;
    // The others do not take over: for them its lease goes on.
    let (owner, body) = (processes.owner(), json!({"workflow": "a"}).to_string());
    let mut worker = Worker::connect(&processes.owner.url, &processes.token, hello("w", &["a"], 1)).await;
    let trigger = owner.try_request("POST", "/v1/runs", &[], body);
    let meanwhile = async {
        until_within("the assignment is committed", PATIENCE, || async {
            client.query_opt("select id from open_run where state = 2", &[]).await.unwrap().map(drop)
        })
        .await;
        processes.owner.signal(Signal::SIGSTOP);
        client.batch_execute("update node set expires_at = expires_at + interval '60 s'").await.unwrap();
        let since = Clock::system().instant();
        until_within("it has stood still for longer than it trusts its lease", PATIENCE, || async {
            (Clock::system().instant() - since > Duration::from_secs(4)).then_some(())
        })
        .await;
        processes.owner.signal(Signal::SIGCONT);
    };
    let (answered, ()) = tokio::join!(trigger, meanwhile);
    assert_eq!(answered.unwrap().status, 201);
    let task = worker.task().await;
    worker.finish(&task, json!(1)).await;
}

/// The owner stands still, or its machine has lost its power: whatever came by another engine is told, and goes on there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_came_by_another_engine_goes_on_when_the_owner_stands_still() {
    let processes = Processes::with(&[]).await;
    let (other, clock) = (processes.other(), Clock::system());
    let mut worker = Worker::connect(&processes.other.url, &processes.token, hello("w", &["a"], 1)).await;
    let mut stream = sse::open(&other, "/v1/events/stream", "").await;
    stream.expect("open").await;
    assert_eq!(other.put("/v1/workflows/b", json!({"tasks": [{"name": "b"}]})).await.0, 200);
    let waiting = Http { limit: PATIENCE, ..other.clone() };
    let waits = async {
        let answer = waiting.request("POST", "/v1/runs?wait=25s", &[], json!({"workflow": "b"}).to_string()).await;
        (answer, clock.instant())
    };
    let frozen = async {
        stream.expect("run").await;
        processes.owner.signal(Signal::SIGSTOP);
        let since = clock.instant();
        let closed = loop {
            match worker.incoming(GOES_ON).await {
                Incoming::Frame(_) => {}
                ended => break ended,
            }
        };
        assert!(matches!(closed, Incoming::Closed(4503)), "not told to connect again: {closed:?}");
        let mut greeting = hello("w", &["a"], 1);
        greeting["resume"] = worker.resume(&[]);
        let mut again = reconnect(&processes.other.url, &processes.token, &greeting).await;
        assert_eq!(again.welcome["resumed"], true);
        let (status, run) = other.post("/v1/runs", json!({"workflow": "a"})).await;
        assert_eq!(status, 201, "{run}");
        let task = again.task().await;
        assert_eq!(task["run"], run["id"]);
        again.finish(&task, json!(1)).await;
        let took = clock.instant() - since;
        assert!(took < GOES_ON, "{took:?}");
        stream.rest().await;
        since
    };
    let ((answer, answered), since) = tokio::join!(waits, frozen);
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("outcome_unknown")));
    assert!(answered - since < GOES_ON, "a request waits for who stands still: {:?}", answered - since);
    processes.owner.signal(Signal::SIGCONT);
}
