//! The oracle: compares what was accepted, what workers saw and what the store says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::ledger::{CancelFate, Execution, Facts, Fate, Nonce, Plan, RunId, Sent};
use crate::clock::Timestamp;

/// A cancelled run's last frames may still lie in a socket's buffers when the cancel is answered.
const FRAMES_UNDER_WAY: Duration = Duration::from_secs(2);

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
    /// Its end.
    pub finished: Option<Timestamp>,
}

/// What must not be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Accepted, and not in the store.
    Lost,
    /// In the store, and not ended.
    Stuck,
    /// In the store, and refused or never asked for.
    Unexpected,
    /// One intended run became two.
    OneKeyTwoRuns,
    /// Two results of one run were accepted, or it ended twice.
    DoubleAccept,
    /// Executed more often than retries and faults explain.
    UnjustifiedDuplicate,
    /// One attempt at two workers.
    OneAttemptTwoWorkers,
    /// More at a worker than it has slots.
    OverSlots,
    /// Begun after its cancel was answered.
    StartedAfterCancel,
    /// Another end than the plan, the accepted result or the cancel say.
    WrongStatus,
    /// Another result than the accepted attempt sent.
    WrongOutput,
    /// A fault that was to happen did not: the test proves nothing.
    FaultMissing,
    /// An answer or a frame that nothing should have caused.
    Surprise,
}

/// What the oracle must know besides the facts.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// How long the repair of a fault may touch further runs: lease, grace, confirmation timeout.
    pub repair: Duration,
    /// Each kind of fault with how often it must have happened.
    pub faults: Vec<(&'static str, u32)>,
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
}

/// Judges the facts by the rows.
pub fn judge(facts: &Facts, rows: &[Row], terms: &Terms) -> Report {
    let frames = (facts.resent, facts.redelivered, facts.superseded);
    let mut report = Report { frames, ..Report::default() };
    report.judge_creates(facts, rows);
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
    }
    // An accepted one that is lost was named already.
    let accepted = facts.creates.values().filter(|c| c.fate == Fate::Accepted).flat_map(|c| &c.runs);
    let known: BTreeSet<_> = seen.into_iter().chain(accepted).map(String::as_str).collect();
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

    /// The numbers, for a machine.
    pub fn to_json(&self) -> Value {
        let findings: BTreeMap<_, _> = self.findings.iter().map(|(f, all)| (format!("{f:?}"), all)).collect();
        json!({"accepted": self.accepted, "refused": self.refused, "unknown": self.maybe,
               "unknown_that_exist": self.recovered, "cancelled": self.cancelled, "executions": self.executions,
               "repeated_for_a_fault": self.justified, "faults": self.faults, "findings": findings})
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

    fn judge_creates(&mut self, facts: &Facts, rows: &[Row]) {
        let mut by_nonce = BTreeMap::<Nonce, BTreeSet<&str>>::new();
        for row in rows {
            match row.nonce.filter(|n| facts.creates.contains_key(n)) {
                Some(nonce) => {
                    by_nonce.entry(nonce).or_default().insert(&row.id);
                }
                None => self.add(Finding::Unexpected, format!("{}: nobody asked for it", row.id)),
            }
        }
        for (nonce, create) in &facts.creates {
            let found = by_nonce.get(nonce).cloned().unwrap_or_default();
            let what = || format!("{:?} create {nonce}, answers {:?}, store {found:?}", create.kind, create.runs);
            match create.fate {
                Fate::Accepted => self.accepted += 1,
                Fate::Maybe => {
                    self.maybe += 1;
                    self.recovered += usize::from(!found.is_empty());
                }
                Fate::Refused => self.refused += 1,
            }
            if create.fate == Fate::Accepted && !create.runs.iter().all(|run| found.contains(run.as_str())) {
                self.add(Finding::Lost, what());
            }
            if create.fate == Fate::Refused && !found.is_empty() {
                self.add(Finding::Unexpected, what());
            }
            if found.len() > 1 || create.runs.len() > 1 {
                self.add(Finding::OneKeyTwoRuns, what());
            }
        }
    }

    /// The run ended, once, as the accepted result says.
    fn judge_end(&mut self, facts: &Facts, row: &Row) {
        let id = &row.id;
        if !is_final(&row.status) {
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
            // A worker that is stalled reads old frames late: its deliveries are judged by number alone.
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
        let Some(create) = row.nonce.and_then(|n| facts.creates.get(&n)) else { return };
        let wanted = match create.plan {
            Plan::SucceedAfter(_) => "succeeded",
            Plan::FailForGood => "failed",
        };
        let may_be_cancelled = cancel == Some(&CancelFate::Unknown) && row.status == "cancelled";
        if is_final(&row.status) && row.status != wanted && !may_be_cancelled {
            self.add(Finding::WrongStatus, format!("{id}: planned {wanted}, stored {}", row.status));
        }
    }

    /// Executions are explained: the first, one for each retry and release, one for each fault that struck.
    fn judge_executions(&mut self, facts: &Facts, row: &Row, executions: &[(i64, &Execution)], terms: &Terms) {
        let attempts: BTreeSet<_> = executions.iter().map(|(attempt, _)| *attempt).collect();
        self.executions += attempts.len();
        let released = executions.iter().filter(|(_, e)| e.sent == Some(Sent::Released)).count();
        let explained = 1 + usize::try_from(row.retries).unwrap_or(0) + released;
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

    fn judge_attempts(&mut self, facts: &Facts) {
        for ((run, attempt), executions) in &facts.executions {
            if executions.len() > 1 {
                let workers: Vec<_> = executions.iter().map(|e| (&e.name, &e.worker)).collect();
                self.add(Finding::OneAttemptTwoWorkers, format!("{run} attempt {attempt}: {workers:?}"));
            }
        }
    }

    fn judge_slots(&mut self, facts: &Facts) {
        let mut edges = BTreeMap::<&str, Vec<(Timestamp, i32)>>::new();
        for e in facts.executions.values().flatten() {
            let of_worker = edges.entry(&e.worker).or_default();
            of_worker.push((e.from, 1));
            of_worker.extend(e.until.map(|until| (until, -1)));
        }
        for (worker, mut of_worker) in edges {
            // At one instant an end comes before a begin.
            of_worker.sort_unstable();
            let (mut now, mut most) = (0, 0);
            for (_, change) in of_worker {
                now += change;
                most = most.max(now);
            }
            let slots = facts.slots.get(worker).copied().unwrap_or(0);
            if most > i32::try_from(slots).unwrap_or(i32::MAX) {
                self.add(Finding::OverSlots, format!("{worker} held {most} at once and has {slots} slots"));
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accepted {}, refused {}, unknown {} of which {} exist, cancelled {}, executed {}, repeated for a fault {}",
            self.accepted, self.refused, self.maybe, self.recovered, self.cancelled, self.executions, self.justified
        )?;
        let (resent, redelivered, superseded) = self.frames;
        writeln!(f, "  results resent {resent}, deliveries repeated {redelivered}, attempts superseded {superseded}")?;
        for (kind, n) in &self.faults {
            write!(f, "  {kind}: {n}")?;
            if self.is_clean() {
                write!(f, ", failure probability below {:.3} (95 %, 3/N)", (3.0 / f64::from(*n)).min(1.0))?;
            }
            writeln!(f)?;
        }
        for (finding, all) in &self.findings {
            writeln!(f, "  FOUND {finding:?}: {}", all.len())?;
            for what in all.iter().take(5) {
                writeln!(f, "      {what}")?;
            }
        }
        Ok(())
    }
}
