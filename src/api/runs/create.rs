//! `POST /v1/runs`.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use helve_domain::error::Result;
use helve_domain::id::{RunId, TenantId};
use helve_domain::run::Run;

use super::request::{Around, CreateRun, header_key};
use super::view::RunView;
use super::wait;
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json::{self, JsonBody};
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::api::trace::{self, TraceHeader};
use crate::sched::Created;

/// Create a run
///
/// With `Prefer: wait=30` or `?wait=30s` (at most 60 s) the answer is the finished run, also a failed one; past that
/// time it is the open run with 202. The run goes on whatever the caller does.
#[utoipa::path(
    post,
    path = "/v1/runs",
    operation_id = "createRun",
    tag = "runs",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Two creates of a workflow with one key and body \
            give one run, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false),
        ("Prefer" = Option<String>, Header, description = "`wait=<seconds>`: answer when the run has ended, at most \
            60 s", example = "wait=30", nullable = false),
        ("wait" = Option<String>, Query, description = "As `Prefer: wait`, as a duration", example = "30s",
            nullable = false),
        TraceHeader,
    ),
    request_body(content = CreateRun, description = "The run"),
    responses(
        (status = 201, description = "Created; assigned to a worker already, queued, or scheduled", body = RunView,
            headers(("Location" = String, description = "Where the run is"))),
        (status = 200, description = "The finished run of a `wait`, or the run that the key created before",
            body = RunView),
        (status = 202, description = "Created, and not finished within the `wait`", body = RunView,
            headers(("Location" = String, description = "Where the run is"))),
        (status = 404, description = "No such workflow"),
        (status = 409, description = "The key was used with another body"),
        (status = 413, description = "The body or the input is too large"),
        (status = 422, description = "The input does not fit the workflow's schema"),
    )
)]
pub async fn create(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    mut query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let wait = wait::wanted(&mut query, &headers, &state.limits)?;
    query.finish()?;
    let request: CreateRun<'_> = json::parse(&body)?;
    let around = Around {
        tenant: scope.tenant(),
        body: &body,
        at: "",
        idempotency: header_key(&headers, &body, &state.limits)?,
        traceparent: trace::parent(&headers),
        watch: wait.is_some(),
    };
    let run = request.check(&state, around).await?;
    let created = state.scheduler.create(run).await?;
    // A minute of waiting needs no body.
    drop(body);
    match (created, wait) {
        (Created::New { run, .. }, None) => Ok(located(201, &run, false)),
        (Created::New { run, finished }, Some(wait)) => {
            let ended = match finished {
                Some(finished) => wait::end(&state, wait, finished).await,
                None => None,
            };
            match ended {
                Some(run) => Ok(json::answer(200, &RunView::of(&run, false))),
                None => still_open(&state, *run, false).await,
            }
        }
        (Created::Existing(id), None) => {
            let run = super::read(&state, scope.tenant(), id).await?;
            Ok(json::answer(200, &RunView::of(&run, true)))
        }
        (Created::Existing(id), Some(wait)) => join(&state, scope.tenant(), id, wait).await,
    }
}

/// A second create under the same key waits for the run of the first.
async fn join(state: &ApiState, tenant: TenantId, id: RunId, wait: std::time::Duration) -> Result<Response, ApiError> {
    // First the watch, then the look: an end between them is not missed.
    let finished = state.scheduler.watch(tenant, id).await?;
    let run = super::read(state, tenant, id).await?;
    if run.status.is_final() {
        return Ok(json::answer(200, &RunView::of(&run, true)));
    }
    match wait::end(state, wait, finished).await {
        Some(run) => Ok(json::answer(200, &RunView::of(&run, true))),
        None => still_open(state, run, true).await,
    }
}

/// The run as it stands now. It may have ended in the very moment in which the wait did.
async fn still_open(state: &ApiState, run: Run, deduplicated: bool) -> Result<Response, ApiError> {
    // It is committed: a read that fails must not turn the answer into an error.
    let run = super::read(state, run.tenant, run.id).await.unwrap_or(run);
    if run.status.is_final() {
        return Ok(json::answer(200, &RunView::of(&run, deduplicated)));
    }
    Ok(located(202, &run, deduplicated))
}

pub(super) fn located(status: u16, run: &Run, deduplicated: bool) -> Response {
    let mut response = json::answer(status, &RunView::of(run, deduplicated));
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/runs/{}", run.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
