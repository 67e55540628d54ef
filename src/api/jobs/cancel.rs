//! `POST /v1/jobs/{id}/cancel`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::id::JobId;

use super::view::JobView;
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json;
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;

/// Cancel a job
///
/// What it has done stays; no further runs are picked. While those that were picked are completed, its status is
/// `cancelling`. A cancelled job can be cancelled again.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/cancel",
    operation_id = "cancelJob",
    tag = "jobs",
    params(("id" = JobId, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = 404, description = "No such job"),
        (status = 409, description = "It has finished already"),
    )
)]
pub async fn cancel(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Id(id): Id<JobId>,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    let job = state.jobs.cancel(scope.tenant(), id).await?;
    Ok(json::answer(200, &JobView::of(&job, false)))
}
