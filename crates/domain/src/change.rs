//! Changes of rows, as the scheduler decides them and the database writes them.

use std::sync::Arc;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::definition::Spec;
use crate::delivery::WorkerInfo;
use crate::id::{EventId, RunId, SessionId, TenantId, WorkerId};
use crate::json::Payload;
use crate::pause::{Pause, Target};
use crate::run::{Priority, RunError};
use crate::status::RunStatus;
use crate::trace::RunTrace;

/// A create key: (scope, key) of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CreateKey {
    /// Whose.
    pub tenant: TenantId,
    /// The workflow, or the source of an event.
    pub scope: Arc<str>,
    /// The client's key.
    pub key: Arc<str>,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
}

impl CreateKey {
    /// What makes it unique.
    pub fn identity(&self) -> (TenantId, Arc<str>, Arc<str>) {
        (self.tenant, Arc::clone(&self.scope), Arc::clone(&self.key))
    }
}

/// What travels with a run and is not needed to decide.
#[derive(Debug, Clone)]
pub struct Body {
    /// As given.
    pub input: Payload,
    /// As given.
    pub metadata: Payload,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// A trigger on its way in.
#[derive(Debug, Clone)]
pub struct NewRunRow {
    /// Made before the statement: by it the outcome of a lost answer is found.
    pub id: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// What to run.
    pub spec: Arc<Spec>,
    /// Payloads.
    pub body: Arc<Body>,
    /// Class in the queue.
    pub priority: Priority,
    /// Not before.
    pub run_at: Option<Timestamp>,
    /// Happens once.
    pub key: Option<CreateKey>,
    /// What else is known of it.
    pub extra: Extra,
}

/// What most runs have nothing of: a plain run pays a pointer for all of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extra(Option<Arc<Unusual>>);

/// What is unusual about a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unusual {
    /// The event that started it.
    pub event: Option<EventId>,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// Its trace, if that is recorded.
    pub trace: Option<RunTrace>,
}

impl From<Unusual> for Extra {
    fn from(unusual: Unusual) -> Self {
        Self((unusual != Unusual::default()).then(|| Arc::new(unusual)))
    }
}

impl Extra {
    /// The event that started the run.
    pub fn event(&self) -> Option<EventId> {
        self.0.as_ref()?.event
    }

    /// The run that it repeats.
    pub fn replay_of(&self) -> Option<RunId> {
        self.0.as_ref()?.replay_of
    }

    /// Its trace, if that is recorded.
    pub fn trace(&self) -> Option<RunTrace> {
        self.0.as_ref()?.trace
    }

    /// The same with a trace, or as it is.
    #[must_use]
    pub fn traced(self, trace: Option<RunTrace>) -> Self {
        match trace {
            None => self,
            Some(_) => Unusual { trace, ..self.0.map_or_else(Unusual::default, Arc::unwrap_or_clone) }.into(),
        }
    }
}

/// An event on its way in.
#[derive(Debug, Clone)]
pub struct NewEventRow {
    /// Its id.
    pub id: EventId,
    /// Whose.
    pub tenant: TenantId,
    /// Its key.
    pub key: String,
    /// Where it comes from, with its id there.
    pub source: Option<(String, String)>,
    /// Happens once.
    pub create_key: Option<CreateKey>,
    /// As given.
    pub body: Arc<Body>,
    /// The event that it repeats.
    pub replay_of: Option<EventId>,
    /// The matching workflows that it does not start, as the interface shows them: a JSON list.
    pub skipped: Option<Payload>,
    /// The runs that it starts.
    pub runs: Vec<NewRunRow>,
}

/// What a new row depends on in its own statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provided {
    /// Nothing.
    #[default]
    Always,
    /// The create key that belongs to this run or event is won.
    Won(Uuid),
}

impl Provided {
    /// What the statement must have won; `None`: nothing.
    pub const fn target(self) -> Option<Uuid> {
        match self {
            Self::Always => None,
            Self::Won(target) => Some(target),
        }
    }
}

impl NewRunRow {
    /// What its row depends on when it is created by itself.
    pub fn provided(&self) -> Provided {
        self.key.as_ref().map_or(Provided::Always, |_| Provided::Won(self.id.uuid()))
    }
}

impl NewEventRow {
    /// What its row, and those of the runs that it starts, depend on.
    pub fn provided(&self) -> Provided {
        self.create_key.as_ref().map_or(Provided::Always, |_| Provided::Won(self.id.uuid()))
    }
}

/// What must be true of an open row for a change to apply. Values, never literals: see docs/decisions/0002.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// The state.
    pub state: RunStatus,
    /// The fencing number.
    pub attempt: i32,
    /// The session, for a running one.
    pub session: Option<SessionId>,
}

/// Where an open row goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The new state.
    pub state: RunStatus,
    /// The new fencing number.
    pub attempt: i32,
    /// Retries spent.
    pub retries: i32,
    /// The next timer.
    pub due: Option<Timestamp>,
    /// Who works on it.
    pub worker: Option<(WorkerId, SessionId)>,
    /// Since when.
    pub started_at: Option<Timestamp>,
    /// The last error; `None` leaves what is there.
    pub error: Option<RunError>,
}

/// What a move changes besides the place; an ordinary one changes nothing more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    #[default]
    None,
    /// The slots of the running attempt are given back although it goes on.
    Freed,
    /// A parked run enters its queue again, at this rank; what it has spent counts from here.
    Unparked {
        /// Its new place in the queue.
        rank: i64,
    },
}

/// A row that the create lane writes.
#[derive(Debug, Clone)]
pub enum CreateRow {
    /// A new open run.
    Run(Box<InsertRow>),
    /// A new event.
    Event(Box<NewEventRow>),
}

/// A row that the finish lane changes.
#[derive(Debug, Clone)]
pub enum FinishRow {
    /// An open run moves on.
    Move(Box<MoveRow>),
    /// An open run ends.
    End(Box<EndRow>),
}

impl FinishRow {
    /// The open run that it changes.
    pub const fn run(&self) -> RunId {
        match self {
            Self::Move(row) => row.run,
            Self::End(row) => row.run,
        }
    }
}

/// What becomes of a worker's row.
#[derive(Debug, Clone)]
pub enum WorkerChange {
    /// The worker as it is now.
    Put(Box<WorkerRow>),
    /// It is gone.
    Gone(WorkerId),
}

/// The rows of one transition. They are of one kind, since each kind has a statement of its own.
#[derive(Debug, Clone)]
pub enum Rows {
    /// New runs and events.
    Create(Vec<CreateRow>),
    /// Open runs that move on or end.
    Finish(Vec<FinishRow>),
    /// A worker.
    Worker(WorkerChange),
    /// A pause as it is now, or that it is over.
    Pause(Box<PauseRow>),
}

impl Rows {
    /// How many rows it has.
    pub const fn len(&self) -> usize {
        match self {
            Self::Create(rows) => rows.len(),
            Self::Finish(rows) => rows.len(),
            Self::Worker(_) | Self::Pause(_) => 1,
        }
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows for the create lane; none of another kind.
    pub fn creates(&self) -> &[CreateRow] {
        if let Self::Create(rows) = self { rows } else { &[] }
    }

    /// The open runs that are changed; none of another kind.
    pub fn finishes(&self) -> &[FinishRow] {
        if let Self::Finish(rows) = self { rows } else { &[] }
    }
}

/// A new open run.
#[derive(Debug, Clone)]
pub struct InsertRow {
    /// What was asked for.
    pub run: NewRunRow,
    /// Where it starts.
    pub place: Placement,
    /// Its place in the queue.
    pub rank: i64,
    /// Inserted only if.
    pub provided: Provided,
}

/// A change of an open run.
#[derive(Debug, Clone)]
pub struct MoveRow {
    /// Which.
    pub run: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// Only if.
    pub guard: Guard,
    /// Where to.
    pub place: Placement,
    /// What else.
    pub mark: Mark,
    /// Whose attempt this ends, and since when that ran: for the transition table.
    pub worker: Option<(WorkerId, Timestamp)>,
    /// Bring the payloads back: they are to be sent to a worker.
    pub want_body: bool,
    /// Why, if it is unusual: written to the transition table.
    pub reason: Option<&'static str>,
}

/// The end of an open run.
#[derive(Debug, Clone)]
pub struct EndRow {
    /// Which.
    pub run: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// Only if.
    pub guard: Guard,
    /// The final state.
    pub state: RunStatus,
    /// The worker's result.
    pub output: Option<Payload>,
    /// Why it did not succeed.
    pub error: Option<RunError>,
    /// When.
    pub finished_at: Timestamp,
    /// Why, if it is unusual.
    pub reason: Option<&'static str>,
}

/// A worker's row.
#[derive(Debug, Clone)]
pub struct WorkerRow {
    /// Its id.
    pub worker: WorkerId,
    /// Its session.
    pub session: SessionId,
    /// Whose.
    pub tenant: TenantId,
    /// SHA-256 of the session's secret.
    pub secret: [u8; 32],
    /// How it describes itself.
    pub info: WorkerInfo,
}

/// A pause's row.
#[derive(Debug, Clone)]
pub struct PauseRow {
    /// Whose.
    pub tenant: TenantId,
    /// What is paused.
    pub target: Target,
    /// How; `None`: it is over.
    pub pause: Option<Pause>,
}

/// What a committed statement did with a row.
#[derive(Debug, Clone)]
pub enum RowOutcome {
    /// As asked.
    Applied(Option<Arc<Body>>),
    /// The guard did not match: nothing was changed.
    Missed,
    /// The create key belongs to an earlier create.
    KeyTaken,
}
