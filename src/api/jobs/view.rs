//! A job and its runs as clients see them.

use helve_domain::clock::Timestamp;
use helve_domain::id::{JobId, RunId};
use helve_domain::job::{JobFilter, JobKind, JobStatus, ReplayVersion};
use serde::Serialize;
use utoipa::ToSchema;

use crate::db::jobs::{Item, Job};

/// Bulk work on runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView<'a> {
    /// Its id.
    id: JobId,
    /// What it does to each run.
    kind: JobKind,
    /// Where it stands.
    status: JobStatus,
    /// Which runs it finds, of those that were there when it was created.
    filter: &'a JobFilter,
    /// Which version its replays start; null for a cancel.
    #[schema(required)]
    version: Option<ReplayVersion>,
    /// Runs that matched when it was created. When it has finished: those that it found, `done`, `skipped` and `failed`
    /// together.
    #[schema(minimum = 0)]
    total: i64,
    /// Runs that it has cancelled or replayed.
    #[schema(minimum = 0)]
    done: i64,
    /// Runs for which there was nothing to do: they had ended, or were gone.
    #[schema(minimum = 0)]
    skipped: i64,
    /// Runs for which it could not be done.
    #[schema(minimum = 0)]
    failed: i64,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When the work began.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When nothing was left to do.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// True: the idempotency key was used before, and this is the job that was created then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    deduplicated: bool,
}

impl<'a> JobView<'a> {
    /// The job, and whether a create found it instead of making it.
    pub fn of(job: &'a Job, deduplicated: bool) -> Self {
        Self {
            id: job.id,
            kind: job.kind,
            status: job.status,
            filter: &job.request.filter,
            version: (job.kind == JobKind::Replay).then_some(job.request.version),
            total: job.total,
            done: job.done,
            skipped: job.skipped,
            failed: job.failed,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            deduplicated,
        }
    }
}

/// A page of jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobList)]
pub struct JobListView<'a> {
    /// The jobs.
    pub items: Vec<JobView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// What became of one run of a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobItem)]
pub struct ItemView<'a> {
    /// The run.
    run: RunId,
    /// `pending`, `done`, `skipped` or `failed`.
    #[schema(value_type = String)]
    outcome: &'static str,
    /// The run that a replay made.
    #[schema(required)]
    replay: Option<RunId>,
    /// Why it was skipped or failed: as the problem of a single request would say it.
    #[schema(required)]
    error: Option<ItemError<'a>>,
}

/// What stood in the way.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobItemError)]
pub struct ItemError<'a> {
    /// One of the codes of problems.
    code: &'a str,
    /// For people.
    message: &'a str,
}

impl<'a> From<&'a Item> for ItemView<'a> {
    fn from(item: &'a Item) -> Self {
        Self {
            run: item.run,
            outcome: item.outcome.map_or("pending", |outcome| outcome.as_str()),
            replay: item.replay,
            error: item.error.as_ref().map(|(code, message)| ItemError { code, message }),
        }
    }
}

/// A page of a job's runs, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobItemList)]
pub struct ItemListView<'a> {
    /// The runs.
    pub items: Vec<ItemView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}
