//! The state of a shard: tasks, queues, sessions, timers, and transitions that are on their way.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::definition::Spec;
use crate::domain::delivery::{Attempt, Outcome, Reason, WorkerInfo};
use crate::domain::run::RunError;
use crate::domain::status::RunStatus;
use crate::id::{EventId, RunId, SessionId, TenantId, WorkerId};

use super::queues::{Offer, Queue};
use super::types::{
    Answer, Body, Command, Context, CreateKey, Effect, EndRow, Flight, Guard, Lane, OpenRow, QueueKey, Row, Ticket,
    Transport, Write,
};

/// The settings that decisions depend on; their meaning is told in `config::Scheduling`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Assign at creation where a slot is free.
    pub optimistic: bool,
    /// Queued runs of one action in memory.
    pub window: usize,
    /// Creates of one shard that wait for their commit.
    pub pending: usize,
    /// How long a lost worker keeps its attempts.
    pub grace: Duration,
    /// Time to the first resend of an unconfirmed assignment.
    pub ack: Duration,
    /// How long a cancelled attempt may hold its slot.
    pub cancel_grace: Duration,
    /// Times that a run may be lost with its worker.
    pub redeliveries: i32,
}

/// One unit of state with one writer: everything of the tenants that are hashed to it.
pub struct Shard {
    pub(super) settings: Settings,
    /// Every run that memory has an interest in; all others are only in the database.
    pub(super) tasks: HashMap<RunId, Task>,
    pub(super) queues: HashMap<QueueKey, Queue>,
    pub(super) offers: HashMap<QueueKey, Offer>,
    pub(super) sessions: HashMap<SessionId, Session>,
    pub(super) flights: HashMap<Flight, InFlight>,
    /// Create keys on their way, and who waits behind each.
    pub(super) keys: HashMap<(TenantId, Arc<str>, Arc<str>), VecDeque<Command>>,
    /// At most one timer a run: what it means follows from where the run stands.
    pub(super) timers: BTreeSet<(Timestamp, RunId)>,
    pub(super) session_timers: BTreeSet<(Timestamp, SessionId)>,
    /// Timers up to here are in memory; later ones wait in the database.
    pub(super) timer_horizon: Timestamp,
    /// Commands that wait for a run's row to be read.
    pub(super) loading: HashMap<RunId, VecDeque<Deferred>>,
    /// Creates that are not committed.
    pub(super) creating: usize,
    /// Runs assigned at creation that are not committed.
    pub(super) optimistic: usize,
    pub(super) next_flight: Flight,
    pub(super) draining: bool,
    pub(super) counters: Counters,
}

/// What the shard has done since it is here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Runs created.
    pub created: u64,
    /// Of those, already assigned.
    pub optimistic: u64,
    /// Runs ended.
    pub finished: u64,
    /// Assignments sent again.
    pub resent: u64,
    /// Attempts taken back.
    pub taken_back: u64,
}

/// A run in memory.
pub(super) struct Task {
    pub tenant: TenantId,
    pub spec: Arc<Spec>,
    pub priority: i16,
    pub rank: i64,
    pub retries: i32,
    pub attempt: i32,
    pub event: Option<EventId>,
    /// Known while the run is created or held by a worker.
    pub body: Option<Arc<Body>>,
    pub phase: Phase,
    /// The transition that changes it now; further commands wait.
    pub flight: Option<Flight>,
    pub deferred: VecDeque<Deferred>,
    /// Its entry in `timers`.
    pub timer: Option<Timestamp>,
}

/// Where a task stands, as committed; while it flies, the phase before the flight.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// Not committed yet.
    New,
    Scheduled { due: Timestamp },
    Queued { expires: Option<Timestamp> },
    Running(Held),
}

/// A running attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub session: SessionId,
    pub worker: WorkerId,
    pub started_at: Timestamp,
    pub delivery: Delivery,
    /// The end of its time: set when it was received.
    pub deadline: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Delivery {
    /// Sent so many times, first at `first`; not confirmed.
    Sent { first: Timestamp, times: u32 },
    /// The worker has it.
    Received,
}

/// A command that waits until the run's transition is committed or its row is read.
pub(super) enum Deferred {
    Cancel { tenant: TenantId, ticket: Ticket },
    Result { session: SessionId, attempt: Attempt, outcome: Outcome },
    Extend { session: SessionId, attempt: Attempt, by: Duration },
    /// The session that holds it is over.
    TakeBack { session: SessionId, reason: TakeBack },
    Timer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakeBack {
    /// The worker gave it back, or left.
    Released,
    /// Never confirmed, or not held after a reconnect.
    Undelivered,
    /// The grace of a lost worker ended.
    Lost,
}

/// A worker's session in memory.
pub(super) struct Session {
    pub worker: WorkerId,
    pub tenant: TenantId,
    pub secret: [u8; 32],
    pub info: WorkerInfo,
    pub used: BTreeMap<Arc<str>, u32>,
    pub transport: Option<Transport>,
    pub lost_at: Option<Timestamp>,
    /// Its row is committed.
    pub ready: bool,
    pub draining: bool,
    pub congested: bool,
    /// What holds its slots: attempts that run, are on their way, or are told to stop.
    pub holds: HashMap<Attempt, Hold>,
    pub timer: Option<Timestamp>,
    /// Look-ups of attempts that it does not hold: a budget that refills with time.
    pub lookups: Budget,
}

#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub cost: u32,
    pub kind: Arc<str>,
    /// Told to stop: the slot is kept until the worker lets go or until this time.
    pub until: Option<(Timestamp, Reason)>,
}

/// At most 100 a second, with as many in store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    left: u32,
    since: Timestamp,
}

impl Budget {
    const FULL: u32 = 100;

    pub const fn full(now: Timestamp) -> Self {
        Self { left: Self::FULL, since: now }
    }

    pub fn take(&mut self, now: Timestamp) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self::full(now);
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

/// A transition on its way, with what each of its rows means.
pub(super) struct InFlight {
    pub steps: Vec<Step>,
}

/// What a row of a flight means for memory.
pub(super) enum Step {
    /// A run is created.
    Create { run: RunId, ticket: Option<Ticket>, start: Start, key: Option<CreateKey> },
    /// An event is created; its runs follow as steps of their own.
    Event { event: EventId, runs: Vec<RunId>, ticket: Ticket, key: Option<CreateKey> },
    /// A run is given to a session.
    Assign { run: RunId, to: Assigned },
    /// A run stops running, or its time has come; `before` is undone to on a refusal.
    Place { run: RunId, place: Placed, note: Note },
    /// A run ends.
    End { run: RunId, row: Box<EndRow>, note: Note },
    /// A deadline was moved.
    Extend { run: RunId, attempt: Attempt, deadline: Timestamp, by: Duration },
    /// A worker's row was written.
    Worker { session: SessionId, ticket: Option<Ticket>, secret: String, unknown: Vec<(Attempt, Reason)> },
    /// A worker's row was removed.
    Gone,
}

/// To whom a run is given, and when that was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assigned {
    pub session: SessionId,
    pub worker: WorkerId,
    pub at: Timestamp,
}

/// Where a new run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Assigned(Assigned),
    Queued { expires: Option<Timestamp> },
    Scheduled { due: Timestamp },
}

/// Where a run comes to rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Placed {
    Queued { expires: Option<Timestamp>, retries: i32 },
    Scheduled { due: Timestamp, retries: i32 },
}

/// Whom a change concerns besides the run: the holder of its last attempt and a caller.
#[derive(Debug, Clone, Default)]
pub(super) struct Note {
    /// The attempt that ends with this change, and how its holder learns of it.
    pub holder: Option<(SessionId, Attempt, Farewell)>,
    /// The caller who asked for it.
    pub ticket: Option<(TenantId, Ticket)>,
}

/// How the holder of an attempt learns that it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It sent the result: the result is stored.
    Stored,
    /// It must stop within the grace, and keeps the slot until then.
    Stop(Reason),
    /// Nobody is there to be told; the slot is free.
    Silent,
    /// It is told that the attempt does not count any more; the slot is free.
    Superseded(Reason),
}

impl Shard {
    /// An empty shard.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            tasks: HashMap::new(),
            queues: HashMap::new(),
            offers: HashMap::new(),
            sessions: HashMap::new(),
            flights: HashMap::new(),
            keys: HashMap::new(),
            timers: BTreeSet::new(),
            session_timers: BTreeSet::new(),
            timer_horizon: Timestamp::default(),
            loading: HashMap::new(),
            creating: 0,
            optimistic: 0,
            next_flight: 1,
            draining: false,
            counters: Counters::default(),
        }
    }

    /// Decides on one command. Effects are appended in the order in which they must happen.
    pub fn step(&mut self, command: Command, cx: Context, out: &mut Vec<Effect>) {
        match command {
            Command::Create(run, ticket) => self.create(*run, ticket, cx, out),
            Command::CreateEvent(event, ticket) => self.create_event(*event, ticket, cx, out),
            Command::Cancel { tenant, run, ticket } => {
                self.on_run(run, Deferred::Cancel { tenant, ticket }, cx, out);
            }
            Command::Connect(hello, ticket) => self.connect(*hello, ticket, cx, out),
            Command::Worker { session, transport, message } => self.worker(session, transport, message, cx, out),
            Command::Congested(session) => {
                if let Some(s) = self.sessions.get_mut(&session) {
                    s.congested = true;
                }
            }
            Command::Committed(flight, outcomes) => self.committed(flight, outcomes, cx, out),
            Command::Rejected(flight, why) => self.rejected(flight, &why, cx, out),
            Command::QueueLoaded(key, rows, all) => self.queue_loaded(&key, rows, all, cx, out),
            Command::RunsLoaded(found) => self.runs_loaded(found, cx, out),
            Command::TimersLoaded(rows, until, all) => self.timers_loaded(rows, until, all, cx, out),
            Command::Recovered(workers, held) => self.recovered(workers, held, cx, out),
            Command::Tick => self.tick(cx, out),
            Command::Drain(grace) => self.drain(grace, out),
        }
    }

    /// When [`Command::Tick`] is next needed.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let run = self.timers.first().map(|t| t.0);
        let session = self.session_timers.first().map(|t| t.0);
        [run, session].into_iter().flatten().min()
    }

    /// Up to when timers are in memory.
    pub const fn timer_horizon(&self) -> Timestamp {
        self.timer_horizon
    }

    /// Optimistic assignments that are not committed.
    pub const fn optimistic_in_flight(&self) -> usize {
        self.optimistic
    }

    /// What the shard has done.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether nothing is here that could need attention.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.sessions.is_empty() && self.flights.is_empty() && self.loading.is_empty()
    }

    /// Whether something is on its way to the database.
    pub fn has_flights(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Queues one transition for its lane, and remembers what its rows mean.
    pub(super) fn write(&mut self, lane: Lane, tenant: TenantId, rows: Vec<Row>, steps: Vec<Step>, out: &mut Vec<Effect>) {
        debug_assert_eq!(rows.len(), steps.len());
        let flight = self.next_flight;
        self.next_flight += 1;
        for step in &steps {
            let run = match step {
                Step::Create { run, .. }
                | Step::Assign { run, .. }
                | Step::Place { run, .. }
                | Step::End { run, .. }
                | Step::Extend { run, .. } => *run,
                Step::Event { .. } | Step::Worker { .. } | Step::Gone => continue,
            };
            if let Some(task) = self.tasks.get_mut(&run) {
                crate::invariant!(task.flight.is_none(), "I7 two transitions of {run} at once");
                task.flight = Some(flight);
            }
        }
        self.flights.insert(flight, InFlight { steps });
        out.push(Effect::Write(Write { flight, lane, tenant, rows }));
    }

    /// Sets, moves or clears the one timer of a run.
    pub(super) fn set_timer(&mut self, run: RunId, at: Option<Timestamp>) {
        let Some(task) = self.tasks.get_mut(&run) else { return };
        if task.timer == at {
            return;
        }
        if let Some(old) = task.timer.take() {
            self.timers.remove(&(old, run));
        }
        task.timer = at;
        if let Some(at) = at {
            self.timers.insert((at, run));
        }
    }

    /// Forgets a run; whoever waits behind it is answered from its row.
    pub(super) fn forget(&mut self, run: RunId, out: &mut Vec<Effect>) {
        self.set_timer(run, None);
        if let Some(task) = self.tasks.remove(&run)
            && !task.deferred.is_empty()
        {
            self.load_run(run, task.deferred, out);
        }
    }

    /// Runs a command on a run: now, after its transition, or when its row is read.
    pub(super) fn on_run(&mut self, run: RunId, command: Deferred, cx: Context, out: &mut Vec<Effect>) {
        match self.tasks.get_mut(&run) {
            Some(task) if task.flight.is_some() => task.deferred.push_back(command),
            Some(_) => self.apply(run, command, cx, out),
            None => self.load_run(run, VecDeque::from([command]), out),
        }
    }

    fn load_run(&mut self, run: RunId, commands: VecDeque<Deferred>, out: &mut Vec<Effect>) {
        match self.loading.get_mut(&run) {
            Some(waiting) => waiting.extend(commands),
            None => {
                self.loading.insert(run, commands);
                out.push(Effect::LoadRun(run));
            }
        }
    }

    /// Runs a command on a run that is in memory and does not fly.
    pub(super) fn apply(&mut self, run: RunId, command: Deferred, cx: Context, out: &mut Vec<Effect>) {
        match command {
            Deferred::Cancel { tenant, ticket } => self.cancel(run, tenant, ticket, cx, out),
            Deferred::Result { session, attempt, outcome } => self.result(session, attempt, outcome, cx, out),
            Deferred::Extend { session, attempt, by } => self.extend(session, attempt, by, cx, out),
            Deferred::TakeBack { session, reason } => self.take_back(run, session, reason, cx, out),
            Deferred::Timer => self.fire(run, cx, out),
        }
    }

    /// After a flight or a load: what waited, as far as it goes now; then whether memory keeps the run.
    pub(super) fn settle(&mut self, run: RunId, cx: Context, out: &mut Vec<Effect>) {
        while let Some(task) = self.tasks.get_mut(&run) {
            if task.flight.is_some() {
                return;
            }
            let Some(next) = task.deferred.pop_front() else { break };
            self.apply(run, next, cx, out);
        }
        let Some(task) = self.tasks.get(&run) else { return };
        let keep = match &task.phase {
            Phase::New | Phase::Running(_) => true,
            Phase::Scheduled { due } => *due <= self.timer_horizon,
            Phase::Queued { .. } => {
                let key = QueueKey { tenant: task.tenant, action: Arc::clone(&task.spec.action) };
                let entry = (task.rank, run);
                self.queues.get(&key).is_some_and(|q| q.holds(&task.spec.slot_kind, task.spec.slot_cost, entry))
                    || task.timer.is_some()
            }
        };
        if !keep {
            self.forget(run, out);
        }
    }
}

impl Task {
    pub fn from_row(row: &OpenRow, phase: Phase) -> Self {
        Self {
            tenant: row.tenant,
            spec: Arc::clone(&row.spec),
            priority: row.priority,
            rank: row.rank,
            retries: row.retries,
            attempt: row.attempt,
            event: row.event,
            body: None,
            phase,
            flight: None,
            deferred: VecDeque::new(),
            timer: None,
        }
    }

    pub fn queue(&self) -> QueueKey {
        QueueKey { tenant: self.tenant, action: Arc::clone(&self.spec.action) }
    }

    /// What the row must look like for a change of this task to apply.
    pub fn guard(&self) -> Guard {
        let (state, session) = match &self.phase {
            Phase::New | Phase::Queued { .. } => (RunStatus::Queued, None),
            Phase::Scheduled { .. } => (RunStatus::Scheduled, None),
            Phase::Running(held) => (RunStatus::Running, Some(held.session)),
        };
        Guard { state, attempt: self.attempt, session }
    }

    pub fn held(&self) -> Option<&Held> {
        match &self.phase {
            Phase::Running(held) => Some(held),
            Phase::New | Phase::Scheduled { .. } | Phase::Queued { .. } => None,
        }
    }

    /// Whether this attempt of this session is the running one.
    pub fn is_held_by(&self, session: SessionId, attempt: i32) -> bool {
        self.attempt == attempt && self.held().is_some_and(|h| h.session == session)
    }

    /// How often it was delivered without spending a retry.
    pub const fn redeliveries(&self) -> i32 {
        self.attempt - 1 - self.retries
    }
}

impl Session {
    /// Free slots of a kind. Less than nothing is free after the worker lowered its totals.
    pub fn free(&self, kind: &str) -> u32 {
        let total = self.info.slots.get(kind).copied().unwrap_or(0);
        total.saturating_sub(self.used.get(kind).copied().unwrap_or(0))
    }

    /// Whether it may be given work at all.
    pub const fn takes_work(&self) -> bool {
        self.ready && self.transport.is_some() && !self.draining && !self.congested
    }

    pub fn hold(&mut self, attempt: Attempt, spec: &Spec) {
        let hold = Hold { cost: spec.slot_cost, kind: Arc::clone(&spec.slot_kind), until: None };
        *self.used.entry(Arc::clone(&spec.slot_kind)).or_default() += spec.slot_cost;
        let before = self.holds.insert(attempt, hold);
        crate::invariant!(before.is_none(), "I12 {:?} holds a slot twice", attempt);
    }

    /// Frees the slots of an attempt; false if it held none.
    pub fn release(&mut self, attempt: Attempt) -> bool {
        let Some(hold) = self.holds.remove(&attempt) else { return false };
        if let Some(used) = self.used.get_mut(&hold.kind) {
            *used = used.saturating_sub(hold.cost);
        }
        true
    }
}

/// An error answer for a caller.
pub(super) fn refuse(ticket: Option<Ticket>, error: crate::error::Error, out: &mut Vec<Effect>) {
    if let Some(ticket) = ticket {
        out.push(Effect::Answer(ticket, Answer::Failed(error)));
    }
}

/// Deterministic noise in 0..1 for back-off, so that the core stays a function of its inputs.
pub(super) fn jitter(attempt: Attempt) -> f64 {
    let mut x = attempt.run.uuid().as_u128() as u64 ^ (u64::from(attempt.number.unsigned_abs()) << 32);
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^= x >> 33;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// The error of a run that the engine ends by itself.
pub(super) fn engine_error(code: &str, message: impl Into<String>) -> RunError {
    RunError::of_engine(code, message)
}

/// Runs that are in a set of rows, for a quick "is it there".
pub(super) fn ids(rows: &[OpenRow]) -> HashSet<RunId> {
    rows.iter().map(|r| r.run).collect()
}
