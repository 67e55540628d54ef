//! Runs that are kept for a person.

use std::time::Duration;

use helve_domain::delivery::{Attempt, Outcome, Outgoing};
use helve_domain::error::Code;
use helve_domain::id::{RunId, TenantId};
use helve_domain::run::RunError;
use helve_domain::status::RunStatus::{self, Cancelled, Failed, Parked, Queued, Running, Scheduled};

use super::world::{World, settings};
use crate::{Answer, Command, Incoming, Settings, Transport};

const ONE_RETRY: &str = r#"{"tasks":[{"name":"a","retries":{"count":1,"base":"0s","on_exhausted":"park",
    "rules":[{"codes":["hopeless"],"retry":false,"on_exhausted":"fail"}]}}]}"#;

fn world() -> World {
    World::of(ONE_RETRY, settings())
}

fn unpark(w: &mut World, run: RunId) -> Code {
    let ticket = w.unpark(run);
    w.settle();
    match w.answers.remove(&ticket) {
        Some(Answer::Unparked) => Code::Internal,
        Some(Answer::Failed(error)) => error.code(),
        other => panic!("{other:?}"),
    }
}

/// What `unpark` above gives when it worked.
const DONE: Code = Code::Internal;

fn fail_with(w: &mut World, worker: Transport, code: &str, retryable: Option<bool>) -> Attempt {
    let got = w.receive(worker)[0];
    let error = RunError { message: "boom".into(), code: Some(code.into()), retryable, retry_after_ms: None };
    w.say(worker, Incoming::Results(vec![(got, Outcome::Failed(error))]));
    w.settle();
    got
}

fn told(w: &World, worker: Transport) -> Option<RunStatus> {
    match w.inboxes[&worker].iter().rev().find(|m| matches!(m, Outgoing::Stored(_))) {
        Some(Outgoing::Stored(results)) => Some(results[0].1),
        _ => None,
    }
}

#[test]
fn spent_retries_park_the_run_and_free_its_slot() {
    let mut w = world();
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    let (next, _) = w.trigger();
    w.settle();
    fail_with(&mut w, worker, "x", None);
    assert_eq!(w.state(run), Running, "the retry");
    fail_with(&mut w, worker, "x", None);
    assert_eq!((w.state(run), w.open[&run].row.retries), (Parked, 1));
    assert_eq!(told(&w, worker), Some(Parked));
    assert_eq!(w.state(next), Running, "in the same statement");
    assert!(!w.shard.tasks.contains_key(&run), "a parked run costs no memory");
}

#[test]
fn an_error_that_is_not_retried_parks_too_unless_a_rule_says_otherwise() {
    for (code, retryable, end) in [("x", Some(false), Parked), ("hopeless", None, Failed)] {
        let mut w = world();
        let worker = w.connect(1);
        let (run, _) = w.trigger();
        w.settle();
        fail_with(&mut w, worker, code, retryable);
        assert_eq!(w.state(run), end, "{code}");
    }
}

#[test]
fn a_timeout_and_a_lost_worker_park_too() {
    let text = r#"{"tasks":[{"name":"a","retries":{"count":0,"on_exhausted":"park"}}]}"#;
    let mut w = World::of(text, Settings { redeliveries: 0, ..settings() });
    let worker = w.connect(2);
    let (late, _) = w.trigger();
    w.settle();
    w.receive(worker);
    w.advance(Duration::from_secs(301));
    assert_eq!(w.state(late), Parked);
    let (lost, _) = w.trigger();
    w.settle();
    w.receive(worker);
    w.say(worker, Incoming::Lost);
    w.advance(Duration::from_secs(16));
    assert_eq!(w.state(lost), Parked);
    assert!(w.shard.tasks.is_empty() && w.shard.timers.is_empty());
}

#[test]
fn unpark_gives_every_retry_again_at_the_end_of_the_queue() {
    let mut w = world();
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    fail_with(&mut w, worker, "x", None);
    fail_with(&mut w, worker, "x", None);
    let (first, _) = w.trigger();
    let (second, _) = w.trigger();
    w.settle();
    w.advance(Duration::from_millis(1));
    assert_eq!(unpark(&mut w, run), DONE);
    assert_eq!((w.state(run), w.open[&run].row.retries), (Queued, 0));
    for expected in [first, second] {
        let got = w.receive(worker)[0];
        assert_eq!(got.run, expected, "what waits already goes first");
        w.succeed(worker, got);
        w.settle();
    }
    assert_eq!(fail_with(&mut w, worker, "x", None), Attempt { run, number: 3 });
    assert_eq!(w.state(run), Running, "a fresh budget");
    fail_with(&mut w, worker, "x", None);
    assert_eq!(w.state(run), Parked);
    assert_eq!((unpark(&mut w, run), w.state(run)), (DONE, Running));
}

#[test]
fn losses_count_anew_after_an_unpark() {
    let mut w = World::of(ONE_RETRY, Settings { redeliveries: 1, ..settings() });
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    fail_with(&mut w, worker, "x", None);
    fail_with(&mut w, worker, "x", None);
    unpark(&mut w, run);
    assert_eq!(w.receive(worker), [Attempt { run, number: 3 }]);
    w.say(worker, Incoming::Lost);
    w.advance(Duration::from_secs(16));
    assert_eq!(w.state(run), Queued, "lost once since then");
}

#[test]
fn what_is_not_parked_cannot_be_unparked() {
    let mut w = world();
    let (queued, _) = w.trigger();
    let at = w.now.plus(Duration::from_secs(5));
    let (delayed, _) = w.trigger_with(|r| r.run_at = Some(at));
    w.settle();
    assert_eq!((w.state(queued), w.state(delayed)), (Queued, Scheduled));
    assert_eq!([unpark(&mut w, queued), unpark(&mut w, delayed)], [Code::NotParked; 2]);
    w.cancel(queued);
    w.settle();
    assert_eq!(unpark(&mut w, queued), Code::NotParked);
    let nobody = RunId::generate(w.now);
    assert_eq!(unpark(&mut w, nobody), Code::NotFound);
}

#[test]
fn a_parked_run_can_be_cancelled_and_is_nobody_elses() {
    let mut w = world();
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    fail_with(&mut w, worker, "x", Some(false));
    let ticket = w.ticket();
    w.step(Command::Unpark { tenant: TenantId::generate(w.now), run, ticket });
    w.settle();
    assert!(matches!(&w.answers[&ticket], Answer::Failed(e) if e.code() == Code::NotFound));
    assert_eq!(w.state(run), Parked);
    let ticket = w.cancel(run);
    w.settle();
    assert!(matches!(w.answers[&ticket], Answer::Cancelled));
    assert_eq!(w.state(run), Cancelled);
}

#[test]
fn two_unparks_at_once_are_one() {
    let mut w = world();
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    fail_with(&mut w, worker, "x", Some(false));
    let tickets = [w.unpark(run), w.unpark(run)];
    w.settle();
    assert!(matches!(w.answers[&tickets[0]], Answer::Unparked));
    assert!(matches!(&w.answers[&tickets[1]], Answer::Failed(e) if e.code() == Code::NotParked));
    assert_eq!(w.receive(worker), [Attempt { run, number: 2 }]);
}

#[test]
fn a_refused_unpark_leaves_the_run_parked() {
    let mut w = world();
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    fail_with(&mut w, worker, "x", Some(false));
    let ticket = w.unpark(run);
    assert!(w.load() && w.reject(1));
    w.settle();
    assert!(matches!(&w.answers[&ticket], Answer::Failed(_)));
    assert!(w.shard.tasks.is_empty() && w.shard.timers.is_empty());
    assert_eq!((unpark(&mut w, run), w.state(run)), (DONE, Running));
}

#[test]
fn a_successor_finds_a_parked_run_when_it_is_asked_for() {
    let mut w = world();
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    fail_with(&mut w, worker, "x", Some(false));
    let mut next = world();
    (next.open, next.tenant, next.now) = (w.open, w.tenant, w.now);
    next.step(Command::Recovered(Vec::new(), Vec::new()));
    next.load_timers();
    assert!(next.shard.tasks.is_empty());
    let worker = next.connect(1);
    assert_eq!(unpark(&mut next, run), DONE);
    assert_eq!(next.receive(worker), [Attempt { run, number: 2 }]);
}
