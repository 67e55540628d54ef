//! `POST /v1/runs/{id}/unpark`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::id::RunId;

use super::view::RunView;
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json;
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;

/// Unpark a run
///
/// A parked run enters its queue again, behind what waits already, and has all its retries once more.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/unpark",
    operation_id = "unparkRun",
    tag = "runs",
    params(("id" = RunId, Path, description = "The run's id")),
    responses(
        (status = 200, description = "The run, queued or already running again", body = RunView),
        (status = 404, description = "No such run"),
        (status = 409, description = "It is not parked"),
    )
)]
pub async fn unpark(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Id(id): Id<RunId>,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    state.scheduler.unpark(scope.tenant(), id).await?;
    let run = super::read_changed(&state, scope.tenant(), id).await?;
    Ok(json::answer(200, &RunView::of(&run, false)))
}
