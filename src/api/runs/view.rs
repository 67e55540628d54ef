//! A run as clients see it.

use helve_domain::clock::Timestamp;
use helve_domain::id::{EventId, RunId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::run::{Losses, Run, RunError};
use helve_domain::status::RunStatus;
use serde::Serialize;
use utoipa::ToSchema;

/// One execution of a workflow.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub struct RunView<'a> {
    /// Its id.
    id: RunId,
    /// The workflow's name.
    workflow: &'a str,
    /// The version that it started with and keeps.
    version: i32,
    /// Where it stands. More states may come.
    status: RunStatus,
    /// Times that it was assigned to a worker: the last attempt's fencing number.
    #[schema(minimum = 0)]
    attempt: i32,
    /// Retries that were spent.
    #[schema(minimum = 0)]
    retries: i32,
    /// Its class in the queue, 1 (lowest) to 4.
    #[schema(minimum = 1, maximum = 4)]
    priority: i16,
    /// As given.
    input: &'a Payload,
    /// The worker's, when it succeeded; any JSON. Null before.
    #[schema(value_type = Payload, required)]
    output: Option<&'a Payload>,
    /// The last attempt's error, or why it was cancelled.
    #[schema(required)]
    error: Option<&'a RunError>,
    /// As given.
    #[schema(value_type = HashMap<String, String>)]
    metadata: &'a Payload,
    /// The worker of the current or last attempt.
    #[schema(required)]
    worker: Option<WorkerId>,
    /// The event that started it.
    #[schema(required)]
    event: Option<EventId>,
    /// The run that it repeats.
    #[schema(required)]
    replay_of: Option<RunId>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it is due, while it is scheduled: a delayed start, or the next attempt.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// When the current or last attempt was assigned.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// How far the run was when it last said so, at most a few seconds ago. Absent when it never did, and in the answer
    /// to a trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = Option<helve_domain::live::ProgressView>)]
    progress: Option<&'a Payload>,
    /// How it lost its workers. Absent when it never did, in lists, and in the answer to a trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    last_loss: Option<LossView<'a>>,
    /// True: the idempotency key was used before, and this is the run that was created then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    deduplicated: bool,
}

impl<'a> RunView<'a> {
    /// The run, and whether a create found it instead of making it.
    pub fn of(run: &'a Run, deduplicated: bool) -> Self {
        Self {
            id: run.id,
            workflow: &run.workflow,
            version: run.version,
            status: run.status,
            attempt: run.attempt,
            retries: run.retries,
            priority: run.priority,
            input: &run.input,
            output: run.output.as_ref(),
            error: run.error.as_ref(),
            metadata: &run.metadata,
            worker: run.worker,
            event: run.event,
            replay_of: run.replay_of,
            created_at: run.id.created_at(),
            run_at: run.due.filter(|_| run.status == RunStatus::Scheduled),
            started_at: run.started_at,
            finished_at: run.finished_at,
            progress: run.progress.as_ref(),
            last_loss: None,
            deduplicated,
        }
    }

    /// The same with how it lost its workers.
    pub fn with_losses(self, losses: Option<&'a Losses>) -> Self {
        Self { last_loss: losses.map(LossView::of), ..self }
    }
}

/// The last attempt that was taken from a worker that was lost. Its work went to another one, without spending a retry.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Loss)]
pub struct LossView<'a> {
    /// Which attempt.
    #[schema(minimum = 1)]
    attempt: i32,
    /// Who had it.
    #[schema(required)]
    worker: Option<WorkerId>,
    /// Since when; null where that was not written down.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it was taken back.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `worker_lost`: the worker did not come back in time. `reassigned`: it did not confirm the task, or had it no more.
    /// `parked`: it was lost once too often, and the run waits for a person.
    reason: &'a str,
    /// How often that happened to this run.
    #[schema(minimum = 1)]
    times: i64,
}

impl<'a> LossView<'a> {
    /// How a run lost its workers.
    pub fn of(losses: &'a Losses) -> Self {
        let Losses { times, attempt, worker, started_at, at, reason } = losses;
        Self { attempt: *attempt, worker: *worker, started_at: *started_at, at: *at, reason, times: *times }
    }
}

/// A page of runs, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunList)]
pub struct RunListView<'a> {
    /// The runs. A page of large inputs and outputs ends before its limit.
    pub items: Vec<RunView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}
