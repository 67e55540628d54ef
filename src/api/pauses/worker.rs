//! Pausing and resuming a worker.

use axum::extract::State;
use axum::response::Response;
use helve_domain::error::Error;
use helve_domain::id::WorkerId;
use helve_domain::pause::Target;

use super::{PauseRequest, PauseView, ResumeRequest, ResumedView};
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json::{JsonBody, OptionalJsonBody};
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::ops::auth::TenantScope;

/// Pause a worker
///
/// It gets nothing new, and goes on with what it has. The pause lasts over its reconnects and ends when the worker is
/// gone: one that starts anew has another id.
#[utoipa::path(
    post,
    path = "/v1/workers/{id}/pause",
    operation_id = "pauseWorker",
    tag = "pauses",
    params(("id" = WorkerId, Path, description = "The worker's id")),
    request_body(content = PauseRequest, description = "Why, and for how long"),
    responses(
        (status = 200, description = "The pause", body = PauseView),
        (status = 404, description = "No such worker"),
    )
)]
pub async fn pause(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Id(id): Id<WorkerId>,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    exists(&state, &scope, id).await?;
    super::pause(&state, &scope, Target::Worker(id), &body).await
}

/// Resume a worker
///
/// Its backlog goes at once, or at a rate that lasts until nothing of it waits any more. What is not paused stays as it
/// is.
#[utoipa::path(
    post,
    path = "/v1/workers/{id}/resume",
    operation_id = "resumeWorker",
    tag = "pauses",
    params(("id" = WorkerId, Path, description = "The worker's id")),
    request_body(content = Option<ResumeRequest>, description = "How fast; at once if absent"),
    responses(
        (status = 200, description = "What stands now", body = ResumedView),
        (status = 404, description = "No such worker"),
    )
)]
pub async fn resume(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Id(id): Id<WorkerId>,
    query: Query,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    exists(&state, &scope, id).await?;
    super::resume(&state, &scope, Target::Worker(id), &body).await
}

async fn exists(state: &ApiState, scope: &TenantScope, id: WorkerId) -> Result<(), Error> {
    let workers = state.scheduler.workers(scope.tenant()).await?;
    workers.iter().any(|worker| worker.id == id).then_some(()).ok_or_else(|| Error::not_found("worker", id))
}
