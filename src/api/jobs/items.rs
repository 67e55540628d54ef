//! `GET /v1/jobs/{id}/runs`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::id::{JobId, RunId};
use helve_domain::job::ItemOutcome;

use super::view::{ItemListView, ItemView};
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::page::{Cursors, PageQuery};
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::db;

/// List the runs of a job
///
/// Each with its outcome, oldest first.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/runs",
    operation_id = "listJobRuns",
    tag = "jobs",
    params(
        ("id" = JobId, Path, description = "The job's id"),
        ("outcome" = inline(Option<ItemOutcome>), Query, description = "With this outcome", nullable = false),
        PageQuery,
    ),
    responses(
        (status = 200, description = "A page of runs", body = ItemListView),
        (status = 404, description = "No such job"),
    )
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Id(id): Id<JobId>,
    mut query: Query,
) -> Result<Response, ApiError> {
    // A cursor belongs to one job.
    let name = format!("job runs {id}");
    let cursors = Cursors { list: &name, tenant: scope.tenant() };
    let limit = query.limit(&state.limits)?;
    let after = query.cursor()?.map(|cursor| cursors.read_id(&cursor)).transpose()?;
    let outcome = query.parsed("outcome", "done, skipped or failed", |text| text.parse::<ItemOutcome>().ok())?;
    query.finish()?;
    let job = state.jobs.get(scope.tenant(), id).await?;
    let page =
        db::jobs::items(&state.reads.of(scope.tenant()), job.id, outcome, after.map(RunId::from_uuid), limit).await?;
    let next_cursor = cursors.next(&page, |item| item.run.uuid().into_bytes());
    Ok(json::answer(200, &ItemListView { items: page.items.iter().map(ItemView::from).collect(), next_cursor }))
}
