//! What the database knows of runs, as it is read.

use crate::change::Extra;
use crate::clock::Timestamp;
use crate::delivery::Attempt;
use crate::id::{RunId, SessionId, TenantId, WorkerId};
use crate::status::RunStatus;

/// What decisions look at of an open row.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// Its id.
    pub run: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// State, one of the open ones.
    pub state: RunStatus,
    /// Fencing number.
    pub attempt: i32,
    /// Retries spent.
    pub retries: i32,
    /// The attempt after which it was last unparked; 0: never.
    pub unparked: i32,
    /// Its worker gave back the slots of this attempt early.
    pub freed: bool,
    /// Class in the queue.
    pub priority: i16,
    /// Place in the queue.
    pub rank: i64,
    /// The next timer.
    pub due: Option<Timestamp>,
    /// Who holds it.
    pub holder: Option<(WorkerId, SessionId)>,
    /// Since when.
    pub started_at: Option<Timestamp>,
    /// What is unusual about it.
    pub extra: Extra,
}

/// An open row as the database has it.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// What decisions look at.
    pub facts: RunFacts,
    /// The workflow's name.
    pub workflow: String,
    /// The version that it keeps.
    pub version: i32,
    /// What it asks of the labels of its worker, if not what its version does.
    pub labels: Option<String>,
    /// W3C trace context of its trigger.
    pub traceparent: Option<String>,
}

/// What the database knows of an id.
#[derive(Debug, Clone)]
pub enum Stored {
    /// Not final.
    Open(StoredRun),
    /// Final.
    Ended(EndedRun),
}

/// The end of a run, as far as a late command needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRun {
    /// Which.
    pub run: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// How it ended.
    pub state: RunStatus,
    /// The attempt that ended it.
    pub attempt: i32,
    /// The session of that attempt.
    pub session: Option<SessionId>,
}

impl EndedRun {
    /// Whether the run ended by the result of this attempt of this session.
    pub fn is_result_of(&self, session: SessionId, attempt: Attempt) -> bool {
        let by_result = matches!(self.state, RunStatus::Succeeded | RunStatus::Failed);
        by_result && self.attempt == attempt.number && self.session == Some(session)
    }
}
