//! Transitions on their way to the database, and what each of their rows means.

use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Attempt, Reason};
use helve_domain::id::{EventId, RunId, SessionId, TenantId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::pause::{Pause, Target};
use helve_domain::run::RunError;
use helve_domain::status::RunStatus;

use crate::types::{CreateKey, CreateRow, EndRow, FinishRow, Ticket};

/// A run or event to write, with what its commit means for memory.
pub(crate) type Creation = (CreateRow, Step);
/// A change of an open run to write, with what its commit means for memory.
pub(crate) type Change = (FinishRow, Step);

/// A transition that is being put together: each row with what its commit means.
pub(crate) struct Draft<R> {
    pub(crate) rows: Vec<R>,
    pub(crate) steps: Vec<Step>,
}

impl<R> Draft<R> {
    pub fn push(&mut self, (row, step): (R, Step)) {
        self.rows.push(row);
        self.steps.push(step);
    }
}

impl<R> From<(R, Step)> for Draft<R> {
    fn from((row, step): (R, Step)) -> Self {
        Self { rows: vec![row], steps: vec![step] }
    }
}

/// A transition on its way, with what each of its rows means.
#[cfg_attr(test, derive(Clone, Debug))]
pub(crate) struct InFlight {
    pub steps: Vec<Step>,
}

/// What a row of a flight means for memory.
#[cfg_attr(test, derive(Clone, Debug))]
pub(crate) enum Step {
    /// A run is created.
    Create { run: RunId, ticket: Option<Ticket>, start: Start, key: Option<CreateKey> },
    /// An event is created; its runs follow as steps of their own. `of`: whose it is, and the event's key.
    Event { event: EventId, runs: Vec<RunId>, ticket: Ticket, key: Option<CreateKey>, of: (TenantId, Arc<str>) },
    /// A run is given to a session.
    Assign { run: RunId, to: Assigned },
    /// A run stops running, or its time has come; `before` is undone to on a refusal.
    Place { run: RunId, place: Placed, note: Note, reason: Option<&'static str>, code: Option<Box<str>> },
    /// A run ends.
    End { run: RunId, row: Box<EndRow>, note: Note },
    /// A deadline was moved.
    Extend { run: RunId, attempt: Attempt, deadline: Timestamp, by: Duration },
    /// The slots of an attempt were given back early.
    FreeSlot { run: RunId, session: SessionId, attempt: Attempt },
    /// A worker's row was written.
    Worker { session: SessionId, ticket: Option<Ticket>, secret: String, unknown: Vec<(Attempt, Reason)> },
    /// A worker's row was removed.
    Gone,
    /// A pause was written: as it is now, with who asked.
    Pause { tenant: TenantId, target: Target, after: Option<Pause>, ticket: Option<Ticket> },
}

/// How a run ends.
pub(crate) struct Ending {
    pub state: RunStatus,
    /// The worker's result.
    pub output: Option<Payload>,
    pub error: Option<RunError>,
    /// Why, if it is unusual.
    pub reason: Option<&'static str>,
}

impl Ending {
    /// Without success.
    pub const fn without_result(state: RunStatus, error: RunError, reason: Option<&'static str>) -> Self {
        Self { state, output: None, error: Some(error), reason }
    }
}

/// To whom a run is given, and when that was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub session: SessionId,
    pub worker: WorkerId,
    pub at: Timestamp,
}

/// Where a new run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Assigned(Assigned),
    Queued { expires: Option<Timestamp> },
    Scheduled { due: Timestamp },
}

/// Where a run comes to rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Placed {
    Queued {
        expires: Option<Timestamp>,
        retries: i32,
    },
    Scheduled {
        due: Timestamp,
        retries: i32,
    },
    /// The attempt was the last; a person decides.
    Parked {
        retries: i32,
    },
}

/// Whom a change concerns besides the run: the holder of its last attempt and a caller.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    /// The attempt that ends with this change, and how its holder learns of it.
    pub holder: Option<(SessionId, Attempt, Farewell)>,
    /// The caller who asked for it.
    pub ticket: Option<(TenantId, Ticket)>,
}

impl Note {
    /// The attempt whose slots others may take in the same statement. One that is told to stop keeps them for a while;
    /// those of a session that nobody reaches are free anyway.
    pub fn lender(&self) -> Option<(SessionId, Attempt)> {
        let (session, attempt, farewell) = self.holder?;
        match farewell {
            Farewell::Stored | Farewell::Superseded(_) => Some((session, attempt)),
            Farewell::Stop(_) | Farewell::Silent => None,
        }
    }
}

/// How the holder of an attempt learns that it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It sent the result: the result is stored.
    Stored,
    /// It must stop within the grace, and keeps the slot until then.
    Stop(Reason),
    /// Nobody is there to be told; the slot is free.
    Silent,
    /// It is told that the attempt does not count any more; the slot is free.
    Superseded(Reason),
}

impl Step {
    /// The run that it is about.
    pub const fn run(&self) -> Option<RunId> {
        match self {
            Self::Create { run, .. }
            | Self::Assign { run, .. }
            | Self::Place { run, .. }
            | Self::End { run, .. }
            | Self::Extend { run, .. }
            | Self::FreeSlot { run, .. } => Some(*run),
            Self::Event { .. } | Self::Worker { .. } | Self::Gone | Self::Pause { .. } => None,
        }
    }
}
