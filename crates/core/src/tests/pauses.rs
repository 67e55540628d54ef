//! What is paused does not start, what is not goes on, and nothing is forgotten.

use std::time::Duration;

use helve_domain::delivery::Attempt;
use helve_domain::error::Code;
use helve_domain::pause::{Pause, Target};
use helve_domain::status::RunStatus::{Cancelled, Queued, Running, Scheduled, Succeeded};

use super::pausing::{action, flow, reason, workflow};
use super::world::{World, settings, spec};
use crate::{Answer, PauseChange, Settings};

const SEC: Duration = Duration::from_secs(1);

fn both(test: impl Fn(World)) {
    for optimistic in [true, false] {
        test(World::new(Settings { optimistic, ..settings() }));
    }
}

#[test]
fn a_paused_workflow_queues_and_goes_on_in_order_after_the_resume() {
    both(|mut w| {
        let worker = w.connect(1);
        w.pause(workflow(), None);
        w.settle();
        let runs: Vec<_> = (0..12).map(|_| w.trigger().0).collect();
        w.settle();
        assert!(w.receive(worker).is_empty());
        assert!(runs.iter().all(|r| w.state(*r) == Queued));
        assert!(w.shard.tasks.is_empty(), "a paused backlog waits in the rows, not in memory");
        w.resume(workflow(), None);
        w.settle();
        assert_eq!(w.work(worker), runs, "first in, first out, through a window of 4");
        assert!(w.shard.pauses.is_empty() && w.pauses.is_empty());
    });
}

#[test]
fn what_shares_the_queue_with_a_paused_workflow_goes_on() {
    both(|mut w| {
        let other = flow("other", r#"{"tasks":[{"name":"a"}]}"#);
        w.pause(workflow(), None);
        w.settle();
        // Far more than a window, before and between the others.
        let (mut held, mut free) = (Vec::new(), Vec::new());
        for _ in 0..15 {
            held.extend((0..3).map(|_| w.trigger().0));
            free.push(w.trigger_of(&other));
        }
        w.settle();
        let worker = w.connect(1);
        assert_eq!(w.work(worker), free);
        let last = w.trigger_of(&other);
        assert_eq!(w.lanes[0][0].rows.len(), 1);
        w.commit(0);
        w.settle();
        assert_eq!(w.work(worker), [last]);
        assert!(held.iter().all(|r| w.state(*r) == Queued));
        w.resume(workflow(), None);
        w.settle();
        assert_eq!(w.work(worker), held);
    });
}

#[test]
fn the_answer_to_a_pause_comes_after_the_assignments_that_were_decided_before() {
    let mut w = World::new(settings());
    let worker = w.connect(2);
    let (run, _) = w.trigger();
    let ticket = w.pause(workflow(), None);
    let (later, _) = w.trigger();
    assert!(w.commit(1), "the pause is written before the run");
    assert!(!w.answers.contains_key(&ticket), "an assignment is still on its way");
    assert!(w.commit(0));
    assert!(matches!(&w.answers[&ticket], Answer::Paused(p) if &*p.pause.reason == "maintenance"));
    w.settle();
    assert_eq!((w.state(run), w.state(later)), (Running, Queued));
    assert_eq!(w.receive(worker).len(), 1);
}

#[test]
fn a_running_task_is_not_touched_and_its_retry_waits() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let got = w.receive(worker);
    w.pause(workflow(), None);
    w.settle();
    assert_eq!(w.state(run), Running);
    w.fail(worker, got[0]);
    w.settle();
    assert_eq!(w.state(run), Scheduled);
    w.advance(SEC * 90);
    assert_eq!(w.state(run), Queued);
    w.resume(workflow(), None);
    w.settle();
    assert_eq!(w.work(worker), [run]);
    assert_eq!(w.state(run), Succeeded);
}

#[test]
fn a_pause_ends_by_itself_at_its_time() {
    for target in [workflow(), action()] {
        let mut w = World::new(settings());
        let worker = w.connect(1);
        w.pause(target, Some(SEC * 30));
        w.settle();
        let (run, _) = w.trigger();
        w.settle();
        w.advance(SEC * 29);
        assert_eq!(w.state(run), Queued);
        w.advance(SEC);
        assert_eq!(w.state(run), Running);
        assert!(w.pauses.is_empty(), "and so does its row");
        assert_eq!(w.receive(worker).len(), 1);
    }
}

#[test]
fn a_paused_action_and_a_paused_worker_start_nothing_new() {
    both(|mut w| {
        let (first, second) = (w.connect(1), w.connect(1));
        let target = Target::Worker(w.worker_of(first));
        w.pause(target.clone(), None);
        w.settle();
        let runs: Vec<_> = (0..3).map(|_| w.trigger().0).collect();
        w.settle();
        assert!(w.receive(first).is_empty());
        assert_eq!(w.work(second), runs, "the other worker does it all");
        w.pause(action(), None);
        w.settle();
        let (run, _) = w.trigger();
        w.resume(target, None);
        w.settle();
        assert_eq!(w.state(run), Queued);
        w.resume(action(), None);
        w.settle();
        assert_eq!(w.state(run), Running);
    });
}

#[test]
fn a_worker_that_leaves_takes_its_pause_along_and_an_unknown_one_cannot_be_paused() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let target = Target::Worker(w.worker_of(worker));
    w.pause(target.clone(), None);
    w.settle();
    w.say(worker, crate::Incoming::Goodbye);
    w.settle();
    assert!(w.pauses.is_empty() && w.shard.pauses.is_empty());
    let ticket = w.pause(target, None);
    assert!(matches!(&w.answers[&ticket], Answer::Failed(e) if e.code() == Code::NotFound));
}

#[test]
fn a_pause_of_what_is_paused_changes_it_and_keeps_its_beginning() {
    let mut w = World::new(settings());
    w.pause(workflow(), None);
    w.settle();
    let began = w.now;
    w.advance(SEC * 5);
    let pause = Pause { reason: "still".into(), ..reason(&w, Some(SEC * 60)) };
    let ticket = w.order(workflow(), PauseChange::Pause(pause));
    w.settle();
    let Answer::Paused(paused) = &w.answers[&ticket] else { panic!("no pause") };
    assert_eq!((&*paused.pause.reason, paused.pause.since), ("still", began));
    assert!(paused.pause.expires_at.is_some());
}

#[test]
fn a_gentle_resume_lets_the_backlog_go_by_its_rate_and_then_ends() {
    for target in [workflow(), action()] {
        let mut w = World::new(settings());
        let worker = w.connect(100);
        let other = flow("other", r#"{"tasks":[{"name":"a"}]}"#);
        w.pause(target.clone(), None);
        w.settle();
        let mut runs: Vec<_> = (0..20).map(|_| w.trigger().0).collect();
        w.settle();
        w.resume(target.clone(), Some(2.0));
        w.settle();
        assert_eq!(w.order, runs[..1], "one at once");
        if target == workflow() {
            let free = w.trigger_of(&other);
            w.settle();
            assert_eq!(w.order.pop(), Some(free), "others are not slowed down");
        }
        for second in 1..=9 {
            w.listen(worker, 1);
            assert_eq!(w.order.len(), 1 + 2 * second, "two a second");
        }
        assert_eq!(w.order, runs[..19]);
        runs.push(w.trigger().0);
        w.settle();
        assert_eq!(w.order.len(), 19, "a newcomer waits behind the backlog");
        w.listen(worker, 10);
        assert_eq!(w.order, runs);
        assert!(w.shard.pauses.is_empty() && w.pauses.is_empty(), "the backlog is gone, and the gentle start over");
        w.work(worker);
        runs = (0..20).map(|_| w.trigger().0).collect();
        w.settle();
        assert!(runs.iter().all(|r| w.state(*r) == Running), "at full speed again");
    }
}

#[test]
fn a_gentle_resume_of_a_worker_fills_it_slowly() {
    let mut w = World::new(settings());
    let worker = w.connect(100);
    let target = Target::Worker(w.worker_of(worker));
    w.pause(target.clone(), None);
    w.settle();
    for _ in 0..10 {
        w.trigger();
    }
    w.settle();
    w.resume(target, Some(1.0));
    w.settle();
    w.listen(worker, 4);
    assert_eq!(w.order.len(), 5);
    w.listen(worker, 10);
    assert_eq!(w.order.len(), 10);
}

#[test]
fn a_takeover_keeps_pauses_and_gentle_starts() {
    both(|mut w| {
        let worker = w.connect(10);
        w.pause(workflow(), None);
        w.settle();
        let runs: Vec<_> = (0..8).map(|_| w.trigger().0).collect();
        w.settle();
        w.take_over(&[worker]);
        let worker = w.hello(10, Some(worker), &[]);
        w.settle();
        w.listen(worker, 10);
        assert!(runs.iter().all(|r| w.state(*r) == Queued));
        w.resume(workflow(), Some(1.0));
        w.settle();
        let held = w.receive(worker);
        w.take_over(&[worker]);
        let worker = w.hello(10, Some(worker), &held);
        w.settle();
        assert!(w.order.len() <= 2, "still gentle: {:?}", w.order);
        w.listen(worker, 10);
        assert_eq!(w.order, runs);
    });
}

#[test]
fn a_takeover_drops_the_pause_of_a_worker_that_is_gone() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    w.pause(Target::Worker(w.worker_of(worker)), None);
    w.settle();
    w.take_over(&[]);
    w.settle();
    assert!(w.pauses.is_empty());
}

#[test]
fn a_refused_pause_changes_nothing() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let ticket = w.pause(workflow(), None);
    assert!(w.reject(1));
    assert!(matches!(&w.answers[&ticket], Answer::Failed(_)));
    w.settle();
    let (run, _) = w.trigger();
    w.settle();
    assert_eq!(w.work(worker), [run]);
}

#[test]
fn a_paused_run_can_be_cancelled_and_its_schedule_timeout_goes_on() {
    let mut w = World::new(settings());
    w.spec = spec(r#"{"tasks":[{"name":"a","schedule_timeout":"10s"}]}"#);
    w.connect(1);
    w.pause(workflow(), None);
    w.settle();
    let ((first, _), (second, _)) = (w.trigger(), w.trigger());
    w.settle();
    w.cancel(first);
    w.settle();
    assert_eq!(w.state(first), Cancelled);
    w.advance(SEC * 10);
    assert_eq!(w.state(second), Cancelled);
    w.resume(workflow(), None);
    w.settle();
    assert!(w.order.is_empty() && w.shard.tasks.is_empty());
}

#[test]
fn a_run_on_its_way_when_its_workflow_is_resumed_is_not_overtaken() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    w.pause(workflow(), None);
    w.settle();
    let (first, _) = w.trigger();
    w.resume(workflow(), None);
    while w.commit(1) || w.load() {}
    let (second, _) = w.trigger();
    w.settle();
    assert_eq!(w.work(worker), [first, second]);
}

/// A window that was read before a run was given out brings it once more; by then it has been cancelled, and its worker
/// still holds the slot.
#[test]
fn a_run_that_ended_while_a_window_was_read_does_not_come_back() {
    let mut w = World::new(settings());
    let worker = w.connect(3);
    let runs: Vec<_> = (0..4).map(|_| w.trigger().0).collect();
    w.settle();
    let last = runs[3];
    let got = w.receive(worker);
    w.succeed(worker, got[0]);
    // The claim of the last run is on its way when every window is read anew.
    w.pause(Target::Workflow("other".into()), None);
    w.commit(1);
    let given = w.receive(worker);
    assert_eq!(given, [Attempt { run: last, number: 1 }]);
    w.cancel(last);
    w.succeed(worker, got[1]);
    while w.commit(1) {}
    assert_eq!(w.state(last), Cancelled);
    w.settle();
    let held = w.shard.sessions.values().map(|s| s.holds.len()).sum::<usize>();
    assert_eq!(held, 2, "one that runs, and one whose worker has not let go yet");
}
