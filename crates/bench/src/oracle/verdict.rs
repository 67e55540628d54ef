//! The oracle: compares what was accepted, what workers saw and what the store contains.

mod creates;
mod events;
mod labels;
mod parks;
mod pauses;
mod show;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helve_domain::clock::Timestamp;
use serde_json::Value;

use super::ledger::plays::{EventId, Play};
use super::ledger::{CancelFate, Execution, Facts, Fate, Nonce, Plan, RunId, Sent};

/// When a cancel is answered, the run's last frames may still be in a socket's buffers.
const FRAMES_UNDER_WAY: Duration = Duration::from_secs(2);
/// The clocks of two processes on one machine agree to within this.
const CLOCKS: Duration = Duration::from_millis(50);

/// One row of the store.
#[derive(Debug, Clone)]
pub struct Row {
    /// The run.
    pub id: RunId,
    /// The intended run, from its input.
    pub nonce: Option<Nonce>,
    /// Its status.
    pub status: String,
    /// The last attempt.
    pub attempt: i64,
    /// Retries that were spent.
    pub retries: u32,
    /// Its result.
    pub output: Option<Value>,
    /// Its creation.
    pub created: Timestamp,
    /// When the last attempt was assigned.
    pub started: Option<Timestamp>,
    /// Its end.
    pub finished: Option<Timestamp>,
    /// Its workflow.
    pub workflow: String,
    /// The event that started it.
    pub event: Option<EventId>,
    /// How often it was parked.
    pub parks: u32,
    /// How often it was unparked.
    pub unparks: u32,
}

/// An event of the store.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// The event.
    pub id: EventId,
    /// The intended event, from its payload.
    pub nonce: Option<Nonce>,
    /// The runs that it started, according to its own row.
    pub runs: Vec<RunId>,
}

/// What the store contains.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Every run.
    pub runs: Vec<Row>,
    /// Every event.
    pub events: Vec<EventRow>,
}

/// What must not be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Accepted, and not in the store.
    Lost,
    /// In the store, and not ended.
    Stuck,
    /// In the store, and refused or never requested.
    Unexpected,
    /// One intended run became two.
    OneKeyTwoRuns,
    /// Two results of one run were accepted, or it ended twice.
    DoubleAccept,
    /// Executed more often than retries and faults explain.
    UnjustifiedDuplicate,
    /// One attempt was at two workers.
    OneAttemptTwoWorkers,
    /// A worker had more work than slots.
    OverSlots,
    /// Started after its cancel was answered.
    StartedAfterCancel,
    /// Ended otherwise than the plan, the accepted result or the cancel require.
    WrongStatus,
    /// The result differs from the one that the accepted attempt sent.
    WrongOutput,
    /// An event was accepted, and is not in the store.
    EventLost,
    /// One intended event became two.
    EventTwice,
    /// An event is in the store, and was refused or never pushed.
    EventUnexpected,
    /// An event has other runs than it should start, or than its answer named.
    EventRuns,
    /// Started on a worker without a label that the run requires.
    WrongLabels,
    /// Parked or unparked otherwise than its attempts and the answered unparks require.
    WrongPark,
    /// Started while its workflow was paused.
    StartedWhilePaused,
    /// A fault that should have happened did not: the test proves nothing.
    FaultMissing,
    /// A play that should have occurred did not: the test proves nothing about it.
    NotPlayed,
    /// An unexpected answer or frame.
    Surprise,
}

/// What the oracle must know besides the facts.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// How long the repair of a fault may affect further runs: lease, grace, confirmation timeout.
    pub repair: Duration,
    /// Each kind of fault with how often it must have happened.
    pub faults: Vec<(&'static str, u32)>,
    /// The plays that must have occurred.
    pub plays: &'static [Play],
}

/// The verdict, with its numbers.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: BTreeMap<Finding, Vec<String>>,
    accepted: usize,
    maybe: usize,
    recovered: usize,
    refused: usize,
    executions: usize,
    justified: usize,
    cancelled: usize,
    /// Results sent again, deliveries repeated, attempts superseded.
    frames: (usize, usize, usize),
    faults: BTreeMap<&'static str, u32>,
    played: BTreeMap<Play, usize>,
}

/// Judges the facts against the store.
pub fn judge(facts: &Facts, stored: &Stored, terms: &Terms) -> Report {
    let rows = &stored.runs;
    let frames = (facts.resent, facts.redelivered, facts.superseded);
    let mut report = Report { frames, played: facts.played(), ..Report::default() };
    report.judge_creates(facts, rows);
    report.judge_events(facts, stored);
    let by_run = executions_by_run(facts);
    let mut seen = BTreeSet::new();
    for row in rows {
        if !seen.insert(&row.id) {
            report.add(Finding::DoubleAccept, format!("{} stands in the store twice", row.id));
        }
        let executions = by_run.get(row.id.as_str()).map_or(&[][..], Vec::as_slice);
        report.judge_end(facts, row);
        report.judge_cancel(facts, row, executions);
        report.judge_executions(facts, row, executions, terms);
        report.judge_labels(facts, row, executions, terms);
        report.judge_park(facts, row, executions);
        report.judge_pauses(facts, row, executions, terms);
    }
    // An accepted event that is lost was reported already.
    let accepted = facts.creates.values().filter(|c| c.fate == Fate::Accepted).flat_map(|c| &c.runs);
    let pushed = facts.pushes.values().flat_map(|push| &push.runs);
    let known: BTreeSet<_> = seen.into_iter().chain(accepted).chain(pushed).map(String::as_str).collect();
    for run in by_run.keys().filter(|run| !known.contains(*run)) {
        report.add(Finding::Lost, format!("{run} was given to a worker and is not in the store"));
    }
    report.judge_attempts(facts);
    report.judge_slots(facts);
    for fault in &facts.faults {
        *report.faults.entry(fault.kind).or_default() += 1;
    }
    for (kind, at_least) in &terms.faults {
        let happened = report.faults.get(kind).copied().unwrap_or(0);
        if happened < *at_least {
            report.add(Finding::FaultMissing, format!("{kind}: {happened} of {at_least}"));
        }
    }
    for play in terms.plays {
        if report.played.get(play).is_none_or(|n| *n == 0) {
            report.add(Finding::NotPlayed, play.name().to_owned());
        }
    }
    for surprise in &facts.surprises {
        report.add(Finding::Surprise, surprise.clone());
    }
    report
}

type Executions<'a> = Vec<(i64, &'a Execution)>;

fn executions_by_run(facts: &Facts) -> BTreeMap<&str, Executions<'_>> {
    let mut by_run = BTreeMap::<_, Executions<'_>>::new();
    for ((run, attempt), executions) in &facts.executions {
        by_run.entry(run.as_str()).or_default().extend(executions.iter().map(|e| (*attempt, e)));
    }
    by_run
}

fn is_final(status: &str) -> bool {
    matches!(status, "succeeded" | "failed" | "cancelled")
}

impl Report {
    fn add(&mut self, finding: Finding, what: String) {
        self.findings.entry(finding).or_default().push(what);
    }

    /// How often something was found.
    pub fn count(&self, finding: Finding) -> usize {
        self.findings.get(&finding).map_or(0, Vec::len)
    }

    /// The number of findings.
    pub fn found(&self) -> usize {
        self.findings.values().map(Vec::len).sum()
    }

    /// Executions that were repeated because of a fault.
    pub fn justified(&self) -> usize {
        self.justified
    }

    /// Runs that were accepted.
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// Each kind of fault with how often it happened.
    pub const fn faults(&self) -> &BTreeMap<&'static str, u32> {
        &self.faults
    }

    /// How often each play occurred.
    pub const fn played(&self) -> &BTreeMap<Play, usize> {
        &self.played
    }

    /// Nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// For tests: nothing may be found.
    ///
    /// # Panics
    /// When anything was found.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "\n{self}");
    }

    /// The run ended once, as the accepted result requires.
    fn judge_end(&mut self, facts: &Facts, row: &Row) {
        let id = &row.id;
        let may_be_parked = row.status == "parked" && row.nonce.and_then(|n| facts.plan(n)).is_some_and(Plan::parks);
        if !is_final(&row.status) && !may_be_parked {
            self.add(Finding::Stuck, format!("{id} is {} in attempt {}", row.status, row.attempt));
        }
        let results = facts.stored.range((id.clone(), i64::MIN)..=(id.clone(), i64::MAX));
        let ends = |statuses: &BTreeSet<String>| statuses.iter().any(|s| s == "succeeded" || s == "failed");
        let accepted: Vec<_> = results.filter(|(_, statuses)| ends(statuses)).collect();
        if accepted.len() > 1 || accepted.iter().any(|(_, statuses)| statuses.len() > 1) {
            self.add(Finding::DoubleAccept, format!("{id}: {accepted:?}"));
        }
        for ((_, attempt), statuses) in accepted {
            if *attempt != row.attempt || !statuses.contains(&row.status) {
                let (status, last) = (&row.status, row.attempt);
                let what = format!("{id}: attempt {attempt} was confirmed as {statuses:?}, stored is {last} {status}");
                self.add(Finding::WrongStatus, what);
            }
        }
        if row.status == "succeeded" {
            let executions = facts.executions.get(&(id.clone(), row.attempt));
            let sent = executions.into_iter().flatten().filter_map(|e| e.sent.as_ref());
            let outputs: Vec<_> = sent.filter(|s| matches!(s, Sent::Succeeded(_))).collect();
            if !outputs.iter().any(|s| matches!(s, Sent::Succeeded(o) if Some(o) == row.output.as_ref())) {
                self.add(Finding::WrongOutput, format!("{id}: sent {outputs:?}, stored {:?}", row.output));
            }
        }
    }

    fn judge_cancel(&mut self, facts: &Facts, row: &Row, executions: &[(i64, &Execution)]) {
        let id = &row.id;
        let cancel = facts.cancels.get(id);
        if let Some(CancelFate::Accepted(at)) = cancel {
            self.cancelled += 1;
            if row.status != "cancelled" {
                self.add(Finding::WrongStatus, format!("{id}: its cancel was answered, it is {}", row.status));
            }
            // A stalled worker reads old frames late, so its deliveries are judged by number alone.
            let stalled = |e: &Execution| facts.faults.iter().any(|f| f.worker.as_ref() == Some(&e.name));
            for (attempt, e) in executions {
                let late = e.from > at.plus(FRAMES_UNDER_WAY) && !stalled(e);
                if late || *attempt > row.attempt {
                    let what = format!("{id}: attempt {attempt} at {} began after its cancel", e.name);
                    self.add(Finding::StartedAfterCancel, what);
                }
            }
            return;
        }
        let wanted = match row.nonce.and_then(|n| facts.plan(n)) {
            Some(Plan::SucceedAfter(_)) => "succeeded",
            Some(Plan::FailForGood) => "failed",
            // Judged by its parks.
            Some(Plan::Parked | Plan::LeftParked) | None => return,
        };
        let may_be_cancelled = cancel == Some(&CancelFate::Unknown) && row.status == "cancelled";
        if is_final(&row.status) && row.status != wanted && !may_be_cancelled {
            self.add(Finding::WrongStatus, format!("{id}: planned {wanted}, stored {}", row.status));
        }
    }

    /// Every execution is explained: the first, one for each retry and release, one for each fault that affected the
    /// run.
    fn judge_executions(&mut self, facts: &Facts, row: &Row, executions: &[(i64, &Execution)], terms: &Terms) {
        let attempts: BTreeSet<_> = executions.iter().map(|(attempt, _)| *attempt).collect();
        self.executions += attempts.len();
        let released = executions.iter().filter(|(_, e)| e.sent == Some(Sent::Released)).count();
        let explained = 1 + usize::try_from(row.retries).unwrap_or(0) + released + parks::spent(row.unparks);
        let extra = attempts.len().saturating_sub(explained);
        if extra == 0 {
            return;
        }
        let workers: BTreeSet<_> = executions.iter().map(|(_, e)| e.name.as_str()).collect();
        let last = executions.iter().map(|(_, e)| e.from).max().unwrap_or(row.created);
        let open = (row.created, row.finished.unwrap_or(last));
        let faults = facts.faults.iter().filter(|f| Facts::struck(f, open, &workers, terms.repair)).count();
        self.justified += extra.min(faults);
        if extra > faults {
            let seen: Vec<_> = executions.iter().map(|(a, e)| (a, &e.name, e.from, &e.sent)).collect();
            let what = format!("{}: {extra} more than explained, {faults} faults struck it: {seen:?}", row.id);
            self.add(Finding::UnjustifiedDuplicate, what);
        }
    }
}
