//! What a run shows while it runs: log lines, progress, and changes of its state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::delivery::Attempt;
use crate::id::{EventId, RunId, TenantId};
use crate::json::Payload;
use crate::status::RunStatus;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For who looks for a fault.
    Debug,
    /// The ordinary course.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

impl LogLevel {
    /// Every level, in order.
    pub const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// Its number in the database.
    pub const fn number(self) -> i16 {
        match self {
            Self::Debug => 0,
            Self::Info => 1,
            Self::Warn => 2,
            Self::Error => 3,
        }
    }

    /// The level with that number; what a newer engine may have written counts as an error.
    pub fn from_number(n: i16) -> Self {
        Self::ALL.into_iter().find(|level| level.number() == n).unwrap_or(Self::Error)
    }

    /// Its name in frames and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line of a worker's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// When it was written, by the engine's clock.
    pub at: Timestamp,
    /// What it says. Without NUL, and within the limit.
    pub message: String,
}

/// Lines of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// Whose they are.
    pub attempt: Attempt,
    /// In the order of the worker.
    pub lines: Vec<LogLine>,
    /// Lines that came too fast and are gone; they are counted.
    pub dropped: u64,
}

/// How far an attempt has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The attempt.
    pub attempt: Attempt,
    /// From 0 to 1.
    pub fraction: f64,
    /// Parts that are done, and parts in all, if the worker counts them.
    pub parts: Option<(u64, u64)>,
    /// Whatever else it says of it.
    pub data: Option<Payload>,
    /// When it was said, by the engine's clock.
    pub at: Timestamp,
}

/// Progress as documents show it, and as it is stored.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Progress)]
pub struct ProgressView<'a> {
    /// The attempt that said it.
    #[schema(minimum = 1)]
    attempt: i32,
    /// How far it is, from 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    fraction: f64,
    /// Parts that are done, if the worker counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>, minimum = 0)]
    current: Option<u64>,
    /// Parts in all, if the worker counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>, minimum = 1)]
    total: Option<u64>,
    /// Whatever else the worker says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Payload>)]
    data: Option<&'a Payload>,
    /// When it was said.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl Progress {
    /// Its JSON.
    pub fn to_payload(&self) -> Payload {
        let view = ProgressView {
            attempt: self.attempt.number,
            fraction: self.fraction,
            current: self.parts.map(|p| p.0),
            total: self.parts.map(|p| p.1),
            data: self.data.as_ref(),
            at: self.at,
        };
        serde_json::to_vec(&view).map_or_else(|_| Payload::empty_object(), |bytes| Payload::trusted(bytes.into()))
    }
}

/// Something that was committed, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub tenant: TenantId,
    /// When the commit was known.
    pub at: Timestamp,
    /// What.
    pub what: Changed,
}

/// What was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A run has come to a state.
    Run {
        /// Which.
        run: RunId,
        /// Of which workflow.
        workflow: Arc<str>,
        /// The state.
        status: RunStatus,
        /// The attempt that is running, or was the last one; 0 before the first.
        attempt: i32,
        /// Why, where it is unusual.
        reason: Option<&'static str>,
    },
    /// An event was taken in.
    Event {
        /// Which.
        event: EventId,
        /// Its key.
        key: Arc<str>,
        /// The runs that it started.
        runs: Vec<RunId>,
    },
}

/// Which changes of a tenant someone wants.
#[derive(Debug, Clone, Default)]
pub struct ChangeFilter {
    /// Changes of runs of these workflows; empty: of all.
    pub workflows: Vec<String>,
    /// To these states; empty: to any.
    pub statuses: Vec<RunStatus>,
    /// Not those of runs.
    pub no_runs: bool,
    /// Not those of events.
    pub no_events: bool,
}

impl ChangeFilter {
    /// Whether it is wanted.
    pub fn admits(&self, what: &Changed) -> bool {
        match what {
            Changed::Run { workflow, status, .. } => {
                !self.no_runs
                    && (self.workflows.is_empty() || self.workflows.iter().any(|w| **w == **workflow))
                    && (self.statuses.is_empty() || self.statuses.contains(status))
            }
            Changed::Event { .. } => !self.no_events,
        }
    }
}

/// Where a run stands in its life. A run never goes back: what is greater came later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stage {
    attempt: i32,
    phase: u8,
}

impl Stage {
    /// Before anything.
    pub const NONE: Self = Self { attempt: -1, phase: 0 };

    /// An attempt runs, then waits for its next time, then in its queue; the end comes last.
    pub const fn of(status: RunStatus, attempt: i32) -> Self {
        let phase = match status {
            RunStatus::Running => 0,
            RunStatus::Queued => 2,
            status if status.is_final() => 3,
            _ => 1,
        };
        Self { attempt, phase }
    }

    /// Whether nothing comes after it.
    pub const fn is_end(self) -> bool {
        self.phase == 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_only_goes_forward() {
        use RunStatus::{Cancelled, Failed, Queued, Running, Scheduled};
        let life = [
            (Scheduled, 0),
            (Queued, 0),
            (Running, 1),
            (Scheduled, 1),
            (Queued, 1),
            (Running, 2),
            (Queued, 2),
            (Running, 3),
            (Failed, 3),
        ];
        let stages: Vec<_> = life.iter().map(|(status, attempt)| Stage::of(*status, *attempt)).collect();
        assert!(stages.is_sorted_by(|a, b| a < b), "{stages:?}");
        assert!(Stage::NONE < stages[0]);
        assert!(Stage::of(Queued, 0) < Stage::of(Cancelled, 0));
        assert_eq!(stages.iter().filter(|s| s.is_end()).count(), 1);
    }

    #[test]
    fn progress_shows_what_was_said() {
        let run = RunId::generate(Timestamp::from_micros(1));
        let progress = Progress {
            attempt: Attempt { run, number: 2 },
            fraction: 0.5,
            parts: Some((1, 2)),
            data: Some(Payload::trusted(bytes::Bytes::from_static(b"{\"n\": 1e400}"))),
            at: Timestamp::from_micros(1_000_000),
        };
        let text = String::from_utf8(progress.to_payload().bytes().to_vec()).unwrap();
        assert_eq!(
            text,
            r#"{"attempt":2,"fraction":0.5,"current":1,"total":2,"data":{"n": 1e400},"at":"1970-01-01T00:00:01.000000Z"}"#
        );
    }
}
