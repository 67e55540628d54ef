//! Slots that are given back before their attempt has ended.

use std::time::Duration;

use helve_domain::delivery::{Attempt, Outgoing, Reason};
use helve_domain::id::{RunId, WorkerId};
use helve_domain::status::RunStatus::{Cancelled, Queued, Running, Succeeded};

use super::world::{World, settings};
use crate::{Command, Incoming, Settings, Transport, WorkerRow};

/// A worker with one slot, the attempt that has it, and a run that waits for it.
fn busy() -> (World, Transport, Attempt, RunId) {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    w.trigger();
    let (next, _) = w.trigger();
    w.settle();
    let got = w.receive(worker)[0];
    (w, worker, got, next)
}

fn free(w: &mut World, worker: Transport, attempt: Attempt) {
    w.say(worker, Incoming::FreeSlot(vec![attempt]));
}

fn heard(w: &World, worker: Transport) -> (Vec<Attempt>, Vec<(Attempt, Reason)>) {
    let (mut freed, mut superseded) = (Vec::new(), Vec::new());
    for message in w.inboxes.get(&worker).into_iter().flatten() {
        match message {
            Outgoing::Freed(attempt) => freed.push(*attempt),
            Outgoing::Superseded(list) => superseded.extend(list.iter().copied()),
            _ => {}
        }
    }
    (freed, superseded)
}

fn used(w: &World) -> u32 {
    w.shard.sessions.values().flat_map(|s| s.used.values()).sum()
}

#[test]
fn a_slot_given_back_takes_the_next_run_in_the_same_statement() {
    let (mut w, worker, first, next) = busy();
    free(&mut w, worker, first);
    assert_eq!(w.lanes[1][0].rows.len(), 2, "the slot and the claim that uses it");
    assert!(heard(&w, worker).0.is_empty(), "nothing is said before the commit");
    w.settle();
    assert_eq!(heard(&w, worker).0, [first]);
    assert_eq!((w.state(first.run), w.state(next), used(&w)), (Running, Running, 1));
    let second = w.receive(worker)[0];
    w.succeed(worker, first);
    w.settle();
    assert_eq!((w.state(first.run), used(&w)), (Succeeded, 1), "its end frees nothing more");
    w.succeed(worker, second);
    w.settle();
    assert_eq!(used(&w), 0);
}

#[test]
fn a_slot_is_given_back_once_however_often_it_is_said() {
    let (mut w, worker, first, _) = busy();
    let (third, _) = w.trigger();
    free(&mut w, worker, first);
    free(&mut w, worker, first);
    w.settle();
    free(&mut w, worker, first);
    w.settle();
    assert_eq!(heard(&w, worker).0, [first; 3]);
    assert_eq!((w.state(third), used(&w)), (Queued, 1));
}

#[test]
fn what_is_not_held_is_not_given_back() {
    let (mut w, worker, first, next) = busy();
    let other = w.connect(1);
    w.settle();
    free(&mut w, other, first);
    free(&mut w, worker, Attempt { number: 2, ..first });
    assert_eq!(heard(&w, other).1, [(first, Reason::Unknown)]);
    assert_eq!(heard(&w, worker).1, [(Attempt { number: 2, ..first }, Reason::Unknown)]);
    assert_eq!((w.state(next), used(&w)), (Running, 2), "the other took what waited");
}

#[test]
fn an_attempt_told_to_stop_lets_go_of_its_slot() {
    let (mut w, worker, first, next) = busy();
    w.cancel(first.run);
    w.settle();
    assert_eq!((w.state(first.run), w.state(next)), (Cancelled, Queued));
    free(&mut w, worker, first);
    w.settle();
    assert_eq!(heard(&w, worker).1, [(first, Reason::Requested)]);
    assert_eq!((w.state(next), used(&w)), (Running, 1));
}

#[test]
fn a_lost_worker_loses_also_what_holds_no_slot() {
    let (mut w, worker, first, next) = busy();
    free(&mut w, worker, first);
    w.settle();
    w.say(worker, Incoming::Lost);
    w.advance(Duration::from_secs(16));
    let second = w.connect(2);
    let mut got: Vec<_> = w.receive(second);
    got.sort_unstable();
    assert_eq!(got, [Attempt { run: first.run, number: 2 }, Attempt { run: next, number: 2 }]);
    assert_eq!(used(&w), 2, "the new attempt has slots of its own");
}

#[test]
fn a_refused_write_leaves_the_slot_held() {
    let (mut w, worker, first, next) = busy();
    free(&mut w, worker, first);
    assert!(w.reject(1));
    w.settle();
    assert_eq!((w.state(next), used(&w)), (Queued, 1));
    assert!(w.inboxes[&worker].iter().any(|m| matches!(m, Outgoing::Error(..))));
    w.succeed(worker, first);
    w.settle();
    assert_eq!((w.state(first.run), w.state(next)), (Succeeded, Running));
}

#[test]
fn a_refused_result_does_not_take_the_slot_again() {
    let (mut w, worker, first, _) = busy();
    free(&mut w, worker, first);
    w.settle();
    w.succeed(worker, first);
    assert!(w.reject(1));
    w.settle();
    assert_eq!(used(&w), 1, "only the other run's");
}

#[test]
fn a_successor_does_not_count_what_was_given_back() {
    let (mut w, worker, first, next) = busy();
    free(&mut w, worker, first);
    w.settle();
    let second = w.receive(worker)[0];
    let (session, s) = w.shard.sessions.iter().next().unwrap();
    let row = WorkerRow { worker: WorkerId::generate(w.now), ..s.row(*session) };
    let session = w.sessions[&worker].clone();
    let mut successor = World::new(Settings { optimistic: false, ..settings() });
    (successor.open, successor.tenant, successor.now) = (w.open, w.tenant, w.now);
    successor.sessions.insert(worker, session);
    let held = successor.open.values().map(|s| s.row.clone()).collect();
    successor.step(Command::Recovered(vec![row], held));
    successor.load_timers();
    assert_eq!(used(&successor), 1);
    let again = successor.hello(1, Some(worker), &[first, second]);
    successor.settle();
    assert_eq!((successor.state(first.run), successor.state(next), used(&successor)), (Running, Running, 1));
    successor.succeed(again, second);
    successor.settle();
    assert_eq!(used(&successor), 0);
    let (third, _) = successor.trigger();
    successor.settle();
    assert_eq!(successor.state(third), Running, "beside the one without a slot");
}
