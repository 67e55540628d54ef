//! A run in memory: where it stands, and what waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
use helve_domain::delivery::{Attempt, Outcome};
use helve_domain::id::{RunId, SessionId, TenantId, WorkerId};
use helve_domain::status::RunStatus;

use crate::types::{Body, Extra, Flight, Guard, Mark, MoveRow, OpenRow, Placement, Ticket};

/// A run in memory.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Task {
    pub tenant: TenantId,
    pub spec: Arc<Spec>,
    pub priority: i16,
    pub rank: i64,
    pub retries: i32,
    pub attempt: i32,
    /// The attempt after which it was last unparked: what it has spent counts from there.
    pub unparked: i32,
    /// What is unusual about it.
    pub extra: Extra,
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
pub(crate) enum Phase {
    /// Not committed yet.
    New,
    Scheduled {
        due: Timestamp,
    },
    Queued {
        expires: Option<Timestamp>,
    },
    Running(Held),
    /// Kept for a person; memory holds it only while something happens to it.
    Parked,
}

/// A running attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub session: SessionId,
    pub worker: WorkerId,
    pub started_at: Timestamp,
    /// When it was pushed; after a takeover that is not known, and it is when it was assigned.
    pub pushed_at: Timestamp,
    pub delivery: Delivery,
    /// The end of its time: set when it was received.
    pub deadline: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Delivery {
    /// Sent so many times, first at `first`; not confirmed.
    Sent { first: Timestamp, times: u32 },
    /// The worker has it.
    Received,
}

/// A command that waits until the run's transition is committed or its row is read.
#[cfg_attr(test, derive(Clone, Debug))]
pub(crate) enum Deferred {
    Cancel {
        tenant: TenantId,
        ticket: Ticket,
    },
    Unpark {
        tenant: TenantId,
        ticket: Ticket,
    },
    Result {
        session: SessionId,
        attempt: Attempt,
        outcome: Outcome,
    },
    Extend {
        session: SessionId,
        attempt: Attempt,
        by: Duration,
    },
    FreeSlot {
        session: SessionId,
        attempt: Attempt,
    },
    /// The session that holds it is over.
    TakeBack {
        session: SessionId,
        reason: TakeBack,
    },
    Timer,
}

impl Deferred {
    /// The session whose worker sent it, and may send it a million times.
    pub const fn of_worker(&self) -> Option<SessionId> {
        match self {
            Self::Result { session, .. } | Self::Extend { session, .. } | Self::FreeSlot { session, .. } => {
                Some(*session)
            }
            Self::Cancel { .. } | Self::Unpark { .. } | Self::TakeBack { .. } | Self::Timer => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakeBack {
    /// The worker gave it back, or left.
    Released,
    /// Never confirmed, or not held after a reconnect.
    Undelivered,
    /// The grace of a lost worker ended.
    Lost,
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
            unparked: row.unparked,
            extra: row.extra.clone(),
            body: None,
            phase,
            flight: None,
            deferred: VecDeque::new(),
            timer: None,
        }
    }

    /// Lets go of a large body: small ones stay, so that a claim need not read them.
    pub fn trim(&mut self) {
        if self.body.as_ref().is_some_and(|b| b.input.len() + b.metadata.len() > helve_domain::json::SMALL) {
            self.body = None;
        }
    }

    /// What the row must look like for a change of this task to apply.
    pub fn guard(&self) -> Guard {
        let (state, session) = match &self.phase {
            Phase::New | Phase::Queued { .. } => (RunStatus::Queued, None),
            Phase::Scheduled { .. } => (RunStatus::Scheduled, None),
            Phase::Running(held) => (RunStatus::Running, Some(held.session)),
            Phase::Parked => (RunStatus::Parked, None),
        };
        Guard { state, attempt: self.attempt, session }
    }

    /// A change of its row that takes it to a place; what else is unusual about it the caller adds.
    pub fn moves(&self, run: RunId, place: Placement) -> MoveRow {
        MoveRow {
            run,
            tenant: self.tenant,
            guard: self.guard(),
            place,
            mark: Mark::None,
            worker: None,
            want_body: false,
            reason: None,
        }
    }

    /// A place without a worker.
    pub const fn rests(&self, state: RunStatus, due: Option<Timestamp>, retries: i32) -> Placement {
        Placement { state, attempt: self.attempt, retries, due, worker: None, started_at: None, error: None }
    }

    /// The place that it has while it runs.
    pub fn stays(&self) -> Option<Placement> {
        let held = self.held()?;
        let place = self.rests(RunStatus::Running, held.deadline, self.retries);
        Some(Placement { worker: Some((held.worker, held.session)), started_at: Some(held.started_at), ..place })
    }

    pub fn held(&self) -> Option<&Held> {
        match &self.phase {
            Phase::Running(held) => Some(held),
            Phase::New | Phase::Scheduled { .. } | Phase::Queued { .. } | Phase::Parked => None,
        }
    }

    /// Whether this attempt of this session is the running one.
    pub fn is_held_by(&self, session: SessionId, attempt: i32) -> bool {
        self.attempt == attempt && self.held().is_some_and(|h| h.session == session)
    }

    /// How often it was delivered without spending a retry.
    pub const fn redeliveries(&self) -> i32 {
        self.attempt - self.unparked - 1 - self.retries
    }
}
