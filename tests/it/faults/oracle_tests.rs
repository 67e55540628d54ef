//! The oracle is itself proved: each kind of made-up wrong is found, and a right history is not blamed.

use std::time::Duration;

use helve_domain::clock::Timestamp;
use serde_json::json;

use super::ledger::{CancelFate, Fate, Kind, Ledger, Plan, Sent};
use super::oracle::{Finding, Report, Row, Stored, Terms, judge};

const RUN: &str = "run_1";

/// One run that went well: accepted, executed by `w1` as `wrk_1`, confirmed, stored.
fn good() -> (Ledger, Row) {
    let ledger = Ledger::new();
    let created = ledger.now();
    let nonce = ledger.intend(Kind::Keyed, Plan::SucceedAfter(0));
    ledger.accepted(nonce, RUN);
    ledger.facts().slots.insert("wrk_1".into(), 1);
    let attempt = (RUN.to_owned(), 1);
    assert!(ledger.begin(&attempt, "wrk_1", "w1"));
    assert!(!ledger.begin(&attempt, "wrk_1", "w1"), "sent again is not executed again");
    ledger.end(&attempt, "wrk_1", Some(Sent::Succeeded(json!({"n": 1}))));
    ledger.stored(attempt, "succeeded");
    let row = Row {
        id: RUN.into(),
        nonce: Some(nonce),
        status: "succeeded".into(),
        attempt: 1,
        retries: 0,
        output: Some(json!({"n": 1})),
        created,
        started: Some(created),
        finished: Some(ledger.now()),
        workflow: "load".into(),
        event: None,
        parks: 0,
        unparks: 0,
    };
    (ledger, row)
}

fn report(ledger: &Ledger, rows: &[Row]) -> Report {
    let terms = Terms { repair: Duration::from_secs(5), ..Terms::default() };
    judge(&ledger.facts(), &stored(rows), &terms)
}

fn stored(runs: &[Row]) -> Stored {
    Stored { runs: runs.to_vec(), events: Vec::new() }
}

fn assert_only(report: &Report, finding: Finding) {
    assert_eq!(report.count(finding), 1, "{report}");
    assert!(!report.is_clean(), "a finding fails the test");
}

#[test]
fn a_right_history_is_not_blamed() {
    let (ledger, row) = good();
    report(&ledger, &[row]).assert_clean();
}

#[test]
fn a_lost_run_is_found() {
    let (ledger, _) = good();
    // Once, although it was a create that was answered and also work that a worker had.
    assert_eq!(report(&ledger, &[]).count(Finding::Lost), 1);
    for create in ledger.facts().creates.values_mut() {
        (create.fate, create.runs) = (Fate::Maybe, Default::default());
    }
    // The answer never came: the worker's word suffices.
    assert_eq!(report(&ledger, &[]).count(Finding::Lost), 1);
}

#[test]
fn a_stuck_run_is_found() {
    let (ledger, row) = good();
    let stuck = Row { status: "running".into(), finished: None, ..row };
    assert_eq!(report(&ledger, &[stuck]).count(Finding::Stuck), 1);
}

#[test]
fn a_run_that_nobody_asked_for_is_found() {
    let (ledger, row) = good();
    let other = Row { id: "run_2".into(), nonce: Some(99), ..row.clone() };
    assert_eq!(report(&ledger, &[row.clone(), other]).count(Finding::Unexpected), 1);
    let refused = ledger.intend(Kind::Plain, Plan::SucceedAfter(0));
    ledger.refused(refused);
    let exists = Row { id: "run_3".into(), nonce: Some(refused), ..row.clone() };
    assert_eq!(report(&ledger, &[row, exists]).count(Finding::Unexpected), 1);
}

#[test]
fn two_runs_of_one_key_are_found() {
    let (ledger, row) = good();
    let twin = Row { id: "run_2".into(), ..row.clone() };
    assert_eq!(report(&ledger, &[row.clone(), twin]).count(Finding::OneKeyTwoRuns), 1);
    ledger.accepted(row.nonce.unwrap(), "run_2");
    assert_eq!(report(&ledger, &[row]).count(Finding::OneKeyTwoRuns), 1);
}

#[test]
fn a_double_accept_is_found() {
    let (ledger, row) = good();
    ledger.stored((RUN.into(), 2), "succeeded");
    assert_only(&report(&ledger, std::slice::from_ref(&row)), Finding::DoubleAccept);
    let (ledger, row) = good();
    assert_only(&report(&ledger, &[row.clone(), row]), Finding::DoubleAccept);
}

#[test]
fn a_duplicate_is_found_unless_a_fault_explains_it() {
    let (ledger, row) = good();
    assert!(ledger.begin(&(RUN.to_owned(), 2), "wrk_2", "w2"));
    ledger.facts().slots.insert("wrk_2".into(), 1);
    assert_only(&report(&ledger, std::slice::from_ref(&row)), Finding::UnjustifiedDuplicate);
    // A fault of a worker that never had the run explains nothing.
    ledger.fault("worker killed", Some("w9"));
    assert_eq!(report(&ledger, std::slice::from_ref(&row)).count(Finding::UnjustifiedDuplicate), 1);
    let open = Row { finished: Some(ledger.now().plus(Duration::from_secs(1))), ..row };
    ledger.fault("worker killed", Some("w1"));
    let justified = report(&ledger, &[open]);
    justified.assert_clean();
    assert_eq!(justified.justified(), 1);
}

#[test]
fn a_fault_long_before_the_run_explains_nothing() {
    let (ledger, row) = good();
    assert!(ledger.begin(&(RUN.to_owned(), 2), "wrk_1", "w1"));
    let fault = ledger.fault("kill", None);
    let before = row.created.minus(Duration::from_secs(60));
    let mut facts = ledger.facts().clone();
    (facts.faults[fault].from, facts.faults[fault].until) = (before, before);
    let terms = Terms { repair: Duration::from_secs(5), ..Terms::default() };
    assert_eq!(judge(&facts, &stored(&[row]), &terms).count(Finding::UnjustifiedDuplicate), 1);
}

#[test]
fn one_attempt_at_two_workers_is_found() {
    let (ledger, row) = good();
    ledger.facts().slots.insert("wrk_2".into(), 1);
    assert!(ledger.begin(&(RUN.to_owned(), 1), "wrk_2", "w2"));
    assert_only(&report(&ledger, &[row]), Finding::OneAttemptTwoWorkers);
}

#[test]
fn a_worker_with_more_than_its_slots_is_found() {
    let (ledger, row) = good();
    ledger.facts().slots.insert("wrk_1".into(), 0);
    assert_only(&report(&ledger, &[row]), Finding::OverSlots);
}

#[test]
fn work_after_a_cancel_is_found() {
    let (ledger, row) = good();
    let row = Row { status: "cancelled".into(), output: None, ..row };
    let long_ago = Timestamp::from_micros(ledger.now().micros() - 60_000_000);
    ledger.facts().stored.clear();
    ledger.facts().cancels.insert(RUN.into(), CancelFate::Accepted(long_ago));
    assert_only(&report(&ledger, std::slice::from_ref(&row)), Finding::StartedAfterCancel);
    ledger.facts().cancels.insert(RUN.into(), CancelFate::Accepted(ledger.now()));
    report(&ledger, std::slice::from_ref(&row)).assert_clean();
    // The store stopped before the attempt that a worker saw.
    assert_only(&report(&ledger, &[Row { attempt: 0, ..row }]), Finding::StartedAfterCancel);
}

#[test]
fn another_end_or_output_than_accepted_is_found() {
    let (ledger, row) = good();
    let failed = Row { status: "failed".into(), output: None, ..row.clone() };
    // Against what was confirmed, and against the plan.
    assert_eq!(report(&ledger, &[failed]).count(Finding::WrongStatus), 2);
    let other = Row { output: Some(json!({"n": 2})), ..row };
    assert_only(&report(&ledger, &[other]), Finding::WrongOutput);
}

#[test]
fn a_fault_that_never_happened_fails_the_test() {
    let (ledger, row) = good();
    let terms = Terms { faults: vec![("kill", 1)], ..Terms::default() };
    let stored = stored(&[row]);
    assert_only(&judge(&ledger.facts(), &stored, &terms), Finding::FaultMissing);
    ledger.fault("kill", None);
    judge(&ledger.facts(), &stored, &terms).assert_clean();
}
