//! Why a run stands where it stands: the cause for a machine, and one sentence for a person.

mod text;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::duration;
use crate::id::{RunId, WorkerId};
use crate::pause::Paused;
use crate::run::RunError;
use crate::status::RunStatus;

pub use text::losses_text;

/// Workers that an answer names, and runs of each.
pub const WORKERS: usize = 10;
/// Runs that an answer names of each worker.
pub const RUNS: usize = 5;

/// Why a run stands where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Why {
    /// Its status, as memory has it.
    pub status: RunStatus,
    /// What it waits for, or what happens to it.
    pub cause: Cause,
    /// When it may start, where that can be told honestly.
    pub estimate: Option<Estimate>,
}

/// What a run waits for, or what happens to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// It is not to start before a time.
    Scheduled {
        /// The time.
        at: Timestamp,
    },
    /// It was tried, and is to be tried again at a time.
    Retry {
        /// The time.
        at: Timestamp,
        /// Attempts so far.
        attempt: i32,
    },
    /// It, or what it needs, is paused.
    Paused(Box<Paused>),
    /// What was paused starts gently, and its turn has not come.
    Resuming {
        /// Of what.
        paused: Box<Paused>,
        /// What is before it.
        place: Place,
    },
    /// No worker that could take work offers its action.
    NoWorker {
        /// The action.
        action: Arc<str>,
        /// Workers that offer it and cannot take work, the first of them.
        workers: Vec<Holder>,
        /// How many there are.
        count: usize,
    },
    /// It is next, and no worker has the slots that it needs.
    NoSlot {
        /// Where it stands, and who holds the slots.
        wait: Box<Wait>,
        /// Even without any work no worker has that many.
        never: bool,
    },
    /// Others are before it.
    Behind {
        /// Where it stands, and who holds the slots.
        wait: Box<Wait>,
    },
    /// The queue is being read: the engine or the first worker has just come.
    Loading,
    /// A change of it is being written just now.
    Writing,
    /// A worker has it.
    Running {
        /// Who.
        worker: Holder,
        /// Since when.
        since: Timestamp,
        /// Whether the worker has confirmed that it arrived.
        received: bool,
        /// The end of its time.
        timeout_at: Option<Timestamp>,
    },
    /// Its retries are spent, and it waits for a person.
    Parked,
    /// It is over.
    Final(Box<Ended>),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// When.
    pub at: Option<Timestamp>,
    /// Its last attempt; 0: it had none.
    pub attempt: i32,
    /// Who had that.
    pub worker: Option<WorkerId>,
    /// Retries that were spent before it.
    pub retries: i32,
    /// Why it did not succeed.
    pub error: Option<RunError>,
}

/// A worker whose socket is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away {
    /// Since when.
    pub since: Timestamp,
    /// When its work goes to others.
    pub until: Timestamp,
}

/// How a run waits for slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Wait {
    /// The action.
    pub action: Arc<str>,
    /// The kind of slot that it needs.
    pub kind: Arc<str>,
    /// How many of them.
    pub cost: u32,
    /// What is before it.
    pub place: Place,
    /// Who could run it, the first of them, with what they hold.
    pub workers: Vec<Holder>,
    /// How many there are.
    pub count: usize,
}

/// What is before a run in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Runs before it.
    pub ahead: usize,
    /// False: there are at least that many.
    pub exact: bool,
}

/// A worker in the way, or at work.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    /// Its id.
    pub worker: WorkerId,
    /// Its name; empty when it is not known any more.
    pub name: Arc<str>,
    /// Whether it could take work.
    pub state: WorkerState,
    /// What it lacks of the labels that the run requires.
    pub lacks: Vec<String>,
    /// Its socket is gone.
    pub away: Option<Away>,
    /// Slots of the kind that is needed.
    pub slots: u32,
    /// Of them taken.
    pub used: u32,
    /// Runs that hold slots of the kind, the first of them.
    pub runs: Vec<RunId>,
    /// How many there are.
    pub held: usize,
}

/// Whether a worker could take work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It takes work.
    Open,
    /// Its socket is gone, and it may come back.
    Away,
    /// It takes no more work and leaves.
    Draining,
    /// It does not read what is sent to it.
    Congested,
    /// Somebody paused it, or it starts gently.
    Paused,
    /// It lacks labels that the run requires.
    OtherLabels,
}

impl WorkerState {
    /// Its name in the interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Away => "away",
            Self::Draining => "draining",
            Self::Congested => "congested",
            Self::Paused => "paused",
            Self::OtherLabels => "other_labels",
        }
    }
}

/// When a run may start.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// From now.
    pub starts_in: Duration,
    /// How it was computed.
    pub basis: String,
}

impl Cause {
    /// Its name in the interface.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Scheduled { .. } => "scheduled",
            Self::Retry { .. } => "retry",
            Self::Paused(_) => "paused",
            Self::Resuming { .. } => "resuming",
            Self::NoWorker { .. } => "no_worker",
            Self::NoSlot { .. } => "no_slot",
            Self::Behind { .. } => "behind",
            Self::Loading => "loading",
            Self::Writing => "writing",
            Self::Running { .. } => "running",
            Self::Parked => "parked",
            Self::Final(_) => "final",
        }
    }
}

/// Starts of the last minute, by tens of seconds.
#[derive(Clone, Default)]
pub struct Drain {
    since: Option<i64>,
    counts: [(i64, u32); 7],
}

impl std::fmt::Debug for Drain {
    /// Nothing: what has been says nothing about what a decision may be.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("drain")
    }
}

const TEN: i64 = 10_000_000;

impl Drain {
    /// A run starts.
    pub fn note(&mut self, now: Timestamp) {
        self.since.get_or_insert(now.micros());
        let ten = now.micros() / TEN;
        let slot = &mut self.counts[usize::try_from(ten.rem_euclid(7)).unwrap_or(0)];
        match slot.0 == ten {
            true => slot.1 = slot.1.saturating_add(1),
            false => *slot = (ten, 1),
        }
    }

    /// Starts of about the last minute, and how long that is; `None` when it is too little to tell.
    pub fn last_minute(&self, now: Timestamp) -> Option<(u32, Duration)> {
        let oldest = now.micros() / TEN - 6;
        let starts: u32 = self.counts.iter().filter(|c| c.0 >= oldest).map(|c| c.1).sum();
        let from = self.since?.max(oldest * TEN);
        let span = Duration::from_micros(u64::try_from(now.micros() - from).unwrap_or(0));
        (starts >= 10 && span >= Duration::from_secs(10)).then_some((starts, span))
    }
}

/// When a run with so many before it starts at this pace.
pub fn estimate(place: Place, drain: &Drain, now: Timestamp) -> Option<Estimate> {
    let (starts, span) = drain.last_minute(now).filter(|_| place.exact)?;
    let before = u32::try_from(place.ahead + 1).ok()?;
    let starts_in = span.mul_f64(f64::from(before) / f64::from(starts));
    let seconds = span.as_secs();
    let basis =
        format!("{starts} runs of this queue started in the last {seconds} s; {} are before this one", place.ahead);
    Some(Estimate { starts_in, basis })
}

/// When a run with so many before it starts at a fixed rate.
pub fn estimate_at(place: Place, rate: f64) -> Option<Estimate> {
    let before = u32::try_from(place.ahead + 1).ok().filter(|_| place.exact && rate > 0.0)?;
    let starts_in = Duration::try_from_secs_f64(f64::from(before) / rate).ok()?;
    let basis = format!("resumed at {rate} starts per second; {} are before this one", place.ahead);
    Some(Estimate { starts_in, basis })
}

impl Estimate {
    /// For people.
    pub fn text(&self) -> String {
        duration::format(self.starts_in)
    }
}
