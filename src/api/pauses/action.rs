//! Pausing and resuming an action.

use axum::extract::State;
use axum::response::Response;
use helve_domain::error::{Code, Error};
use helve_domain::name;
use helve_domain::pause::Target;

use super::{PauseRequest, PauseView, ResumeRequest, ResumedView};
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json::{JsonBody, OptionalJsonBody};
use crate::api::path::Name;
use crate::api::problem::ApiError;
use crate::api::query::Query;

/// Pause an action
///
/// Runs that need it are accepted and queued, and none starts on any worker, until it is resumed. An action is a name:
/// it can be paused before any worker offers it.
#[utoipa::path(
    post,
    path = "/v1/actions/{action}/pause",
    operation_id = "pauseAction",
    tag = "pauses",
    params(("action" = String, Path, description = "The action's name, a slash in it as %2F")),
    request_body(content = PauseRequest, description = "Why, and for how long"),
    responses((status = 200, description = "The pause", body = PauseView))
)]
pub async fn pause(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Name(action): Name,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    name::check("", &action, &state.limits).map_err(in_path)?;
    super::pause(&state, &scope, Target::Action(action.into()), &body).await
}

/// Resume an action
///
/// Its backlog goes at once, or at a rate that lasts until nothing of it waits any more. What is not paused stays as it
/// is.
#[utoipa::path(
    post,
    path = "/v1/actions/{action}/resume",
    operation_id = "resumeAction",
    tag = "pauses",
    params(("action" = String, Path, description = "The action's name, a slash in it as %2F")),
    request_body(content = Option<ResumeRequest>, description = "How fast; at once if absent"),
    responses((status = 200, description = "What stands now", body = ResumedView))
)]
pub async fn resume(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Name(action): Name,
    query: Query,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    name::check("", &action, &state.limits).map_err(in_path)?;
    super::resume(&state, &scope, Target::Action(action.into()), &body).await
}

fn in_path(error: Error) -> Error {
    Error::invalid(Code::InvalidField, None, format!("the action in the path: {}", error.client_text()))
}
