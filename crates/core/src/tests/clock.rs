//! A wall clock that is set: nothing ends before it was created, nothing fires twice, nothing is forgotten.

use std::time::Duration;

use helve_domain::change::{EndRow, FinishRow};
use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Attempt, Outgoing};
use helve_domain::id::RunId;
use helve_domain::status::RunStatus::{Queued, Running, Scheduled, Succeeded};

use super::world::{World, settings, spec};
use crate::{Command, Shard};

const SEC: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(600);

/// The process ends; another one, whose clock says `now`, goes on from the rows.
fn takeover(w: &mut World, now: Timestamp) {
    let workers = w.shard.sessions.iter().map(|(id, s)| s.row(*id)).collect();
    w.shard = Shard::new(settings());
    w.lanes.iter_mut().for_each(std::collections::VecDeque::clear);
    w.loads.clear();
    w.now = now;
    w.load_timers();
    let held = w.open.values().map(|s| s.row.clone()).filter(|r| r.state == Running).collect();
    w.step(Command::Recovered(workers, held));
}

fn end_of(w: &World, run: RunId) -> &EndRow {
    let rows = w.lanes[1].iter().flat_map(|write| write.rows.finishes());
    let mut ends = rows.filter_map(|row| if let FinishRow::End(end) = row { Some(&**end) } else { None });
    ends.find(|end| end.run == run).unwrap()
}

#[test]
fn a_run_never_ends_before_it_was_created_or_started() {
    let mut w = World::new(settings());
    let worker = w.connect(2);
    let (old, _) = w.trigger();
    w.settle();
    w.advance(SEC);
    let (young, _) = w.trigger();
    w.settle();
    w.receive(worker);
    let (created, started) = (young.created_at(), w.open[&young].row.started_at.unwrap());
    let behind = w.now.minus(STEP);
    takeover(&mut w, behind);
    let again = w.hello(2, Some(worker), &[old, young].map(|run| Attempt { run, number: 1 }));
    w.settle();
    for run in [old, young] {
        w.succeed(again, Attempt { run, number: 1 });
        let finished = end_of(&w, run).finished_at;
        assert!(finished >= run.created_at() && finished > behind);
    }
    assert!(end_of(&w, young).finished_at >= created.max(started), "reads by id leave out what ended before");
    w.settle();
    assert_eq!((w.state(old), w.state(young)), (Succeeded, Succeeded));
}

#[test]
fn an_attempt_from_the_future_has_no_more_time_than_its_own() {
    let mut w = World::new(settings());
    w.spec = spec(r#"{"tasks":[{"name":"a","execution_timeout":"60s","retries":{"count":1,"base":"1s"}}]}"#);
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    w.receive(worker);
    let behind = w.now.minus(STEP);
    takeover(&mut w, behind);
    let again = w.hello(1, Some(worker), &[Attempt { run, number: 1 }]);
    w.settle();
    w.advance(SEC * 59);
    assert_eq!((w.state(run), w.open[&run].row.attempt), (Running, 1));
    w.advance(SEC);
    assert_ne!((w.state(run), w.open[&run].row.attempt), (Running, 1), "its time is up, and it is tried again");
    assert!(w.inboxes[&again].iter().any(|m| matches!(m, Outgoing::Cancel(..))), "the worker is told");
}

#[test]
fn an_attempt_from_long_ago_keeps_the_grace_to_report() {
    let mut w = World::new(settings());
    w.spec = spec(r#"{"tasks":[{"name":"a","execution_timeout":"60s"}]}"#);
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    w.receive(worker);
    let ahead = w.now.plus(STEP);
    takeover(&mut w, ahead);
    let again = w.hello(1, Some(worker), &[Attempt { run, number: 1 }]);
    w.settle();
    w.advance(SEC * 14);
    assert_eq!(w.state(run), Running, "by its own clock it would be over for nine minutes");
    w.succeed(again, Attempt { run, number: 1 });
    w.settle();
    assert_eq!(w.state(run), Succeeded);
}

#[test]
fn what_waits_for_a_time_starts_once_whichever_way_the_clock_went() {
    for (ahead, waits) in [(true, Duration::ZERO), (false, STEP + SEC * 30)] {
        let mut w = World::new(settings());
        let (at, start) = (w.now.plus(SEC * 30), w.now);
        let (run, _) = w.trigger_with(|r| r.run_at = Some(at));
        w.settle();
        assert_eq!(w.state(run), Scheduled);
        takeover(&mut w, if ahead { start.plus(STEP) } else { start.minus(STEP) });
        w.settle();
        let from = w.now;
        for _ in 0..70 {
            if w.state(run) == Queued {
                break;
            }
            w.advance(SEC * 10);
        }
        assert_eq!(w.state(run), Queued);
        let waited = w.now.since(from);
        assert!((waits..=waits + SEC * 10).contains(&waited), "it waited {waited:?}, and should {waits:?}");
        let worker = w.connect(2);
        w.settle();
        assert_eq!(w.receive(worker), [Attempt { run, number: 1 }], "once");
        w.advance(SEC * 100);
        assert_eq!(w.open.get(&run).map_or(1, |s| s.row.attempt), 1);
    }
}
