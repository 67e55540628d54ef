//! The states of a task run, and the only table of their transitions.

use serde::{Deserialize, Serialize};

/// State of a task run; a single-task run has the state of its task run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Due later: delayed, or backing off before a retry.
    Scheduled,
    /// Waits for a free slot.
    Queued,
    /// Assigned to a worker.
    Running,
    /// Its retries are spent; kept for a person, who unparks or cancels it.
    Parked,
    /// Ended well.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Ended on request, or because it waited too long in the queue.
    Cancelled,
}

/// What can happen to a task run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Its time has come.
    Due,
    /// A worker's slot is taken for it.
    Assign,
    /// Given back by the worker, or taken back from it.
    Requeue,
    /// Failed with a retry left, later.
    Backoff,
    /// The worker's success is stored.
    Succeed,
    /// The last failure is stored.
    Fail,
    /// The last failure is stored, and the run is kept for a person.
    Park,
    /// A person sends it to its queue again.
    Unpark,
    /// Ended on request or by a timeout in the queue.
    Cancel,
}

impl RunStatus {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Scheduled, Self::Queued, Self::Running, Self::Parked, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// No transition leaves it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Its number in the database. 3 and 13 are kept for `suspended` and `skipped`.
    pub const fn number(self) -> i16 {
        match self {
            Self::Scheduled => 0,
            Self::Queued => 1,
            Self::Running => 2,
            Self::Parked => 4,
            Self::Succeeded => 10,
            Self::Failed => 11,
            Self::Cancelled => 12,
        }
    }

    /// The state with that number in the database.
    pub fn from_number(n: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.number() == n)
    }

    /// Its name in documents and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Parked => "parked",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state after `t`; `None` where the transition is not allowed.
    pub const fn after(self, t: Transition) -> Option<Self> {
        use RunStatus::{Cancelled, Failed, Parked, Queued, Running, Scheduled, Succeeded};
        match (self, t) {
            (Scheduled, Transition::Due) => Some(Queued),
            (Queued, Transition::Assign) => Some(Running),
            (Running, Transition::Requeue) => Some(Queued),
            (Running, Transition::Backoff) => Some(Scheduled),
            (Running, Transition::Succeed) => Some(Succeeded),
            (Running, Transition::Fail) => Some(Failed),
            (Running, Transition::Park) => Some(Parked),
            (Parked, Transition::Unpark) => Some(Queued),
            (Scheduled | Queued | Running | Parked, Transition::Cancel) => Some(Cancelled),
            (Scheduled | Queued | Running | Parked | Succeeded | Failed | Cancelled, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        use std::fmt::Write as _;
        let all = [
            Transition::Due,
            Transition::Assign,
            Transition::Requeue,
            Transition::Backoff,
            Transition::Succeed,
            Transition::Fail,
            Transition::Park,
            Transition::Unpark,
            Transition::Cancel,
        ];
        let mut table = String::new();
        for from in RunStatus::ALL {
            for t in all {
                if let Some(to) = from.after(t) {
                    writeln!(table, "{} --{t:?}--> {}", from.as_str(), to.as_str()).unwrap();
                }
            }
        }
        insta::assert_snapshot!(table, @r"
        scheduled --Due--> queued
        scheduled --Cancel--> cancelled
        queued --Assign--> running
        queued --Cancel--> cancelled
        running --Requeue--> queued
        running --Backoff--> scheduled
        running --Succeed--> succeeded
        running --Fail--> failed
        running --Park--> parked
        running --Cancel--> cancelled
        parked --Unpark--> queued
        parked --Cancel--> cancelled
        ");
    }

    #[test]
    fn numbers_round_trip() {
        for s in RunStatus::ALL {
            assert_eq!(RunStatus::from_number(s.number()), Some(s));
        }
        assert_eq!(RunStatus::from_number(3), None);
    }
}
