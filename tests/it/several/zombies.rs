//! An engine stands still with something committed in its hands, another takes over, and the first goes on.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::faults::Processes;
use crate::support::{Incoming, Worker, hello, sql, until_within};

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
        let since = helve_domain::clock::Clock::system().instant();
        until_within("it has stood still for longer than it trusts its lease", PATIENCE, || async {
            (helve_domain::clock::Clock::system().instant() - since > Duration::from_secs(4)).then_some(())
        })
        .await;
        processes.owner.signal(Signal::SIGCONT);
    };
    let (answered, ()) = tokio::join!(trigger, meanwhile);
    assert_eq!(answered.unwrap().status, 201);
    let task = worker.task().await;
    worker.finish(&task, json!(1)).await;
}
