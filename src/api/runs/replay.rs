//! `POST /v1/runs/{id}/replay`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use helve_domain::id::RunId;
use helve_domain::job::ReplayVersion;
use serde::Deserialize;
use utoipa::ToSchema;

use super::request::header_key;
use super::view::RunView;
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json::{self, OptionalJsonBody};
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::api::trace::{self, TraceHeader};
use crate::housekeeping::jobs::replay;
use crate::sched::Created;

/// How a run is replayed. No body means `{}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRun {
    /// The workflow's current version, or the same one that the run had. `current` if absent.
    #[serde(default)]
    #[schema(required = false)]
    version: ReplayVersion,
}

/// Replay a run
///
/// Creates a new run with the same input, metadata and priority, and `replay_of`. The run itself stays as it is. Only
/// what has ended can be replayed.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/replay",
    operation_id = "replayRun",
    tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Two replays of a run with one key and body give \
            one run, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false),
        TraceHeader,
    ),
    request_body(content = Option<ReplayRun>, description = "Options"),
    responses(
        (status = 201, description = "The new run", body = RunView,
            headers(("Location" = String, description = "Where the run is"))),
        (status = 200, description = "The run that the key created before", body = RunView),
        (status = 404, description = "No such run, or its workflow was deleted"),
        (status = 409, description = "It has not ended, or the key was used with another body or run"),
        (status = 422, description = "The input does not fit the schema of the workflow's version"),
    )
)]
pub async fn replay(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Id(id): Id<RunId>,
    query: Query,
    headers: HeaderMap,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let ReplayRun { version } = json::parse(&body)?;
    // The key stands for this replay of this run: it shares its scope with the triggers of the workflow.
    let sent = [b"replay ".as_slice(), id.uuid().as_bytes(), &body].concat();
    let key = header_key(&headers, &sent, &state.limits)?;
    let run = super::read(&state, scope.tenant(), id).await?;
    let new = replay::of(run, version, key, trace::parent(&headers), &state.definitions).await?;
    match state.scheduler.create(new).await? {
        Created::New { run, .. } => Ok(super::create::located(201, &run, false)),
        Created::Existing(id) => {
            let run = super::read(&state, scope.tenant(), id).await?;
            Ok(json::answer(200, &RunView::of(&run, true)))
        }
    }
}
