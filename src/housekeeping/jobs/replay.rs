//! Replay: a new run that repeats one which has ended.

use helve_domain::error::{Code, Error, Result};
use helve_domain::job::ReplayVersion;
use helve_domain::run::{Priority, Run};

use crate::ops::definitions::Definitions;
use crate::sched::{Idempotency, NewRun};

/// The run that repeats `run`: the same input, metadata and priority. It starts at once.
///
/// # Errors
/// A conflict with `NotFinished` while the run is open; `WorkflowNotFound` when its workflow was deleted;
/// `SchemaMismatch` when the input does not fit the current version;
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
    definitions.check_input(run.tenant, &spec, "/input", &run.input).await?;
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
