//! A run as the interface shows it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{EventId, RunId, TenantId, WorkerId};
use crate::json::Payload;
use crate::status::RunStatus;

/// Why an attempt or a run failed or was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunError {
    /// For people; at most 16 KiB are kept.
    pub message: String,
    /// For programs: the worker's own, or `timeout`, `schedule_timeout`, `cancelled`, `worker_lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// False: do not retry, whatever the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// The worker's wish for the wait before the next attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Bytes of an error's message that are kept.
pub const MAX_ERROR_MESSAGE: usize = 16 << 10;

impl RunError {
    /// An error that the engine itself gives.
    pub fn of_engine(code: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), code: Some(code.to_owned()), retryable: None, retry_after_ms: None }
    }

    /// Its JSON, as it stands in the database.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|_| b"null".to_vec())
    }
}

/// `1` (lowest) to `4` (highest). One class is worth 60 s of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(i16);

impl Priority {
    /// What a run has when neither the trigger nor the workflow says.
    pub const DEFAULT: Self = Self(2);
    /// The allowed values.
    pub const RANGE: std::ops::RangeInclusive<i64> = 1..=4;
    /// What one class is worth.
    pub const CLASS_MICROS: i64 = 60_000_000;

    /// `None` outside 1 to 4.
    pub fn new(n: i64) -> Option<Self> {
        Self::RANGE.contains(&n).then(|| Self(i16::try_from(n).unwrap_or(2)))
    }

    /// Its number.
    pub const fn number(self) -> i16 {
        self.0
    }

    /// The place in the queue of a run that entered it at `enqueued`: smaller is earlier. Constant
    /// for a run, so ageing needs no rewriting and memory and SQL have one order.
    pub fn rank(self, enqueued: Timestamp) -> i64 {
        enqueued.micros().saturating_sub(i64::from(self.0) * Self::CLASS_MICROS)
    }

    /// When a run of this priority and place entered its queue: the reverse of [`Priority::rank`].
    pub fn entered(number: i16, rank: i64) -> Timestamp {
        Timestamp::from_micros(rank.saturating_add(i64::from(number) * Self::CLASS_MICROS))
    }
}

/// One run with everything that the interface shows of it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id, which is also its creation time.
    pub id: RunId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The version that it started with and keeps.
    pub version: i32,
    /// Where it stands.
    pub status: RunStatus,
    /// The last attempt's fencing number; 0 before the first.
    pub attempt: i32,
    /// Retries that were spent.
    pub retries: i32,
    /// Its class in the queue.
    pub priority: i16,
    /// As given.
    pub input: Payload,
    /// The worker's, when it succeeded.
    pub output: Option<Payload>,
    /// The last attempt's error, or why it was cancelled.
    pub error: Option<RunError>,
    /// As given: a flat object of strings.
    pub metadata: Payload,
    /// The worker of the current or last attempt.
    pub worker: Option<WorkerId>,
    /// The event that started it.
    pub event: Option<EventId>,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// When it is due, while it is scheduled.
    pub due: Option<Timestamp>,
    /// When the current or last attempt was assigned.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// W3C trace context of the trigger.
    pub traceparent: Option<String>,
    /// How far the last attempt was when it last said so, as documents show it. Only a read from the rows has it.
    pub progress: Option<Payload>,
}

impl Run {
    /// Whether an attempt may have been taken from a worker that was lost: there were more of them than its retries and
    /// the one that it has, or ended with, explain. Where this is false, nobody need look.
    pub fn may_have_lost_a_worker(&self) -> bool {
        let explained = match self.status {
            RunStatus::Running | RunStatus::Succeeded | RunStatus::Failed => self.retries + 1,
            RunStatus::Scheduled | RunStatus::Queued | RunStatus::Parked | RunStatus::Cancelled => self.retries,
        };
        let is_loss = |error: &RunError| error.code.as_deref() == Some("worker_lost");
        self.attempt > explained || self.error.as_ref().is_some_and(is_loss)
    }
}

/// How a run lost its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losses {
    /// How often.
    pub times: i64,
    /// The last attempt that was lost.
    pub attempt: i32,
    /// Who had it.
    pub worker: Option<WorkerId>,
    /// Since when; `None` where an engine wrote the row that did not know.
    pub started_at: Option<Timestamp>,
    /// When it was taken back.
    pub at: Timestamp,
    /// `reassigned`: the worker never confirmed it, or did not have it any more. Else the worker itself was gone.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_is_worth_a_minute_of_waiting() {
        let t = Timestamp::from_micros(1_000_000_000);
        let (low, high) = (Priority::new(1).unwrap(), Priority::new(4).unwrap());
        assert!(high.rank(t) < low.rank(t));
        let later = t.plus(std::time::Duration::from_secs(181));
        assert!(low.rank(t) < high.rank(later));
        assert_eq!(Priority::new(0), None);
        assert_eq!(Priority::new(5), None);
    }
}
