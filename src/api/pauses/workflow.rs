//! Pausing and resuming a workflow.

use axum::extract::State;
use axum::response::Response;
use helve_domain::pause::Target;

use super::{PauseRequest, PauseView, ResumeRequest, ResumedView};
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json::{JsonBody, OptionalJsonBody};
use crate::api::path::Name;
use crate::api::problem::ApiError;
use crate::api::query::Query;

/// Pause a workflow
///
/// Triggers are accepted and queued, and no run of it starts, whatever its version; runs that are running go on, their
/// retries wait. After this answer nothing of it is assigned any more. A new version does not end the pause. Pausing
/// what is paused changes reason and expiry.
#[utoipa::path(
    post,
    path = "/v1/workflows/{name}/pause",
    operation_id = "pauseWorkflow",
    tag = "pauses",
    params(("name" = String, Path, description = "The workflow's name, a slash in it as %2F")),
    request_body(content = PauseRequest, description = "Why, and for how long"),
    responses(
        (status = 200, description = "The pause", body = PauseView),
        (status = 404, description = "No such workflow"),
    )
)]
pub async fn pause(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Name(name): Name,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    state.definitions.get(scope.tenant(), &name).await?;
    super::pause(&state, &scope, Target::Workflow(name.into()), &body).await
}

/// Resume a workflow
///
/// Its backlog goes at once, or at a rate that lasts until nothing of it waits any more. What is not paused stays as it
/// is.
#[utoipa::path(
    post,
    path = "/v1/workflows/{name}/resume",
    operation_id = "resumeWorkflow",
    tag = "pauses",
    params(("name" = String, Path, description = "The workflow's name, a slash in it as %2F")),
    request_body(content = Option<ResumeRequest>, description = "How fast; at once if absent"),
    responses(
        (status = 200, description = "What stands now", body = ResumedView),
        (status = 404, description = "No such workflow"),
    )
)]
pub async fn resume(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Name(name): Name,
    query: Query,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    state.definitions.get(scope.tenant(), &name).await?;
    super::resume(&state, &scope, Target::Workflow(name.into()), &body).await
}
