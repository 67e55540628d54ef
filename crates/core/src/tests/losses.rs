//! Stories of what goes wrong: lost sockets, workers, processes and results.

use std::time::Duration;

use helve_domain::delivery::{Attempt, Close, Outcome, Outgoing, Reason};
use helve_domain::error::Code;
use helve_domain::json::Payload;
use helve_domain::status::RunStatus::{Failed, Queued, Running, Scheduled, Succeeded};

use super::world::{World, settings};
use crate::{Answer, Command, Incoming};

const SEC: Duration = Duration::from_secs(1);

#[test]
fn an_unconfirmed_assignment_is_sent_again_and_then_taken_back() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    w.inboxes.clear();
    w.advance(SEC * 4);
    assert_eq!(w.inboxes[&worker].len(), 2, "again at 2 and at 4 seconds");
    w.advance(SEC * 2);
    assert!(w.inboxes[&worker].iter().any(|m| matches!(m, Outgoing::Close(Close::TooSlow))));
    assert_eq!(w.state(run), Queued);
    let other = w.connect(1);
    assert_eq!(w.receive(other), [Attempt { run, number: 2 }]);
    w.succeed(worker, Attempt { run, number: 1 });
    w.settle();
    assert_eq!(w.state(run), Running, "the late result of attempt 1 does not count");
}

#[test]
fn a_lost_socket_keeps_its_work_for_the_grace_and_a_lost_worker_does_not() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let got = w.receive(worker);
    w.say(worker, Incoming::Lost);
    w.advance(SEC * 14);
    assert_eq!(w.state(run), Running);
    let again = w.hello(1, Some(worker), &got);
    w.settle();
    w.succeed(again, got[0]);
    w.settle();
    assert_eq!(w.state(run), Succeeded);

    let (run, _) = w.trigger();
    w.settle();
    w.receive(again);
    w.say(again, Incoming::Lost);
    w.advance(SEC * 15);
    assert_eq!(w.state(run), Queued);
    assert!(w.shard.sessions.is_empty());
}

#[test]
fn what_was_lost_on_the_wire_is_sent_on_the_new_socket_with_the_same_attempt() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    w.inboxes.clear();
    let again = w.hello(1, Some(worker), &[]);
    w.settle();
    assert_eq!(w.receive(again), [Attempt { run, number: 1 }]);
    assert!(w.inboxes[&worker].iter().any(|m| matches!(m, Outgoing::Close(Close::Replaced))));
    w.succeed(worker, Attempt { run, number: 1 });
    w.settle();
    assert_eq!(w.state(run), Running, "a replaced socket is not listened to");
}

#[test]
fn a_goodbye_gives_the_work_back_at_once_without_a_retry() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let other = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let (holder, rest) = if w.receive(worker).is_empty() { (other, worker) } else { (worker, other) };
    w.say(holder, Incoming::Goodbye);
    w.settle();
    assert_eq!(w.receive(rest), [Attempt { run, number: 2 }]);
    assert_eq!(w.open[&run].row.retries, 0);
}

#[test]
fn stale_double_and_foreign_results_change_nothing() {
    let mut w = World::new(settings());
    let (a, b) = (w.connect(1), w.connect(1));
    let (run, _) = w.trigger();
    w.settle();
    let (holder, other) = if w.receive(a).is_empty() { (b, a) } else { (a, b) };
    if holder == b {
        w.receive(b);
    }
    let attempt = Attempt { run, number: 1 };
    w.succeed(other, attempt);
    w.succeed(holder, Attempt { run, number: 2 });
    w.settle();
    assert_eq!(w.state(run), Running);
    w.inboxes.clear();
    w.succeed(holder, attempt);
    w.succeed(holder, attempt);
    w.settle();
    w.succeed(holder, attempt);
    w.settle();
    let stored = w.inboxes[&holder].iter().filter(|m| matches!(m, Outgoing::Stored(_))).count();
    assert_eq!(stored, 3, "the same result gets the same answer");
    w.succeed(other, attempt);
    w.settle();
    assert!(w.inboxes[&other].iter().any(|m| matches!(m, Outgoing::Superseded(_))));
}

#[test]
fn a_refused_result_fails_the_run_instead_of_losing_it() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    let (next, _) = w.trigger();
    w.settle();
    let got = w.receive(worker);
    w.succeed(worker, got[0]);
    w.reject(1);
    w.settle();
    assert_eq!((w.state(run), w.state(next)), (Failed, Running));
}

#[test]
fn a_run_that_kills_its_workers_is_given_up() {
    let mut w = World::new(settings());
    let (run, _) = w.trigger();
    for _ in 0..4 {
        let worker = w.connect(1);
        assert_eq!(w.receive(worker).len(), 1);
        w.say(worker, Incoming::Lost);
        w.advance(SEC * 15);
    }
    assert_eq!(w.state(run), Failed);
}

#[test]
fn released_work_does_not_spin() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    for _ in 0..6 {
        let got = loop {
            let got = w.receive(worker);
            if !got.is_empty() {
                break got;
            }
            w.advance(Duration::from_millis(10));
        };
        w.say(worker, Incoming::Results(vec![(got[0], Outcome::Released)]));
        w.settle();
    }
    assert_eq!(w.state(run), Scheduled);
    assert_eq!(w.open[&run].row.retries, 0);
    assert!(Payload::null().len() == 4);
}

#[test]
fn another_tenants_running_run_never_enters_memory() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    w.receive(worker);
    // As if the run belonged to a shard elsewhere: only its row is there.
    let mut elsewhere = World::new(settings());
    elsewhere.open = w.open.clone();
    let other = elsewhere.connect(1);
    elsewhere.succeed(other, Attempt { run, number: 1 });
    let ticket = elsewhere.cancel(run);
    elsewhere.settle();
    assert!(matches!(&elsewhere.answers[&ticket], Answer::Failed(e) if e.code() == Code::NotFound));
    assert!(
        elsewhere.inboxes[&other].iter().any(|m| matches!(m, Outgoing::Superseded(s) if s[0].1 == Reason::Unknown))
    );
    assert!(elsewhere.shard.tasks.is_empty());
    assert_eq!(w.state(run), Running);
}

#[test]
fn a_takeover_waits_for_the_workers_and_takes_their_results() {
    let mut w = World::new(settings());
    let worker = w.connect(2);
    let (kept, _) = w.trigger();
    let (lost, _) = w.trigger();
    w.settle();
    let held = w.receive(worker);
    assert_eq!(held.len(), 2);
    let (session, secret) = w.sessions[&worker].clone();
    let row = w.shard.sessions[&session].row(session);
    // The process dies: only the rows are left.
    w.shard = crate::Shard::new(settings());
    w.lanes.iter_mut().for_each(std::collections::VecDeque::clear);
    w.load_timers();
    let rows = w.open.values().map(|s| s.row.clone()).collect();
    w.step(Command::Recovered(vec![row], rows));
    assert!(!secret.is_empty());
    let again = w.hello(2, Some(worker), &[Attempt { run: kept, number: 1 }]);
    w.settle();
    w.succeed(again, Attempt { run: kept, number: 1 });
    w.settle();
    assert_eq!(w.state(kept), Succeeded);
    assert_eq!(w.receive(again), [Attempt { run: lost, number: 2 }], "what the worker does not hold is given out anew");
}

#[test]
fn a_takeover_gives_up_a_worker_that_does_not_come_back() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    w.receive(worker);
    let (session, _) = w.sessions[&worker].clone();
    let row = w.shard.sessions[&session].row(session);
    w.shard = crate::Shard::new(settings());
    w.load_timers();
    let rows = w.open.values().map(|s| s.row.clone()).collect();
    w.step(Command::Recovered(vec![row], rows));
    w.advance(SEC * 14);
    assert_eq!(w.state(run), Running);
    w.advance(SEC);
    assert_eq!(w.state(run), Queued);
}

#[test]
fn a_lost_welcome_does_not_cost_the_session() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let held = w.receive(worker);
    // The welcome of this resume never arrives: the worker comes again with the secret that it has.
    w.hello(1, Some(worker), &held);
    w.settle();
    let again = w.hello(1, Some(worker), &held);
    w.settle();
    w.succeed(again, Attempt { run, number: 1 });
    w.settle();
    assert_eq!(w.state(run), Succeeded);
}

#[test]
fn a_timer_committed_while_timers_are_read_is_not_lost() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    w.now = w.now.plus(SEC * 30);
    w.ask_timers();
    // Beyond what memory held before the read, and not in the read's snapshot.
    let at = w.now.plus(SEC * 50);
    let (run, _) = w.trigger_with(|r| r.run_at = Some(at));
    w.settle();
    w.deliver_timers();
    while w.shard.next_timer().is_some_and(|t| t <= at) {
        w.now = w.shard.next_timer().unwrap();
        w.step(Command::Tick);
        w.settle();
    }
    assert_eq!(w.receive(worker), [Attempt { run, number: 1 }]);
}

#[test]
fn a_run_that_is_asked_for_while_its_queue_is_read_stays_in_the_queue() {
    let mut w = World::new(settings());
    let (run, _) = w.trigger();
    w.settle();
    // A late result asks for the row; the read of the queue passes over it, and its answer comes first.
    let other = w.hello(1, None, &[]);
    while w.commit(1) {}
    let session = *w.shard.sessions.keys().next().unwrap();
    let late = vec![(Attempt { run, number: 7 }, Outcome::Succeeded(Payload::null()))];
    w.step(Command::Worker { session, transport: other, message: Incoming::Results(late) });
    assert_eq!(w.loads.len(), 2, "the queue and the run are read");
    w.settle();
    assert_eq!(w.receive(other), [Attempt { run, number: 1 }]);
}
