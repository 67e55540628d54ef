//! Bulk jobs: cancels and replays of the runs that a filter finds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::id::{EventId, RunId};
use crate::status::RunStatus;

/// A closed set of words in documents, each with a number in the database.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $number:literal $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case", try_from = "String")]
        pub enum $name { $($(#[$doc])* $word,)+ }

        impl $name {
            /// Every word.
            pub const ALL: &'static [Self] = &[$(Self::$word),+];

            /// Its word in documents.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text),+ }
            }

            /// Its number in the database.
            pub const fn number(self) -> i16 {
                match self { $(Self::$word => $number),+ }
            }

            /// What has this number.
            pub fn from_number(number: i16) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.number() == number)
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let all = || Self::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(", ");
                let found = Self::ALL.iter().copied().find(|word| word.as_str() == text);
                found.ok_or_else(|| format!("expected one of {}", all()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            /// By hand: the derived parser takes a number for a syntax error.
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    };
}

words! {
    /// What a job does to each run.
    JobKind {
        /// Cancels it; finds open runs only.
        Cancel = 0 "cancel",
        /// Replays it; finds final runs only.
        Replay = 1 "replay",
    }
}

words! {
    /// Where a job stands.
    JobStatus {
        /// Nothing is done yet.
        Queued = 0 "queued",
        /// It is worked off.
        Running = 1 "running",
        /// It was cancelled, and what was begun is being completed.
        Cancelling = 2 "cancelling",
        /// Every run that it found has its outcome.
        Finished = 10 "finished",
        /// It was cancelled before that.
        Cancelled = 11 "cancelled",
    }
}

words! {
    /// What became of one run of a job.
    ItemOutcome {
        /// Cancelled or replayed.
        Done = 0 "done",
        /// There was nothing to do: it has ended or is gone.
        Skipped = 1 "skipped",
        /// It could not be done; `error` says why.
        Failed = 2 "failed",
    }
}

words! {
    /// Which version of its workflow a replay starts.
    #[derive(Default)]
    ReplayVersion {
        /// The one that a trigger starts now: what was deployed since the run failed.
        #[default]
        Current = 0 "current",
        /// The one that the run had.
        Same = 1 "same",
    }
}

impl JobStatus {
    /// Nothing more happens to it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Cancelled)
    }
}

/// Which runs a job finds. Everything that is given must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct JobFilter {
    /// In one of these states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<RunStatus>,
    /// Of this workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub workflow: Option<String>,
    /// Created at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub created_after: Option<Timestamp>,
    /// Created before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub created_before: Option<Timestamp>,
    /// With all of these metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Started by this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub event: Option<EventId>,
    /// Replays of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub replay_of: Option<RunId>,
}

/// What a job was asked to do, as it stands in its row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRequest {
    /// Which runs.
    pub filter: JobFilter,
    /// For replays.
    #[serde(default)]
    pub version: ReplayVersion,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_round_trip() {
        for status in JobStatus::ALL {
            assert_eq!(JobStatus::from_number(status.number()), Some(*status));
            let json = serde_json::to_string(status).unwrap();
            assert_eq!(json, format!("\"{}\"", status.as_str()));
            assert_eq!(serde_json::from_str::<JobStatus>(&json).unwrap(), *status);
        }
        assert_eq!(JobStatus::from_number(3), None);
        let wrong = serde_json::from_str::<JobKind>("\"delete\"").unwrap_err().to_string();
        assert!(wrong.starts_with("expected one of cancel, replay"), "{wrong}");
    }

    #[test]
    fn a_request_is_read_back_from_its_row() {
        let filter = JobFilter {
            status: vec![RunStatus::Failed],
            created_after: Some(Timestamp::from_micros(1_700_000_000_123_456)),
            metadata: BTreeMap::from([("user".to_owned(), "42".to_owned())]),
            ..JobFilter::default()
        };
        let request = JobRequest { filter, version: ReplayVersion::Same };
        let text = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<JobRequest>(&text).unwrap(), request);
    }
}
