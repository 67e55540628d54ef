//! The state of a shard: tasks, queues, sessions, timers, and transitions that are on their way.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Attempt, Outgoing, Welcome};
use helve_domain::error::Code;
use helve_domain::id::{RunId, SessionId, TenantId};
use helve_domain::run::RunError;

use super::flight::{Draft, InFlight, Step};
use super::pauses::Pauses;
use super::placement::Offer;
use super::queues::Queue;
use super::session::Session;
use super::task::{Deferred, Phase, Task};
use super::turn::Turn;
use super::types::{
    Answer, Command, Context, CreateRow, Effect, FinishRow, Flight, OpenRow, QueueKey, Rows, Ticket, Write,
};

/// What may wait behind a run's transition before more of its worker is refused. What else waits is bounded by callers,
/// or comes once.
const MAX_DEFERRED: usize = 64;

/// The settings that decisions depend on; their meaning is told in `config::Scheduling`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Assign at creation where a slot is free.
    pub optimistic: bool,
    /// Queued runs of one action in memory.
    pub window: usize,
    /// Creates of the process that may wait for their commit.
    pub pending: usize,
    /// How long a lost worker keeps its attempts.
    pub grace: Duration,
    /// Time to the first resend of an unconfirmed assignment.
    pub ack: Duration,
    /// How long a cancelled attempt may hold its slot.
    pub cancel_grace: Duration,
    /// Times that a run may be lost with its worker.
    pub redeliveries: i32,
    /// Whether any trace is recorded.
    pub traced: bool,
}

/// One unit of state with one writer: everything of the tenants that are hashed to it.
#[cfg_attr(test, derive(Clone))]
pub struct Shard {
    pub(super) settings: Settings,
    /// Every run that memory has an interest in; all others are only in the database.
    pub(super) tasks: HashMap<RunId, Task>,
    pub(super) queues: HashMap<QueueKey, Queue>,
    pub(super) offers: HashMap<QueueKey, Offer>,
    pub(super) sessions: HashMap<SessionId, Session>,
    pub(super) pauses: Pauses,
    pub(super) flights: HashMap<Flight, InFlight>,
    /// Create keys on their way, and who waits behind each.
    pub(super) keys: HashMap<(TenantId, Arc<str>, Arc<str>), VecDeque<Command>>,
    /// At most one timer a run: what it means follows from where the run stands.
    pub(super) timers: BTreeSet<(Timestamp, RunId)>,
    pub(super) session_timers: BTreeSet<(Timestamp, SessionId)>,
    /// Timers up to here are in memory; later ones wait in the database.
    pub(super) timer_horizon: Timestamp,
    /// A read up to here is on its way. It may miss what is committed meanwhile, so that is kept.
    pub(super) timer_asked: Timestamp,
    /// Commands that wait for a run's row to be read.
    pub(super) loading: HashMap<RunId, VecDeque<Deferred>>,
    /// Workers whose row is committed while the heads of their queues are still being read.
    pub(super) welcomes: Vec<(Ticket, Box<Welcome>)>,
    /// Windows that are being read.
    pub(super) loading_queues: usize,
    /// Creates that are not committed.
    pub(super) creating: usize,
    /// The same by tenant.
    pub(super) creating_of: HashMap<TenantId, usize>,
    /// Runs assigned at creation that are not committed.
    pub(super) optimistic: usize,
    pub(super) next_flight: Flight,
    pub(super) draining: bool,
    pub(super) counters: Counters,
    /// Switches the attempt fence off, so that the model can show that it notices.
    #[cfg(test)]
    pub(super) unfenced: bool,
    /// A pause does not wait for what was decided before it.
    #[cfg(test)]
    pub(super) hasty: bool,
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

impl Counters {
    /// Adds what another shard has done.
    pub const fn add(&mut self, other: Self) {
        self.created += other.created;
        self.optimistic += other.optimistic;
        self.finished += other.finished;
        self.resent += other.resent;
        self.taken_back += other.taken_back;
    }
}

impl Turn<'_> {
    /// Sends new runs and events to the create lane, as one transition.
    pub(super) fn write_creates(&mut self, tenant: TenantId, draft: Draft<CreateRow>) {
        self.write(tenant, Rows::Create(draft.rows), draft.steps);
    }

    /// Sends changes of open runs to the finish lane, as one transition.
    pub(super) fn write_changes(&mut self, tenant: TenantId, draft: Draft<FinishRow>) {
        self.write(tenant, Rows::Finish(draft.rows), draft.steps);
    }

    /// Sends one transition to its lane, and remembers what its rows mean.
    pub(super) fn write(&mut self, tenant: TenantId, rows: Rows, steps: Vec<Step>) {
        debug_assert_eq!(rows.len(), steps.len());
        let flight = self.shard.next_flight;
        self.shard.next_flight += 1;
        for run in steps.iter().filter_map(Step::run) {
            if let Some(task) = self.shard.tasks.get_mut(&run) {
                helve_domain::invariant!(task.flight.is_none(), "I7 two transitions of {run} at once");
                task.flight = Some(flight);
            }
        }
        self.shard.flights.insert(flight, InFlight { steps });
        self.out.push(Effect::Write(Write { flight, tenant, rows }));
    }

    /// Forgets a run; whoever waits behind it is answered from its row.
    pub(super) fn forget(&mut self, run: RunId) {
        self.shard.set_timer(run, None);
        if let Some(task) = self.shard.tasks.remove(&run)
            && !task.deferred.is_empty()
        {
            self.load_run(run, task.deferred);
        }
    }

    /// Runs a command on a run: now, after its transition, or when its row is read.
    pub(super) fn on_run(&mut self, run: RunId, command: Deferred) {
        match self.shard.tasks.get_mut(&run) {
            Some(task) if task.flight.is_some() => {
                if let Some(session) = command.of_worker()
                    && task.deferred.len() >= MAX_DEFERRED
                {
                    let message = "too many results or extensions of one attempt at once";
                    let refused = Outgoing::Error(Code::TooManyRequests, message.into());
                    return self.push(session, refused);
                }
                task.deferred.push_back(command);
            }
            Some(_) => self.apply(run, command),
            None => self.load_run(run, VecDeque::from([command])),
        }
    }

    fn load_run(&mut self, run: RunId, commands: VecDeque<Deferred>) {
        match self.shard.loading.get_mut(&run) {
            Some(waiting) => waiting.extend(commands),
            None => {
                self.shard.loading.insert(run, commands);
                self.out.push(Effect::LoadRun(run));
            }
        }
    }

    /// Runs a command on a run that is in memory and does not fly.
    pub(super) fn apply(&mut self, run: RunId, command: Deferred) {
        match command {
            Deferred::Cancel { tenant, ticket } => self.cancel(run, tenant, ticket),
            Deferred::Unpark { tenant, ticket } => self.unpark(run, tenant, ticket),
            Deferred::Result { session, attempt, outcome } => self.result(session, attempt, outcome),
            Deferred::Extend { session, attempt, by } => self.extend(session, attempt, by),
            Deferred::FreeSlot { session, attempt } => self.free_slot(session, attempt),
            Deferred::TakeBack { session, reason } => self.take_back(run, session, reason),
            Deferred::Timer => self.fire(run),
        }
    }

    /// After a flight or a load: what waited, as far as it goes now; then whether memory keeps the run.
    pub(super) fn settle(&mut self, run: RunId) {
        while let Some(task) = self.shard.tasks.get_mut(&run) {
            if task.flight.is_some() {
                return;
            }
            let Some(next) = task.deferred.pop_front() else { break };
            self.apply(run, next);
        }
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let keep = match &task.phase {
            Phase::New | Phase::Running(_) => true,
            Phase::Parked => false,
            // Without a timer it waits in the database.
            Phase::Scheduled { .. } => task.timer.is_some(),
            Phase::Queued { .. } => {
                let key = self.shard.pauses.queue_of(task.tenant, &task.spec);
                let entry = (task.rank, run);
                self.shard.queues.get(&key).is_some_and(|q| q.holds(&task.spec, entry)) || task.timer.is_some()
            }
        };
        if !keep {
            self.forget(run);
        }
    }
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
            pauses: Pauses::default(),
            flights: HashMap::new(),
            keys: HashMap::new(),
            timers: BTreeSet::new(),
            session_timers: BTreeSet::new(),
            timer_horizon: Timestamp::default(),
            timer_asked: Timestamp::default(),
            loading: HashMap::new(),
            welcomes: Vec::new(),
            loading_queues: 0,
            creating: 0,
            creating_of: HashMap::new(),
            optimistic: 0,
            next_flight: 1,
            draining: false,
            counters: Counters::default(),
            #[cfg(test)]
            unfenced: false,
            #[cfg(test)]
            hasty: false,
        }
    }

    /// Decides on one command. Effects are appended in the order in which they must happen.
    pub fn step(&mut self, command: Command, cx: Context, out: &mut Vec<Effect>) {
        let Context { now, optimistic_room, creating, watched } = cx;
        Turn { shard: self, now, optimistic_room, creating, watched, out }.run(command);
    }

    /// When [`Command::Tick`] is next needed.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let run = self.timers.first().map(|t| t.0);
        let session = self.session_timers.first().map(|t| t.0);
        let pause = self.pauses.timers.first().map(|t| t.0);
        [run, session, pause].into_iter().flatten().min()
    }

    /// Up to when timers are in memory.
    pub const fn timer_horizon(&self) -> Timestamp {
        self.timer_horizon
    }

    /// Optimistic assignments that are not committed.
    pub const fn optimistic_in_flight(&self) -> usize {
        self.optimistic
    }

    /// Creates that are not committed.
    pub const fn creates_in_flight(&self) -> usize {
        self.creating
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

    /// Whether a command waits for a row to be read, or a worker for the heads of its queues.
    pub fn has_reads(&self) -> bool {
        !self.loading.is_empty() || !self.welcomes.is_empty()
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
}

/// An error answer for a caller.
pub(super) fn refuse(ticket: Option<Ticket>, error: helve_domain::error::Error, out: &mut Vec<Effect>) {
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
