//! What travels between the engine and a worker, before it becomes frames.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{RunId, SessionId, WorkerId};
use crate::json::Payload;
use crate::live::{LogBatch, Progress};
use crate::run::RunError;
use crate::status::RunStatus;

/// One delivery of a task run to a worker: the run and its fencing number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt {
    /// The task run.
    pub run: RunId,
    /// Its fencing number; counts up with every assignment.
    pub number: i32,
}

/// A task given to a worker.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Which delivery it is.
    pub attempt: Attempt,
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// What the worker is asked to do.
    pub action: Arc<str>,
    /// The run's input.
    pub input: Payload,
    /// The run's metadata.
    pub metadata: Payload,
    /// How long the attempt may take from the worker's `received`.
    pub timeout: Duration,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// How an attempt ended, in the worker's words.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It worked.
    Succeeded(Payload),
    /// It did not.
    Failed(RunError),
    /// Given back unharmed; spends no retry.
    Released,
}

/// Why an attempt is over although the worker did not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Someone asked for it.
    Requested,
    /// The execution timeout passed.
    Timeout,
    /// The attempt was taken back, or another one took its place.
    Reassigned,
    /// The run has ended.
    Finished,
    /// The engine knows no such attempt of this tenant.
    Unknown,
}

impl Reason {
    /// Its name in frames.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Timeout => "timeout",
            Self::Reassigned => "reassigned",
            Self::Finished => "finished",
            Self::Unknown => "unknown",
        }
    }
}

/// How a worker describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// A name for people; need not be unique.
    pub name: Arc<str>,
    /// The client library's name.
    pub sdk: Arc<str>,
    /// What it can do.
    pub actions: Vec<Arc<str>>,
    /// Its capacity by kind.
    pub slots: BTreeMap<Arc<str>, u32>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// A session to go on with.
#[derive(Debug, Clone)]
pub struct Resume {
    /// The session.
    pub session: SessionId,
    /// Its secret, as `welcome` gave it.
    pub secret: String,
    /// Attempts that the worker still works on, or whose results were not confirmed.
    pub holding: Vec<Attempt>,
}

/// What a worker says, and what happens to its connection, on the way to whoever decides: the same for a socket, a poll
/// and the core.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// These attempts arrived.
    Received(Vec<Attempt>),
    /// These attempts ended.
    Results(Vec<(Attempt, Outcome)>),
    /// These attempts may take this long from now on.
    Extend(Vec<(Attempt, Duration)>),
    /// The slots of these attempts are given back, and they go on.
    FreeSlot(Vec<Attempt>),
    /// New labels, instead of all others.
    Labels(BTreeMap<String, String>),
    /// New slot totals.
    Capacity(BTreeMap<Arc<str>, u32>),
    /// Lines of the logs of attempts. They pass by the core, and are stored beside the lanes.
    Log(Vec<LogBatch>),
    /// How far attempts are. It passes by the core as log lines do.
    Progress(Vec<Progress>),
    /// Assign nothing more.
    Drain,
    /// The worker leaves for good: its work goes to others at once.
    Goodbye,
    /// The connection is gone; the worker may come back within the grace.
    Lost,
    /// The outbox has room again.
    CaughtUp,
}

/// What the engine says to one worker, in the order in which it must arrive.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// New work.
    Assign(Vec<Assignment>),
    /// These results are committed.
    Stored(Vec<(Attempt, RunStatus)>),
    /// These attempts are over; their results do not count.
    Superseded(Vec<(Attempt, Reason)>),
    /// Stop these attempts within the grace.
    Cancel(Vec<(Attempt, Reason)>, Duration),
    /// A deadline was moved; the new rest of the time.
    Extended(Attempt, Duration),
    /// The attempt holds no slot any more, and goes on.
    Freed(Attempt),
    /// Open a new socket, then leave this one, within the time.
    Reconnect(Duration),
    /// An error about a frame; the socket goes on.
    Error(crate::error::Code, String),
    /// End the socket with a public close code.
    Close(Close),
}

/// Public close codes of the worker socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The worker said goodbye.
    Normal,
    /// Not a frame. Fix the worker.
    BadFrame,
    /// The token is no longer valid. Authenticate again.
    Auth,
    /// The token may not do this. Stop.
    NotAllowed,
    /// No `hello` in time. Reconnect.
    NoHello,
    /// A newer socket of the session took over. Do not reconnect.
    Replaced,
    /// Frames were not read in time. Reconnect.
    TooSlow,
    /// A frame over the limit. Fix the worker.
    TooLarge,
    /// Too many sockets or frames. Reconnect later.
    TooMany,
    /// The engine stops. Reconnect.
    Draining,
}

impl Close {
    /// The WebSocket close code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::BadFrame => 4400,
            Self::Auth => 4401,
            Self::NotAllowed => 4403,
            Self::NoHello => 4408,
            Self::Replaced => 4409,
            Self::TooSlow => 4410,
            Self::TooLarge => 4413,
            Self::TooMany => 4429,
            Self::Draining => 4503,
        }
    }

    /// What the worker should do, in the close reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "goodbye",
            Self::BadFrame => "bad frame: fix the client",
            Self::Auth => "token no longer valid: authenticate again",
            Self::NotAllowed => "not allowed: stop",
            Self::NoHello => "no hello in time: reconnect",
            Self::Replaced => "replaced by a newer socket: do not reconnect",
            Self::TooSlow => "frames were not read or confirmed in time: reconnect",
            Self::TooLarge => "frame too large: fix the client",
            Self::TooMany => "too many: reconnect later",
            Self::Draining => "engine is stopping: reconnect",
        }
    }
}

/// What a worker gets in answer to its `hello`.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The worker's id.
    pub worker: WorkerId,
    /// Its session.
    pub session: SessionId,
    /// Proves the session on the next socket; 256 random bits, hexadecimal.
    pub secret: String,
    /// Whether the session of `resume` goes on.
    pub resumed: bool,
    /// Attempts of `holding` that are no longer the worker's.
    pub superseded: Vec<(Attempt, Reason)>,
}
