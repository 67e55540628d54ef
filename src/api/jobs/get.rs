//! `GET /v1/jobs/{id}`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::id::JobId;

use super::view::JobView;
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;

/// Get a job
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    operation_id = "getJob",
    tag = "jobs",
    params(("id" = JobId, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = 404, description = "No such job"),
    )
)]
pub async fn get(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Id(id): Id<JobId>,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    let job = state.jobs.get(scope.tenant(), id).await?;
    Ok(json::answer(200, &JobView::of(&job, false)))
}
