//! `POST /v1/jobs`.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use helve_domain::error::{Error, Result};
use helve_domain::id::{EventId, RunId};
use helve_domain::job::{JobFilter, JobKind, JobRequest, ReplayVersion};
use helve_domain::limits::Limits;
use helve_domain::name;
use helve_domain::status::RunStatus;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::view::JobView;
use crate::api::auth::Writer;
use crate::api::json::{self, JsonBody};
use crate::api::metadata::Metadata;
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::api::runs::header_key;
use crate::api::{ApiState, time};
use crate::housekeeping::jobs::Accepted;

/// A job to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJob<'a> {
    /// Cancel open runs, or replay final ones.
    kind: JobKind,
    /// Which runs. At least one condition; a replay names the `status`.
    #[serde(borrow)]
    filter: Filter<'a>,
    /// For a replay: the workflow's current version, or the same one that each run had. `current` if absent.
    #[serde(default)]
    #[schema(nullable = false)]
    version: Option<ReplayVersion>,
    /// True: create nothing, and say how many runs match now.
    #[serde(default)]
    dry_run: bool,
}

/// Which runs a job finds, of those that are there when it is created: as the parameters of a list of runs. Everything
/// that is given must hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateJobFilter)]
pub struct Filter<'a> {
    /// In one of these states. A cancel takes open ones (all of them if absent), a replay final ones.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<RunStatus>, required = false)]
    status: Vec<Cow<'a, str>>,
    /// Of this workflow.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255)]
    workflow: Option<Cow<'a, str>>,
    /// Created at this time (RFC 3339) or later.
    #[serde(borrow, default)]
    #[schema(value_type = String, format = DateTime, required = false)]
    created_after: Option<Cow<'a, str>>,
    /// Created before this time (RFC 3339).
    #[serde(borrow, default)]
    #[schema(value_type = String, format = DateTime, required = false)]
    created_before: Option<Cow<'a, str>>,
    /// With all of these metadata.
    #[serde(default)]
    #[schema(value_type = HashMap<String, String>, required = false)]
    metadata: Metadata,
    /// Started by this event.
    #[serde(default)]
    #[schema(nullable = false)]
    event: Option<EventId>,
    /// Replays of this run.
    #[serde(default)]
    #[schema(nullable = false)]
    replay_of: Option<RunId>,
}

/// What a job would find.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobPreview)]
pub struct Preview {
    /// Always true: nothing was created.
    dry_run: bool,
    /// Runs that match now.
    #[schema(minimum = 0)]
    total: i64,
}

impl CreateJob<'_> {
    fn check(self, limits: &Limits) -> Result<(JobKind, JobRequest, bool)> {
        let Self { kind, filter, version, dry_run } = self;
        if kind == JobKind::Cancel && version.is_some() {
            return Err(Error::field("/version", "only a replay has a version"));
        }
        let filter = filter.check(kind, limits)?;
        Ok((kind, JobRequest { filter, version: version.unwrap_or_default() }, dry_run))
    }
}

impl Filter<'_> {
    fn check(self, kind: JobKind, limits: &Limits) -> Result<JobFilter> {
        let status = self.status.iter().enumerate();
        let status: Vec<RunStatus> = status.map(|(i, text)| state(i, text, kind)).collect::<Result<_>>()?;
        if kind == JobKind::Replay && status.is_empty() {
            let message = format!("a replay names the states that it replays: one or more of {}", states(kind));
            return Err(Error::field("/filter/status", message));
        }
        if let Some(workflow) = &self.workflow {
            name::check("/filter/workflow", workflow, limits)?;
        }
        let filter = JobFilter {
            status,
            workflow: self.workflow.map(Cow::into_owned),
            created_after: time::field("/filter/created_after", self.created_after.as_deref())?,
            created_before: time::field("/filter/created_before", self.created_before.as_deref())?,
            metadata: self.metadata.pairs("/filter/metadata", limits)?,
            event: self.event,
            replay_of: self.replay_of,
        };
        if filter == JobFilter::default() {
            let message = "at least one condition is needed; every run matches `created_before` with a later time";
            return Err(Error::field("/filter", message));
        }
        Ok(filter)
    }
}

fn fitting(kind: JobKind) -> impl Iterator<Item = RunStatus> {
    RunStatus::ALL.into_iter().filter(move |status| status.is_final() == (kind == JobKind::Replay))
}

fn states(kind: JobKind) -> String {
    fitting(kind).map(RunStatus::as_str).collect::<Vec<_>>().join(", ")
}

fn state(i: usize, text: &str, kind: JobKind) -> Result<RunStatus> {
    fitting(kind).find(|status| status.as_str() == text).ok_or_else(|| {
        let message = format!("a {} takes runs that are {}", kind.as_str(), states(kind));
        Error::field(format!("/filter/status/{i}"), message)
    })
}

/// Create a job
///
/// Cancels or replays every run that the filter finds, of those that are there now, in the background. It goes on after
/// a crash of the engine, and does nothing twice. With `dry_run` nothing is created, and the answer is the number of
/// runs that match.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    operation_id = "createJob",
    tag = "jobs",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Two creates with one key and body give one job, \
            for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false),
    ),
    request_body(content = CreateJob, description = "The job"),
    responses(
        (status = 201, description = "Created: it is worked off from now on", body = JobView,
            headers(("Location" = String, description = "Where the job is"))),
        (status = 200, description = "The job that the key created before, or what a dry run found",
            body = inline(Found)),
        (status = 409, description = "The key was used with another body"),
    )
)]
pub async fn create(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let (kind, request, dry_run) = json::parse::<CreateJob<'_>>(&body)?.check(&state.limits)?;
    let key = header_key(&headers, &body, &state.limits)?;
    if dry_run {
        let total = state.jobs.preview(scope.tenant(), kind, &request).await?;
        return Ok(json::answer(200, &Preview { dry_run, total }));
    }
    match state.jobs.create(scope.tenant(), kind, request, key.map(|key| (key.key, key.body_hash))).await? {
        Accepted::New(job) => {
            let mut response = json::answer(201, &JobView::of(&job, false));
            if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{}", job.id)) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            Ok(response)
        }
        Accepted::Existing(job) => Ok(json::answer(200, &JobView::of(&job, true))),
    }
}

/// Either of both.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the answers")]
pub enum Found {
    /// The job of the key.
    Job(JobView<'static>),
    /// What a dry run found.
    Preview(Preview),
}
