//! What clients and workers saw, recorded as it happened: the facts that the oracle judges.

pub mod plays;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use helve_domain::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use self::plays::{Labels, Parking, Pause, Push, Required};
use crate::lock::lock;

/// Marks one intended run: the mark is in the input, so that a run can be recognised without its id.
pub type Nonce = u64;
/// A run's id in its text form.
pub type RunId = String;
/// A run with its attempt's number.
pub type Attempt = (RunId, i64);

/// What a task is made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Fails this often, then succeeds. The retries suffice.
    SucceedAfter(u32),
    /// Fails with an error that must not be retried.
    FailForGood,
    /// Fails until its attempts are spent and it is parked; succeeds once it is unparked.
    Parked,
    /// Fails until it is parked, is unparked once, and fails until it is parked again. Then it stays parked.
    LeftParked,
}

impl Plan {
    /// Whether runs with this plan are parked.
    pub const fn parks(self) -> bool {
        matches!(self, Self::Parked | Self::LeftParked)
    }
}

/// How a create is made safe to repeat, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Without a key: sent once.
    Plain,
    /// With an idempotency key: sent until it is answered.
    Keyed,
}

/// What the client knows about a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Answered 2xx.
    Accepted,
    /// The answer was lost, or said that the outcome is unknown: the run may exist.
    Maybe,
    /// The engine said that nothing was written, or never saw it: the run must not exist.
    Refused,
}

/// One intended run.
#[derive(Debug, Clone)]
pub struct Create {
    /// How it was sent.
    pub kind: Kind,
    /// What its task does.
    pub plan: Plan,
    /// The label that it requires of its worker.
    pub requires: Option<Required>,
    /// What the client knows.
    pub fate: Fate,
    /// Every run id that an answer named.
    pub runs: BTreeSet<RunId>,
}

/// What a client knows about a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelFate {
    /// Answered 2xx.
    Accepted(Timestamp),
    /// Refused as too late.
    TooLate,
    /// The answer was lost.
    Unknown,
}

/// One delivery as a worker saw it.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The worker's id in the engine.
    pub worker: String,
    /// The worker's name in the load.
    pub name: String,
    /// When it began.
    pub from: Timestamp,
    /// When it stopped occupying a slot of the worker.
    pub until: Option<Timestamp>,
    /// The result that the worker sent.
    pub sent: Option<Sent>,
}

/// A result as a worker sent it.
#[derive(Debug, Clone, PartialEq)]
pub enum Sent {
    /// With this output.
    Succeeded(Value),
    /// An error.
    Failed,
    /// Released.
    Released,
}

/// A fault that was injected.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its kind, as in the report.
    pub kind: &'static str,
    /// When it began.
    pub from: Timestamp,
    /// When everything was allowed to work again.
    pub until: Timestamp,
    /// The worker that it affected; `None`: it affected everything.
    pub worker: Option<String>,
}

/// All facts of one load.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Every intended run.
    pub creates: BTreeMap<Nonce, Create>,
    /// Every intended event.
    pub pushes: BTreeMap<Nonce, Push>,
    /// What happened to each run that was seen parked.
    pub parkings: BTreeMap<RunId, Parking>,
    /// Pauses of the workflow `PAUSING`, in order.
    pub pauses: Vec<Pause>,
    /// The labels of each worker, by the engine's id, with the time since which it has had them.
    pub labels: BTreeMap<String, Vec<(Timestamp, Labels)>>,
    /// Every cancel, by run.
    pub cancels: BTreeMap<RunId, CancelFate>,
    /// Every delivery: by attempt, then in the order in which workers saw it.
    pub executions: BTreeMap<Attempt, Vec<Execution>>,
    /// Results that the engine confirmed, with the run's status after it.
    pub stored: BTreeMap<Attempt, BTreeSet<String>>,
    /// Injected faults.
    pub faults: Vec<Fault>,
    /// Failures that were sent, by run: the plan counts them.
    pub failures: BTreeMap<RunId, u32>,
    /// Slots of each worker, by the engine's id.
    pub slots: BTreeMap<String, u32>,
    /// Results that a worker sent again on a new socket.
    pub resent: usize,
    /// Deliveries of attempts that the worker already had.
    pub redelivered: usize,
    /// Attempts that the engine declared over.
    pub superseded: usize,
    /// Unexpected answers and frames.
    pub surprises: Vec<String>,
    nonces: Nonce,
}

/// The facts, shared by clients, workers and whatever injects faults.
#[derive(Clone)]
pub struct Ledger {
    facts: Arc<Mutex<Facts>>,
    clock: Clock,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { facts: Arc::default(), clock: Clock::system() }
    }

    /// The facts so far.
    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }

    /// Now, on the ledger's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new intended run; its fate is `Maybe` until it is known.
    pub fn intend(&self, kind: Kind, plan: Plan) -> Nonce {
        self.intend_on(kind, plan, None)
    }

    /// As [`Ledger::intend`], for a run that requires this label of its worker.
    pub fn intend_on(&self, kind: Kind, plan: Plan, requires: Option<Required>) -> Nonce {
        let mut facts = self.facts();
        let nonce = facts.next_nonce();
        facts.creates.insert(nonce, Create { kind, plan, requires, fate: Fate::Maybe, runs: BTreeSet::new() });
        nonce
    }

    /// A create was answered 2xx with this run.
    pub fn accepted(&self, nonce: Nonce, run: &str) {
        let mut facts = self.facts();
        if let Some(create) = facts.creates.get_mut(&nonce) {
            create.fate = Fate::Accepted;
            create.runs.insert(run.to_owned());
        }
    }

    /// A create was refused, and nothing written.
    pub fn refused(&self, nonce: Nonce) {
        if let Some(create) = self.facts().creates.get_mut(&nonce) {
            create.fate = Fate::Refused;
        }
    }

    /// An unexpected answer or frame.
    pub fn surprise(&self, what: String) {
        self.facts().surprises.push(what);
    }

    /// A delivery began. False: this worker has it already; it was only sent again.
    pub fn begin(&self, attempt: &Attempt, worker: &str, name: &str) -> bool {
        let from = self.now();
        let mut facts = self.facts();
        let seen = facts.executions.entry(attempt.clone()).or_default();
        if seen.iter().any(|e| e.worker == worker) {
            return false;
        }
        seen.push(Execution { worker: worker.to_owned(), name: name.to_owned(), from, until: None, sent: None });
        true
    }

    /// The attempt no longer occupies a slot of the worker; `sent` if the worker reported a result. Call it *before*
    /// the result leaves, because the engine may use the slot from then on.
    pub fn end(&self, attempt: &Attempt, worker: &str, sent: Option<Sent>) {
        let now = self.now();
        let mut facts = self.facts();
        let seen = facts.executions.get_mut(attempt).and_then(|all| all.iter_mut().find(|e| e.worker == worker));
        if let Some(execution) = seen {
            execution.until.get_or_insert(now);
            if sent.is_some() {
                execution.sent = sent;
            }
        }
    }

    /// The engine confirmed a result.
    pub fn stored(&self, attempt: Attempt, status: &str) {
        self.facts().stored.entry(attempt).or_default().insert(status.to_owned());
    }

    /// Begins a fault that affects everything, or one worker; [`Ledger::healed`] ends it.
    pub fn fault(&self, kind: &'static str, worker: Option<&str>) -> usize {
        let now = self.now();
        let mut facts = self.facts();
        facts.faults.push(Fault { kind, from: now, until: now, worker: worker.map(str::to_owned) });
        facts.faults.len() - 1
    }

    /// The fault is over: what follows is the engine's own recovery.
    pub fn healed(&self, fault: usize) {
        let now = self.now();
        self.facts().faults[fault].until = now;
    }

    /// A fault that affected everything from `from` until now.
    pub fn happened(&self, kind: &'static str, from: Timestamp) {
        let until = self.now();
        self.facts().faults.push(Fault { kind, from, until, worker: None });
    }

    /// Whether the task fails this time, by its plan; counts it.
    pub fn fails(&self, nonce: Nonce, run: &str) -> Option<Value> {
        let mut facts = self.facts();
        let error = json!({"message": "as planned", "code": "planned"});
        match facts.plan(nonce)? {
            Plan::FailForGood => Some(json!({"message": "as planned", "code": "planned", "retryable": false})),
            Plan::SucceedAfter(failures) => {
                let sent = facts.failures.entry(run.to_owned()).or_default();
                (*sent < failures).then(|| {
                    *sent += 1;
                    error
                })
            }
            Plan::Parked => (!facts.parkings.get(run).is_some_and(|p| p.asked)).then_some(error),
            Plan::LeftParked => Some(error),
        }
    }
}

impl Facts {
    /// A new, unique mark.
    const fn next_nonce(&mut self) -> Nonce {
        self.nonces += 1;
        self.nonces
    }

    /// What the task of a run with this mark does.
    pub fn plan(&self, nonce: Nonce) -> Option<Plan> {
        let of_create = self.creates.get(&nonce).map(|create| create.plan);
        of_create.or_else(|| self.pushes.get(&nonce).map(|push| push.plan))
    }

    /// Whether a fault affected this run: the run was open while the fault or its repair was in progress.
    pub fn struck(fault: &Fault, open: (Timestamp, Timestamp), workers: &BTreeSet<&str>, repair: Duration) -> bool {
        let together = fault.from <= open.1 && open.0 <= fault.until.plus(repair);
        together && fault.worker.as_ref().is_none_or(|w| workers.contains(w.as_str()))
    }
}
