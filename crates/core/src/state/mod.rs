//! The state of a shard: tasks, queues, sessions, timers, and transitions that are on their way.

pub mod flight;
pub mod offers;
pub mod pauses;
pub mod queue;
pub mod session;
pub mod task;
pub mod timers;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Attempt, Welcome};
use helve_domain::id::{RunId, SessionId, TenantId};
use helve_domain::run::RunError;

use crate::state::flight::InFlight;
use crate::state::offers::Offer;
use crate::state::pauses::Pauses;
use crate::state::queue::Queue;
use crate::state::session::Session;
use crate::state::task::{Deferred, Task};
use crate::turn::Turn;
use crate::types::{Answer, Command, Context, Effect, Flight, OpenRow, QueueKey, Ticket};

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
    pub(crate) settings: Settings,
    /// Every run that memory has an interest in; all others are only in the database.
    pub(crate) tasks: HashMap<RunId, Task>,
    pub(crate) queues: HashMap<QueueKey, Queue>,
    pub(crate) offers: HashMap<QueueKey, Offer>,
    pub(crate) sessions: HashMap<SessionId, Session>,
    pub(crate) pauses: Pauses,
    pub(crate) flights: HashMap<Flight, InFlight>,
    /// Create keys on their way, and who waits behind each.
    pub(crate) keys: HashMap<(TenantId, Arc<str>, Arc<str>), VecDeque<Command>>,
    /// At most one timer a run: what it means follows from where the run stands.
    pub(crate) timers: BTreeSet<(Timestamp, RunId)>,
    pub(crate) session_timers: BTreeSet<(Timestamp, SessionId)>,
    /// Timers up to here are in memory; later ones wait in the database.
    pub(crate) timer_horizon: Timestamp,
    /// A read up to here is on its way. It may miss what is committed meanwhile, so that is kept.
    pub(crate) timer_asked: Timestamp,
    /// Commands that wait for a run's row to be read.
    pub(crate) loading: HashMap<RunId, VecDeque<Deferred>>,
    /// Workers whose row is committed while the heads of their queues are still being read.
    pub(crate) welcomes: Vec<(Ticket, Box<Welcome>)>,
    /// Windows that are being read.
    pub(crate) loading_queues: usize,
    /// Creates that are not committed.
    pub(crate) creating: usize,
    /// The same by tenant.
    pub(crate) creating_of: HashMap<TenantId, usize>,
    /// Runs assigned at creation that are not committed.
    pub(crate) optimistic: usize,
    pub(crate) next_flight: Flight,
    pub(crate) draining: bool,
    pub(crate) counters: Counters,
    /// Switches the attempt fence off, so that the model can show that it notices.
    #[cfg(test)]
    pub(crate) unfenced: bool,
    /// A pause does not wait for what was decided before it.
    #[cfg(test)]
    pub(crate) hasty: bool,
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
    pub(crate) fn set_timer(&mut self, run: RunId, at: Option<Timestamp>) {
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
pub(crate) fn refuse(ticket: Option<Ticket>, error: helve_domain::error::Error, out: &mut Vec<Effect>) {
    if let Some(ticket) = ticket {
        out.push(Effect::Answer(ticket, Answer::Failed(error)));
    }
}

/// Deterministic noise in 0..1 for back-off, so that the core stays a function of its inputs.
pub(crate) fn jitter(attempt: Attempt) -> f64 {
    let mut x = attempt.run.uuid().as_u128() as u64 ^ (u64::from(attempt.number.unsigned_abs()) << 32);
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^= x >> 33;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// The error of a run that the engine ends by itself.
pub(crate) fn engine_error(code: &str, message: impl Into<String>) -> RunError {
    RunError::of_engine(code, message)
}

/// Runs that are in a set of rows, for a quick "is it there".
pub(crate) fn ids(rows: &[OpenRow]) -> HashSet<RunId> {
    rows.iter().map(|r| r.run).collect()
}
