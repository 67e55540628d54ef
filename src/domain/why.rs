//! Why a run stands where it stands: the cause for a machine, and one sentence for a person.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::duration;
use crate::domain::pause::Paused;
use crate::domain::status::RunStatus;
use crate::id::{RunId, WorkerId};

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
    Final {
        /// When it ended.
        at: Option<Timestamp>,
    },
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

    /// What a sentence says of it.
    const fn text(self) -> &'static str {
        match self {
            Self::OtherLabels => "lacks labels that it requires",
            Self::Open => "is open",
            Self::Away => "is away",
            Self::Draining => "is draining",
            Self::Congested => "is congested",
            Self::Paused => "is paused",
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
            Self::Final { .. } => "final",
        }
    }
}

impl Place {
    fn text(self) -> String {
        let least = if self.exact { "" } else { "at least " };
        let runs = if self.ahead == 1 { "run" } else { "runs" };
        format!("{least}{} {runs}", self.ahead)
    }
}

impl Why {
    /// One sentence. `error`: the last one of the run, for a retry.
    pub fn text(&self, error: Option<&str>) -> String {
        match &self.cause {
            Cause::Scheduled { at } => format!("It is scheduled to start at {at}."),
            Cause::Retry { at, attempt } => {
                let after = error.map(|e| format!(" failed with \"{}\"", shortened(e)));
                let after = after.unwrap_or_else(|| " came back".to_owned());
                format!("Attempt {attempt}{after}; the next one is due at {at}.")
            }
            Cause::Paused(paused) => paused_text(paused),
            Cause::Resuming { paused, place } => {
                let rate = paused.pause.resumed.as_ref().map_or(0.0, |r| r.rate);
                format!(
                    "The {} was resumed at {rate} starts per second, and {} are before this one.",
                    paused.target,
                    place.text()
                )
            }
            Cause::NoWorker { action, workers, count } => no_worker_text(action, workers, *count),
            Cause::NoSlot { wait, never } => {
                let need = slots(wait.cost, &wait.kind);
                match never {
                    true => format!("No worker that offers `{}` has {need} at all.", wait.action),
                    false => {
                        let held = wait.workers.iter().map(|w| w.held).sum::<usize>();
                        let (workers, runs) = (plural(wait.count, "worker"), plural(held, "run"));
                        format!(
                            "It is next, and no worker has {need} free: {workers} offer `{}` and hold {runs}.",
                            wait.action
                        )
                    }
                }
            }
            Cause::Behind { wait } if wait.place.ahead == 0 => {
                format!("It is next in the queue of `{}` and about to start.", wait.action)
            }
            Cause::Behind { wait } => {
                let are = if wait.place.ahead == 1 && wait.place.exact { "is" } else { "are" };
                format!("In the queue of `{}` {} {are} before it.", wait.action, wait.place.text())
            }
            Cause::Loading => "Its queue is being read; ask again in a moment.".to_owned(),
            Cause::Writing => "A change of it is being written just now; ask again in a moment.".to_owned(),
            Cause::Running { worker, since, received, timeout_at } => {
                running_text(worker, *since, *received, *timeout_at)
            }
            Cause::Parked => {
                let error = error.map(|e| format!(" with \"{}\"", shortened(e))).unwrap_or_default();
                format!("It is parked: its last attempt failed{error}, and it waits for somebody to unpark it.")
            }
            Cause::Final { at } => {
                let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
                format!("It is over: it ended as {}{at}.", self.status.as_str())
            }
        }
    }
}

fn paused_text(paused: &Paused) -> String {
    let pause = &paused.pause;
    let until = pause.expires_at.map_or_else(|| "until somebody resumes it".to_owned(), |at| format!("until {at}"));
    let (by, reason) = (&pause.by_name, shortened(&pause.reason));
    format!("The {} is paused by `{by}` since {} {until}: {reason}.", paused.target, pause.since)
}

fn no_worker_text(action: &str, workers: &[Holder], count: usize) -> String {
    if count == 0 {
        return format!("No connected worker offers `{action}`.");
    }
    let named = workers.iter().take(3).map(|w| format!("`{}` {}", w.name, w.state.text()));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
    format!("No worker that offers `{action}` can take it: {named}{more}.")
}

fn running_text(worker: &Holder, since: Timestamp, received: bool, timeout_at: Option<Timestamp>) -> String {
    let away = if worker.state == WorkerState::Away { ", which is away and may come back" } else { "" };
    let name = if worker.name.is_empty() { worker.worker.to_string() } else { format!("`{}`", worker.name) };
    let timeout = timeout_at.map(|at| format!("; its time ends at {at}")).unwrap_or_default();
    let how = if received { "runs" } else { "was sent and is not confirmed" };
    format!("It {how} on the worker {name}{away} since {since}{timeout}.")
}

fn slots(cost: u32, kind: &str) -> String {
    let slots = if cost == 1 { "slot" } else { "slots" };
    format!("{cost} {slots} of kind `{kind}`")
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = text.trim_end_matches('.');
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
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
