//! `GET /v1/runs/{id}`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::id::RunId;

use super::view::RunView;
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;

/// Get a run
#[utoipa::path(
    get,
    path = "/v1/runs/{id}",
    operation_id = "getRun",
    tag = "runs",
    params(("id" = RunId, Path, description = "The run's id")),
    responses(
        (status = 200, description = "The run", body = RunView),
        (status = 404, description = "No such run"),
    )
)]
pub async fn get(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Id(id): Id<RunId>,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    let run = super::read(&state, scope.tenant(), id).await?;
    let losses = super::losses(&state, &run).await?;
    Ok(json::answer(200, &RunView::of(&run, false).with_losses(losses.as_ref())))
}
