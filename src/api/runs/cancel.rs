//! `POST /v1/runs/{id}/cancel`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::error::{Code, Error};
use helve_domain::id::RunId;
use helve_domain::status::RunStatus;

use super::view::RunView;
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json;
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;

/// Cancel a run
///
/// After this answer no new attempt starts. A worker that has the run is told to stop. A cancelled run can be
/// cancelled again.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/cancel",
    operation_id = "cancelRun",
    tag = "runs",
    params(("id" = RunId, Path, description = "The run's id")),
    responses(
        (status = 200, description = "The cancelled run", body = RunView),
        (status = 404, description = "No such run"),
        (status = 409, description = "It has succeeded or failed already"),
    )
)]
pub async fn cancel(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Id(id): Id<RunId>,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    let cancelled = state.scheduler.cancel(scope.tenant(), id).await;
    let ended = match cancelled {
        Ok(()) => None,
        // The scheduler knows what is open; the history knows how the rest ended.
        Err(error @ (Error::NotFound { .. } | Error::Conflict { .. })) => Some(error),
        Err(error) => return Err(error.into()),
    };
    let run = match ended {
        None => super::read_changed(&state, scope.tenant(), id).await?,
        Some(_) => super::read(&state, scope.tenant(), id).await?,
    };
    match ended {
        Some(_) if run.status == RunStatus::Cancelled => {}
        Some(_) if run.status.is_final() => {
            return Err(ApiError(Error::Conflict {
                code: Code::AlreadyFinished,
                message: format!("the run has {} already; what is final stays final", run.status.as_str()),
                existing: Some(id.to_string()),
            }));
        }
        Some(error) => return Err(error.into()),
        None => {}
    }
    Ok(json::answer(200, &RunView::of(&run, false)))
}
