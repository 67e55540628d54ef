//! What goes into the core and what comes out of it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub use helve_domain::change::{
    Body, CreateKey, CreateRow, EndRow, Extra, FinishRow, Guard, InsertRow, Mark, MoveRow, NewEventRow, NewRunRow,
    PauseRow, Placement, Provided, RowOutcome, Rows, WorkerChange, WorkerRow,
};
pub use helve_domain::stored::{EndedRun, RunFacts};

use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
pub use helve_domain::delivery::Incoming;
use helve_domain::delivery::{Attempt, Outgoing, Welcome, WorkerInfo};
use helve_domain::error::Error;
use helve_domain::id::{EventId, RunId, SessionId, TenantId, WorkerId};
use helve_domain::live::Change;
use helve_domain::pause::{Pause, Paused, Target};
use helve_domain::run::Run;
use helve_domain::span::Span;
use helve_domain::status::RunStatus;

/// Names a caller who waits for an answer.
pub type Ticket = u64;
/// Names a transition on its way to the database.
pub type Flight = u64;
/// Names one socket of the process; a session has at most one at a time.
pub type Transport = u64;

/// What every decision may look at besides the state.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The engine's time.
    pub now: Timestamp,
    /// Optimistic assignments that may still be made before one of them commits.
    pub optimistic_room: usize,
    /// Creates of the whole process that wait for their commit.
    pub creating: usize,
    /// Whether anybody wants to hear of changes.
    pub watched: bool,
}

/// Something that happened.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub enum Command {
    /// A trigger.
    Create(Box<NewRunRow>, Option<Ticket>),
    /// An event with its runs.
    CreateEvent(Box<NewEventRow>, Ticket),
    /// Someone wants a run to end.
    Cancel {
        /// Whose token asked.
        tenant: TenantId,
        /// Which run.
        run: RunId,
        /// Who waits.
        ticket: Ticket,
    },
    /// Someone sends a parked run to its queue again.
    Unpark {
        /// Whose token asked.
        tenant: TenantId,
        /// Which run.
        run: RunId,
        /// Who waits.
        ticket: Ticket,
    },
    /// A worker's hello.
    Connect(Box<NewSession>, Ticket),
    /// A worker's message.
    Worker {
        /// Its session.
        session: SessionId,
        /// The socket it came on; messages of a replaced one are ignored.
        transport: Transport,
        /// What it says.
        message: Incoming,
    },
    /// The outbox of the session has no room.
    Congested(SessionId),
    /// A transition is committed; one outcome for each of its rows.
    Committed(Flight, Vec<RowOutcome>),
    /// The database refuses this transition for what it contains.
    Rejected(Flight, String),
    /// Queued rows of one action, from the head or from the horizon.
    QueueLoaded(QueueKey, Vec<OpenRow>, bool),
    /// Rows asked for by id, as they stand in the database.
    RunsLoaded(Vec<(RunId, Found)>),
    /// Rows with a timer up to this time are about to be read: until they are there, memory forgets none of those.
    TimersAsked(Timestamp),
    /// Rows with a timer up to a time; true: all of them.
    TimersLoaded(Vec<OpenRow>, Timestamp, bool),
    /// What a former owner left: workers and the attempts that they hold.
    Recovered(Vec<WorkerRow>, Vec<OpenRow>),
    /// What a former owner left paused; comes before the rest of what it left.
    PausesFound(Vec<Paused>),
    /// Somebody pauses or resumes.
    Pause(Box<PauseOrder>, Ticket),
    /// Time has passed.
    Tick,
    /// The process stops: no optimistic assignments, workers are asked to reconnect.
    Drain(Duration),
}

/// One action of one tenant: what a queue is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey {
    /// Whose.
    pub tenant: TenantId,
    /// What a worker must offer.
    pub action: Arc<str>,
    /// Only the runs of this workflow, which starts gently after a pause; as a rule there is no such part.
    pub part: Option<Arc<str>>,
}

impl QueueKey {
    /// The queue of an action.
    pub const fn of(tenant: TenantId, action: Arc<str>) -> Self {
        Self { tenant, action, part: None }
    }

    /// The queue of the action, of which this may be a part.
    pub fn whole(&self) -> Self {
        Self::of(self.tenant, Arc::clone(&self.action))
    }
}

/// What somebody wants paused or resumed.
#[derive(Debug, Clone)]
pub struct PauseOrder {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub target: Target,
    /// How.
    pub change: PauseChange,
}

/// A wish about a pause.
#[derive(Debug, Clone)]
pub enum PauseChange {
    /// Nothing starts any more.
    Pause(Pause),
    /// The backlog goes: at once, or at a rate.
    Resume {
        /// Starts per second.
        rate: Option<f64>,
        /// The actions that runs of the workflow may need.
        actions: Vec<Arc<str>>,
    },
}

/// A worker on its way in.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct NewSession {
    /// Whose.
    pub tenant: TenantId,
    /// Ids for a new session; unused when one is resumed.
    pub worker: WorkerId,
    /// The same.
    pub session: SessionId,
    /// A fresh secret, and its hash.
    pub secret: (String, [u8; 32]),
    /// The socket.
    pub transport: Transport,
    /// How it describes itself.
    pub info: WorkerInfo,
    /// The session that it wants to go on with, and the hash of the secret that it shows.
    pub resume: Option<(SessionId, [u8; 32])>,
    /// What it says that it holds.
    pub holding: Vec<Attempt>,
}

/// An open row as the database has it, with what it runs.
#[derive(Debug, Clone)]
pub struct OpenRow {
    /// The row.
    pub facts: RunFacts,
    /// What it runs.
    pub spec: Arc<Spec>,
}

impl Deref for OpenRow {
    type Target = RunFacts;

    fn deref(&self) -> &RunFacts {
        &self.facts
    }
}

/// What the database knows of an id.
#[derive(Debug, Clone)]
pub enum Found {
    /// Not final.
    Open(Box<OpenRow>),
    /// Final.
    Ended(EndedRun),
    /// No such run.
    Nothing,
}

/// Which of the two writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// New runs and events.
    Create,
    /// Everything else.
    Finish,
}

/// A transition to commit: all of its rows or none.
#[derive(Debug, Clone)]
pub struct Write {
    /// Its name.
    pub flight: Flight,
    /// For fair batching.
    pub tenant: TenantId,
    /// Its rows.
    pub rows: Rows,
}

impl Write {
    /// Its writer.
    pub const fn lane(&self) -> Lane {
        match self.rows {
            Rows::Create(_) => Lane::Create,
            Rows::Finish(_) | Rows::Worker(_) | Rows::Pause(_) => Lane::Finish,
        }
    }
}

/// What has become certain and is worth counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A run's first assignment is pushed.
    Started {
        /// From when on it could have started.
        ready: Timestamp,
        /// It was created assigned.
        optimistic: bool,
    },
    /// A run ended.
    Ended {
        /// How.
        status: RunStatus,
        /// How long its last attempt was assigned, if it had one.
        ran: Option<Duration>,
    },
}

/// What the core wants done.
#[derive(Debug)]
pub enum Effect {
    /// Count this.
    Seen(Seen),
    /// A span of a recorded trace is over.
    Span(Box<Span>),
    /// Commit this.
    Write(Write),
    /// Tell a caller.
    Answer(Ticket, Answer),
    /// Tell a worker, on the socket that its session has now.
    Push(Transport, Outgoing),
    /// Give this socket to the session: later pushes go there.
    Ended(RunId, Option<Box<Run>>),
    /// Tell those who watch; only if there are any.
    Changed(Box<Change>),
    /// Read queued rows of one action, from a place in it, without those of some workflows.
    LoadQueue(QueueKey, Option<(i64, RunId)>, usize, Vec<Arc<str>>),
    /// Read these rows.
    LoadRun(RunId),
}

/// What a caller hears.
#[derive(Debug)]
pub enum Answer {
    /// The run is committed.
    Created(Box<Run>),
    /// The key is taken: look up by whom.
    KeyTaken(CreateKey),
    /// The event is committed.
    EventCreated(EventId, Vec<RunId>),
    /// The run is cancelled.
    Cancelled,
    /// The run is in its queue again.
    Unparked,
    /// The pause is committed, and nothing that was decided before it is on its way any more.
    Paused(Box<Paused>),
    /// It is resumed; with what still stands of it: a gentle start.
    Resumed(Option<Box<Paused>>),
    /// The worker is known; the socket that it replaces, if any, is told already.
    Welcome(Box<Welcome>),
    /// Not done.
    Failed(Error),
}
