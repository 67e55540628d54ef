//! One story a test.

use std::time::Duration;

use helve_domain::delivery::{Attempt, Outgoing, Reason};
use helve_domain::error::Code;
use helve_domain::run::Priority;
use helve_domain::status::RunStatus::{Cancelled, Failed, Queued, Running, Scheduled, Succeeded};

use super::world::{World, settings, spec};
use crate::{Answer, Command, Incoming, Settings};

const SEC: Duration = Duration::from_secs(1);

#[test]
fn a_free_slot_means_created_already_assigned_in_one_commit() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, ticket) = w.trigger();
    assert!(w.inboxes.get(&worker).is_none_or(|i| i.is_empty()), "nothing is pushed before the commit");
    assert!(w.commit(0));
    assert!(matches!(&w.answers[&ticket], Answer::Created(r) if r.attempt == 1 && r.status == Running));
    let got = w.receive(worker);
    assert_eq!(got, [Attempt { run, number: 1 }]);
    w.succeed(worker, got[0]);
    assert!(w.commit(1));
    assert_eq!(w.state(run), Succeeded);
    assert!(w.shard.tasks.is_empty() && w.shard.timers.is_empty(), "nothing is left in memory");
}

#[test]
fn a_full_worker_gets_the_next_one_in_the_statement_that_ends_the_last() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (first, _) = w.trigger();
    let (second, _) = w.trigger();
    w.settle();
    assert_eq!((w.state(first), w.state(second)), (Running, Queued));
    let got = w.receive(worker);
    w.succeed(worker, got[0]);
    assert_eq!(w.lanes[1].len(), 1, "one transition: the end and the claim");
    assert_eq!(w.lanes[1][0].rows.len(), 2);
    w.commit(1);
    assert_eq!((w.state(first), w.state(second)), (Succeeded, Running));
}

#[test]
fn a_slot_is_not_free_for_a_trigger_before_the_end_is_committed() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    w.trigger();
    w.settle();
    let got = w.receive(worker);
    w.succeed(worker, got[0]);
    let (next, _) = w.trigger();
    w.commit(0);
    assert_eq!(w.state(next), Queued);
    w.settle();
    assert_eq!(w.state(next), Running);
}

#[test]
fn nothing_overtakes_the_queue() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let runs: Vec<_> = (0..20).map(|_| w.trigger().0).collect();
    w.settle();
    for _ in 0..20 {
        let got = w.receive(worker);
        w.succeed(worker, got[0]);
        w.settle();
    }
    assert_eq!(w.order, runs, "first in, first out, through a window of 4");
}

#[test]
fn priority_goes_first_and_a_backlog_is_read_in_rank_order() {
    let mut w = World::new(settings());
    let low: Vec<_> = (0..6).map(|_| w.trigger_with(|r| r.priority = Priority::new(1).unwrap()).0).collect();
    let high: Vec<_> = (0..6).map(|_| w.trigger_with(|r| r.priority = Priority::new(4).unwrap()).0).collect();
    w.settle();
    assert!(w.shard.tasks.is_empty(), "without a worker a backlog is only in the database");
    let worker = w.connect(1);
    for _ in 0..12 {
        let got = w.receive(worker);
        w.succeed(worker, got[0]);
        w.settle();
    }
    assert_eq!(w.order, [high, low].concat());
}

#[test]
fn off_means_queued_first_and_the_same_end() {
    let mut w = World::new(Settings { optimistic: false, ..settings() });
    let worker = w.connect(1);
    let (run, ticket) = w.trigger();
    w.commit(0);
    assert!(matches!(&w.answers[&ticket], Answer::Created(r) if r.status == Queued && r.attempt == 0));
    w.settle();
    let got = w.receive(worker);
    assert_eq!(got, [Attempt { run, number: 1 }]);
    assert_eq!(w.shard.counters().optimistic, 0);
}

#[test]
fn retries_back_off_and_end() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    for (number, wait) in [(1, 1), (2, 2)] {
        let got = w.receive(worker);
        assert_eq!(got, [Attempt { run, number }]);
        w.fail(worker, got[0]);
        w.settle();
        assert_eq!(w.state(run), Scheduled);
        w.advance(SEC * wait - Duration::from_millis(1));
        assert_eq!(w.state(run), Scheduled, "not before its time");
        w.advance(Duration::from_millis(1));
        assert_eq!(w.state(run), Running);
    }
    let got = w.receive(worker);
    w.fail(worker, got[0]);
    w.settle();
    assert_eq!(w.state(run), Failed);
}

#[test]
fn a_cancel_is_final_at_once_and_the_slot_is_kept_until_the_worker_lets_go() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let got = w.receive(worker);
    let ticket = w.cancel(run);
    w.settle();
    assert!(matches!(w.answers[&ticket], Answer::Cancelled));
    assert_eq!(w.state(run), Cancelled);
    assert!(w.inboxes[&worker].iter().any(|m| matches!(m, Outgoing::Cancel(a, _) if a[0].1 == Reason::Requested)));
    let (next, _) = w.trigger();
    w.settle();
    assert_eq!(w.state(next), Queued, "the slot is still held");
    w.succeed(worker, got[0]);
    w.settle();
    assert_eq!((w.state(run), w.state(next)), (Cancelled, Running));
    let again = w.cancel(run);
    w.settle();
    assert!(matches!(w.answers[&again], Answer::Cancelled), "a second cancel succeeds too");
}

#[test]
fn a_worker_that_ignores_a_cancel_loses_the_slot_to_others_after_the_grace() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    w.receive(worker);
    w.cancel(run);
    w.settle();
    let (next, _) = w.trigger();
    w.settle();
    w.advance(SEC * 5);
    assert_eq!(w.state(next), Running);
}

#[test]
fn a_worker_that_hears_of_a_cancel_in_its_welcome_has_let_go() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let held = w.receive(worker);
    w.say(worker, Incoming::Lost);
    w.cancel(run);
    w.settle();
    let (next, _) = w.trigger();
    w.settle();
    assert_eq!(w.state(next), Queued, "it may still be at work");
    // It is told that the attempt is over, and answers nothing to that.
    let again = w.hello(1, Some(worker), &held);
    w.settle();
    assert_eq!((w.state(next), w.receive(again)), (Running, vec![Attempt { run: next, number: 1 }]));
}

#[test]
fn a_cancel_that_meets_a_flying_change_waits_for_it() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let got = w.receive(worker);
    w.succeed(worker, got[0]);
    let ticket = w.cancel(run);
    assert!(!w.answers.contains_key(&ticket));
    w.settle();
    assert_eq!(w.state(run), Succeeded);
    assert!(matches!(&w.answers[&ticket], Answer::Failed(e) if e.code() == Code::AlreadyFinished));
}

#[test]
fn another_tenants_cancel_finds_nothing() {
    let mut w = World::new(settings());
    let (run, _) = w.trigger();
    w.settle();
    let ticket = w.ticket();
    let tenant = helve_domain::id::TenantId::generate(w.now);
    w.step(Command::Cancel { tenant, run, ticket });
    w.settle();
    assert!(matches!(&w.answers[&ticket], Answer::Failed(e) if e.code() == Code::NotFound));
    assert_eq!(w.state(run), Queued);
}

#[test]
fn timeouts_fire_on_time() {
    let mut w = World::new(settings());
    w.spec = spec(r#"{"tasks":[{"name":"a","execution_timeout":"30s","schedule_timeout":"10s"}]}"#);
    let (waiting, _) = w.trigger();
    w.settle();
    w.advance(SEC * 9);
    assert_eq!(w.state(waiting), Queued);
    w.advance(SEC);
    assert_eq!(w.state(waiting), Cancelled);
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    w.receive(worker);
    w.advance(SEC * 29);
    assert_eq!(w.state(run), Running);
    w.say(worker, Incoming::Extend(vec![(Attempt { run, number: 1 }, SEC * 30)]));
    w.settle();
    w.advance(SEC * 29);
    assert_eq!(w.state(run), Running, "extended");
    w.advance(SEC);
    assert_eq!(w.state(run), Failed);
}

#[test]
fn a_delayed_run_starts_at_its_time() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let at = w.now.plus(SEC * 5);
    let far = w.now.plus(SEC * 300);
    let (near, _) = w.trigger_with(|r| r.run_at = Some(at));
    let (later, _) = w.trigger_with(|r| r.run_at = Some(far));
    w.settle();
    assert_eq!((w.state(near), w.state(later)), (Scheduled, Scheduled));
    assert_eq!(w.shard.tasks.len(), 1, "the far one waits in the database");
    w.advance(SEC * 5);
    assert_eq!(w.receive(worker), [Attempt { run: near, number: 1 }]);
    w.succeed(worker, Attempt { run: near, number: 1 });
    w.settle();
    for _ in 0..29 {
        w.advance(SEC * 10);
    }
    assert_eq!(w.state(later), Scheduled);
    w.advance(SEC * 5);
    assert_eq!(w.receive(worker), [Attempt { run: later, number: 1 }]);
}

#[test]
fn one_key_gives_one_run_also_within_a_batch() {
    let mut w = World::new(settings());
    let worker = w.connect(5);
    let key = w.with_key("k");
    let tickets: Vec<_> = (0..3).map(|_| w.trigger_with(|r| r.key = Some(key.clone())).1).collect();
    w.settle();
    let created = tickets.iter().filter(|t| matches!(w.answers[t], Answer::Created(_))).count();
    let taken = tickets.iter().filter(|t| matches!(w.answers[t], Answer::KeyTaken(_))).count();
    assert_eq!((created, taken), (1, 2));
    assert_eq!(w.receive(worker).len(), 1);
    let used: u32 = w.shard.sessions.values().map(|s| s.used.values().sum::<u32>()).sum();
    assert_eq!(used, 1, "the slots of the others are free again");
}

#[test]
fn a_blocked_head_does_not_block_what_is_behind_it() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let small = std::sync::Arc::clone(&w.spec);
    let mut big = (*small).clone();
    big.slot_cost = 2;
    let (blocked, _) = w.trigger_with(|r| r.spec = std::sync::Arc::new(big));
    w.settle();
    let (run, _) = w.trigger();
    w.settle();
    assert_eq!((w.state(blocked), w.state(run)), (Queued, Running));
    w.say(worker, Incoming::Capacity([("default".into(), 3)].into()));
    w.settle();
    assert_eq!(w.state(blocked), Running);
}

#[test]
fn a_slot_that_a_late_result_frees_goes_to_who_waits() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (first, _) = w.trigger();
    w.settle();
    let got = w.receive(worker);
    w.cancel(first);
    w.succeed(worker, got[0]);
    let (next, _) = w.trigger();
    // The cancel is committed, and the result has to look at the row; until then the worker keeps the slot.
    assert!(w.commit(1) && w.commit(0));
    assert_eq!((w.state(first), w.state(next)), (Cancelled, Queued));
    assert!(w.load());
    w.settle();
    assert_eq!(w.state(next), Running);
}

#[test]
fn a_worker_that_lacks_what_is_being_cancelled_keeps_no_slot_for_it() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (lost, _) = w.trigger();
    w.settle();
    // The assignment never came; while the cancel is being written the worker says that it holds nothing.
    w.say(worker, Incoming::Lost);
    w.cancel(lost);
    w.hello(1, Some(worker), &[]);
    w.settle();
    let (next, _) = w.trigger();
    w.settle();
    assert_eq!((w.state(lost), w.state(next)), (Cancelled, Running));
}

#[test]
fn a_slot_of_a_create_that_was_not_written_goes_to_who_waits() {
    for refused in [false, true] {
        let mut w = World::new(settings());
        let worker = w.connect(1);
        let key = w.with_key("once");
        w.trigger_with(|r| r.key = Some(key.clone()));
        w.settle();
        let got = w.receive(worker);
        w.succeed(worker, got[0]);
        w.settle();
        // It takes the slot until it hears that its key is taken, or that it is refused.
        w.trigger_with(|r| r.key = Some(key.clone()));
        let (next, _) = w.trigger();
        let again = w.lanes[0].pop_front().unwrap();
        assert!(w.commit(0));
        assert_eq!(w.state(next), Queued, "the slot is taken");
        w.lanes[0].push_front(again);
        assert!(if refused { w.reject(0) } else { w.commit(0) });
        w.settle();
        assert_eq!(w.state(next), Running);
    }
}

#[test]
fn who_is_ahead_of_everything_that_waits_starts_at_once() {
    let mut w = World::new(settings());
    w.connect(1);
    let small = std::sync::Arc::clone(&w.spec);
    let big = std::sync::Arc::new(helve_domain::definition::Spec { slot_cost: 2, ..(*small).clone() });
    // More than a window: what lies behind it is only in the database.
    for _ in 0..20 {
        w.trigger_with(|r| r.spec = std::sync::Arc::clone(&big));
    }
    w.settle();
    let (behind, _) = w.trigger();
    let (first, _) = w.trigger_with(|r| r.priority = Priority::new(4).unwrap());
    assert_eq!(w.lanes[0].iter().filter(|write| is_assigned(write)).count(), 1);
    w.settle();
    assert_eq!((w.state(first), w.state(behind)), (Running, Queued));
}

fn is_assigned(write: &crate::Write) -> bool {
    write.rows.creates().iter().any(|row| matches!(row, crate::CreateRow::Run(row) if row.place.state == Running))
}

#[test]
fn one_step_fires_a_piece_of_what_is_due_at_one_instant() {
    let mut w = World::new(settings());
    let at = w.now.plus(SEC * 10);
    let runs: Vec<_> = (0..150).map(|_| w.trigger_with(|r| r.run_at = Some(at)).0).collect();
    w.settle();
    w.now = at;
    for moved in [64, 128, 150] {
        assert_eq!(w.shard.next_timer(), Some(at), "the rest is due now");
        w.step(Command::Tick);
        assert_eq!(w.lanes[1].len(), moved);
    }
    assert_eq!(w.shard.next_timer(), None);
    w.settle();
    assert!(runs.iter().all(|run| w.state(*run) == Queued));
}
