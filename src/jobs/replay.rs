//! Replay: a new run that repeats one which has ended.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::run::{Priority, Run};
use crate::error::{Code, Error, Result};
use crate::ops::definitions::Definitions;
use crate::sched::{Idempotency, NewRun};

/// Which version of its workflow a replay starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum ReplayVersion {
    /// The one that a trigger starts now: what was deployed since the run failed.
    #[default]
    Current,
    /// The one that the run had.
    Same,
}

impl TryFrom<String> for ReplayVersion {
    type Error = &'static str;

    /// By hand: the derived parser takes a number for a syntax error.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "current" => Ok(Self::Current),
            "same" => Ok(Self::Same),
            _ => Err("expected `current` or `same`"),
        }
    }
}

/// The run that repeats `run`: the same input, metadata and priority. It starts at once.
///
/// # Errors
/// A conflict with `NotFinished` while the run is open; `WorkflowNotFound` when its workflow was deleted;
/// `Unavailable`.
pub async fn of(
    run: Run,
    version: ReplayVersion,
    idempotency: Option<Idempotency>,
    traceparent: Option<String>,
    definitions: &Definitions,
) -> Result<NewRun> {
    if !run.status.is_final() {
        return Err(Error::Conflict {
            code: Code::NotFinished,
            message: format!("the run is {}; only what has ended can be replayed", run.status.as_str()),
            existing: Some(run.id.to_string()),
        });
    }
    // A deleted workflow starts nothing, in no version.
    let current = definitions.current(run.tenant, &run.workflow).await?;
    let spec = match version {
        ReplayVersion::Same if current.version != run.version => {
            definitions.version(run.tenant, &run.workflow, run.version).await?
        }
        ReplayVersion::Same | ReplayVersion::Current => current,
    };
    Ok(NewRun {
        tenant: run.tenant,
        spec,
        input: run.input,
        metadata: run.metadata,
        priority: Priority::new(run.priority.into()).unwrap_or(Priority::DEFAULT),
        run_at: None,
        idempotency,
        traceparent,
        replay_of: Some(run.id),
        watch: false,
    })
}
