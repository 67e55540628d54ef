//! What the oracle says about events, labels, parked runs and pauses is proved as the rest: a made-up wrong is found.

use std::time::Duration;

use helve_bench::oracle::ledger::plays::{Labels, PAUSING, Play, Required, Topic};
use helve_domain::clock::Timestamp;
use serde_json::json;

use super::ledger::{Fate, Kind, Ledger, Nonce, Plan, Sent};
use super::oracle::{EventRow, Finding, Report, Row, Stored, Terms, judge};

const WORKER: &str = "wrk_1";
const EVENT: &str = "evt_1";

/// A history that is right so far, to be falsified.
struct History {
    ledger: Ledger,
    began: Timestamp,
    stored: Stored,
}

impl History {
    fn new() -> Self {
        let ledger = Ledger::new();
        let began = ledger.now();
        ledger.facts().slots.insert(WORKER.into(), 1);
        ledger.labelled(WORKER, Labels::of_worker(1), began);
        Self { ledger, began, stored: Stored::default() }
    }

    /// A run that was executed in this attempt, and whose row says so.
    fn attempt(&mut self, id: &str, nonce: Nonce, number: i64, sent: Sent) -> &mut Row {
        let attempt = (id.to_owned(), number);
        let started = self.ledger.now();
        assert!(self.ledger.begin(&attempt, WORKER, "w1"));
        let output = match &sent {
            Sent::Succeeded(output) => Some(output.clone()),
            Sent::Failed | Sent::Released => None,
        };
        let status = if output.is_some() { "succeeded" } else { "failed" };
        self.ledger.end(&attempt, WORKER, Some(sent));
        if output.is_some() {
            self.ledger.stored(attempt, status);
        }
        let finished = Some(self.ledger.now());
        self.stored.runs.retain(|row| row.id != id);
        self.stored.runs.push(Row {
            id: id.into(),
            nonce: Some(nonce),
            status: status.into(),
            attempt: number,
            retries: 0,
            output,
            created: self.began,
            started: Some(started),
            finished,
            workflow: "load".into(),
            event: None,
            parks: 0,
            unparks: 0,
        });
        self.stored.runs.last_mut().unwrap()
    }

    fn succeed(&mut self, id: &str, nonce: Nonce) -> &mut Row {
        self.attempt(id, nonce, 1, Sent::Succeeded(json!({"n": nonce})))
    }

    fn report(&self) -> Report {
        let terms = Terms { repair: Duration::from_secs(5), ..Terms::default() };
        judge(&self.ledger.facts(), &self.stored, &terms)
    }

    fn assert_only(&self, finding: Finding) {
        let report = self.report();
        assert_eq!(report.count(finding), 1, "{report}");
        assert_eq!(report.found(), 1, "{report}");
    }
}

/// An event that starts two runs, was accepted, and whose runs went well.
fn event() -> (History, Nonce) {
    let mut h = History::new();
    let nonce = h.ledger.intend_event(Topic::Two, Plan::SucceedAfter(0), true);
    h.ledger.sends(nonce);
    let runs = ["run_1".to_owned(), "run_2".to_owned()];
    h.ledger.pushed(nonce, EVENT, runs.clone());
    for (run, workflow) in runs.iter().zip(Topic::Two.workflows()) {
        let row = h.succeed(run, nonce);
        (row.event, row.workflow) = (Some(EVENT.into()), (*workflow).into());
    }
    h.stored.events.push(EventRow { id: EVENT.into(), nonce: Some(nonce), runs: runs.into() });
    (h, nonce)
}

#[test]
fn an_event_with_its_runs_is_not_blamed() {
    let (h, nonce) = event();
    h.report().assert_clean();
    // Without an answer it is the same.
    h.ledger.facts().pushes.get_mut(&nonce).unwrap().fate = Fate::Maybe;
    h.report().assert_clean();
}

#[test]
fn a_lost_event_is_found() {
    let (mut h, _) = event();
    h.stored.events.clear();
    let report = h.report();
    assert_eq!((report.count(Finding::EventLost), report.count(Finding::EventRuns)), (1, 1), "{report}");
    // With its runs: named once, although workers had them.
    h.stored.runs.clear();
    h.assert_only(Finding::EventLost);
}

#[test]
fn an_event_that_misses_a_run_is_found() {
    let (mut h, _) = event();
    h.stored.runs.remove(1);
    h.assert_only(Finding::EventRuns);
    // Also when the event's own row agrees: the answer named both.
    h.stored.events[0].runs.remove(1);
    assert_eq!(h.report().count(Finding::EventRuns), 2, "by the workflows, and by the answer");
}

#[test]
fn a_run_too_many_of_an_event_is_found() {
    let (mut h, nonce) = event();
    let row = h.succeed("run_3", nonce);
    (row.event, row.workflow) = (Some(EVENT.into()), "load".into());
    h.assert_only(Finding::EventRuns);
    // A run of an event that is nowhere.
    h.stored.runs[2].event = Some("evt_9".into());
    h.assert_only(Finding::EventRuns);
}

#[test]
fn a_run_of_another_workflow_is_found() {
    let (mut h, _) = event();
    h.stored.runs[1].workflow = "load".into();
    h.assert_only(Finding::EventRuns);
}

#[test]
fn one_event_that_became_two_is_found() {
    let (mut h, nonce) = event();
    h.stored.events.push(EventRow { id: "evt_2".into(), nonce: Some(nonce), runs: Vec::new() });
    assert_eq!(h.report().count(Finding::EventTwice), 1);
    h.stored.events.pop();
    h.ledger.pushed(nonce, "evt_2", []);
    assert_eq!(h.report().count(Finding::EventTwice), 1);
}

#[test]
fn a_refused_event_in_the_store_is_found() {
    let (h, nonce) = event();
    h.ledger.push_refused(nonce);
    h.assert_only(Finding::EventUnexpected);
    let (mut h, _) = event();
    h.stored.events.push(EventRow { id: "evt_2".into(), nonce: Some(99), runs: Vec::new() });
    h.assert_only(Finding::EventUnexpected);
}

/// A run that requires a label, of `w1`, which is in zone b and starts with the night shift.
fn labelled(required: Required) -> History {
    let mut h = History::new();
    let nonce = h.ledger.intend_on(Kind::Plain, Plan::SucceedAfter(0), Some(required));
    h.ledger.accepted(nonce, "run_1");
    h.succeed("run_1", nonce);
    h
}

const ZONE_A: Required = Required { key: Required::ZONE, value: "a" };
const ZONE_B: Required = Required { key: Required::ZONE, value: "b" };
const DAY: Required = Required { key: Required::SHIFT, value: "day" };
const NIGHT: Required = Required { key: Required::SHIFT, value: "night" };

#[test]
fn a_start_without_the_required_label_is_found() {
    labelled(ZONE_B).report().assert_clean();
    labelled(NIGHT).report().assert_clean();
    labelled(ZONE_A).assert_only(Finding::WrongLabels);
    labelled(DAY).assert_only(Finding::WrongLabels);
}

#[test]
fn a_start_long_after_the_label_was_given_up_is_found() {
    let mut h = labelled(NIGHT);
    h.ledger.labelled(WORKER, Labels::of_worker(1).changed(), h.began);
    h.stored.runs[0].started = Some(h.began.plus(Duration::from_secs(1)));
    h.report().assert_clean();
    h.stored.runs[0].started = Some(h.began.plus(Duration::from_secs(3)));
    h.assert_only(Finding::WrongLabels);
    // A start before the worker had it.
    let mut h = labelled(DAY);
    h.ledger.labelled(WORKER, Labels::of_worker(1).changed(), h.began.plus(Duration::from_secs(9)));
    h.assert_only(Finding::WrongLabels);
    h.stored.runs[0].started = Some(h.began.plus(Duration::from_secs(10)));
    h.report().assert_clean();
}

#[test]
fn the_label_of_an_earlier_attempt_counts_too() {
    let mut h = labelled(ZONE_A);
    h.ledger.facts().slots.insert("wrk_2".into(), 1);
    h.ledger.labelled("wrk_2", Labels::of_worker(2), h.began);
    h.ledger.begin(&("run_1".to_owned(), 2), "wrk_2", "w2");
    h.stored.runs[0].attempt = 2;
    assert_eq!(h.report().count(Finding::WrongLabels), 1, "attempt 1 was in zone b");
}

/// A run that was parked after two failures, unparked, and went well.
fn parked(plan: Plan) -> History {
    let mut h = History::new();
    let nonce = h.ledger.intend(Kind::Keyed, plan);
    h.ledger.accepted(nonce, "run_1");
    for number in [1, 2] {
        assert!(h.ledger.fails(nonce, "run_1").is_some());
        h.attempt("run_1", nonce, number, Sent::Failed);
    }
    h.ledger.seen_parked("run_1");
    h.ledger.asks_unpark("run_1");
    h.ledger.unparked("run_1");
    if plan == Plan::Parked {
        assert!(h.ledger.fails(nonce, "run_1").is_none());
        let row = h.attempt("run_1", nonce, 3, Sent::Succeeded(json!({"n": nonce})));
        (row.parks, row.unparks) = (1, 1);
    } else {
        for number in [3, 4] {
            assert!(h.ledger.fails(nonce, "run_1").is_some());
            let row = h.attempt("run_1", nonce, number, Sent::Failed);
            (row.status, row.parks, row.unparks, row.retries) = ("parked".into(), 2, 1, 1);
        }
        h.ledger.seen_parked("run_1");
    }
    h
}

#[test]
fn a_run_that_was_parked_and_unparked_is_not_blamed() {
    parked(Plan::Parked).report().assert_clean();
    let h = parked(Plan::LeftParked);
    h.report().assert_clean();
    assert_eq!(h.report().played()[&Play::LeftParked], 1);
}

#[test]
fn a_parked_run_that_is_lost_stuck_or_ended_is_found() {
    let mut h = parked(Plan::LeftParked);
    h.stored.runs[0].status = "queued".into();
    let report = h.report();
    assert_eq!((report.count(Finding::Stuck), report.count(Finding::WrongPark)), (1, 1), "{report}");
    h.stored.runs[0].status = "failed".into();
    h.assert_only(Finding::WrongPark);
    h.stored.runs.clear();
    h.assert_only(Finding::Lost);
}

#[test]
fn an_unpark_that_was_answered_and_forgotten_is_found() {
    let mut h = parked(Plan::LeftParked);
    (h.stored.runs[0].parks, h.stored.runs[0].unparks) = (1, 0);
    h.ledger.facts().executions.retain(|(_, attempt), _| *attempt <= 2);
    h.stored.runs[0].attempt = 2;
    h.assert_only(Finding::WrongPark);
    // Without an answer it may be so.
    h.ledger.facts().parkings.get_mut("run_1").unwrap().answered = false;
    h.report().assert_clean();
}

#[test]
fn a_run_that_is_parked_with_attempts_left_is_found() {
    let h = parked(Plan::Parked);
    h.ledger.facts().executions.remove(&("run_1".to_owned(), 2));
    h.assert_only(Finding::WrongPark);
}

#[test]
fn attempts_that_start_anew_after_an_unpark_are_found() {
    let mut h = parked(Plan::LeftParked);
    h.stored.runs[0].attempt = 2;
    h.assert_only(Finding::WrongPark);
}

#[test]
fn an_attempt_too_many_after_an_unpark_is_found() {
    let h = parked(Plan::Parked);
    h.ledger.begin(&("run_1".to_owned(), 4), WORKER, "w1");
    h.ledger.end(&("run_1".to_owned(), 4), WORKER, None);
    h.assert_only(Finding::UnjustifiedDuplicate);
}

#[test]
fn a_run_that_nobody_parks_and_is_parked_is_found() {
    let mut h = History::new();
    let nonce = h.ledger.intend(Kind::Plain, Plan::SucceedAfter(0));
    h.ledger.accepted(nonce, "run_1");
    h.succeed("run_1", nonce).parks = 1;
    h.assert_only(Finding::WrongPark);
}

/// A run of the workflow that is paused from a second after the beginning for ten.
fn pausing(started: Duration) -> History {
    let mut h = History::new();
    let nonce = h.ledger.intend(Kind::Keyed, Plan::SucceedAfter(0));
    h.ledger.accepted(nonce, "run_1");
    h.ledger.paused();
    h.ledger.waits();
    h.ledger.resumes();
    let began = h.began;
    let pause = &mut h.ledger.facts().pauses[0].clone();
    (pause.from, pause.until) = (began.plus(Duration::from_secs(1)), Some(began.plus(Duration::from_secs(11))));
    h.ledger.facts().pauses[0] = *pause;
    let row = h.succeed("run_1", nonce);
    (row.workflow, row.started) = (PAUSING.into(), Some(began.plus(started)));
    h
}

#[test]
fn a_start_within_a_pause_is_found() {
    pausing(Duration::from_millis(900)).report().assert_clean();
    pausing(Duration::from_millis(11_001)).report().assert_clean();
    for within in [1_100, 5_000, 10_999] {
        pausing(Duration::from_millis(within)).assert_only(Finding::StartedWhilePaused);
    }
    // One of another workflow.
    let mut h = pausing(Duration::from_secs(5));
    h.stored.runs[0].workflow = "load".into();
    h.report().assert_clean();
    // A pause that stands to the end.
    let h = pausing(Duration::from_secs(20));
    h.ledger.facts().pauses[0].until = None;
    h.assert_only(Finding::StartedWhilePaused);
}

#[test]
fn an_earlier_attempt_within_a_pause_is_found() {
    let mut h = pausing(Duration::from_secs(12));
    let within = h.began.plus(Duration::from_secs(5));
    let earlier = ("run_1".to_owned(), 1);
    h.ledger.facts().executions.get_mut(&earlier).unwrap()[0].from = within;
    h.ledger.facts().executions.get_mut(&earlier).unwrap()[0].until = Some(within);
    (h.stored.runs[0].attempt, h.stored.runs[0].retries) = (2, 1);
    assert_eq!(h.report().count(Finding::StartedWhilePaused), 1);
    // After a fault it may be the delivery of an older one.
    let fault = h.ledger.fault("kill", None);
    (h.ledger.facts().faults[fault].from, h.ledger.facts().faults[fault].until) = (within, within);
    assert_eq!(h.report().count(Finding::StartedWhilePaused), 0);
}

#[test]
fn what_is_played_is_counted_and_must_come_up() {
    let h = parked(Plan::LeftParked);
    let terms = Terms { plays: &[Play::LeftParked, Play::Paused], ..Terms::default() };
    let report = judge(&h.ledger.facts(), &h.stored, &terms);
    assert_eq!((report.count(Finding::NotPlayed), report.found()), (1, 1), "{report}");
    let text = report.to_string();
    assert!(text.contains("runs parked 1, runs unparked 1, runs left parked 1, pauses with runs waiting 0"), "{text}");
    h.ledger.paused();
    h.ledger.waits();
    let fault = h.ledger.fault("kill", None);
    h.ledger.healed(fault);
    h.ledger.resumes();
    let report = judge(&h.ledger.facts(), &h.stored, &terms);
    report.assert_clean();
    assert_eq!((report.played()[&Play::Paused], report.played()[&Play::StoodOver]), (1, 1));
}
