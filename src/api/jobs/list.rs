//! `GET /v1/jobs`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::id::JobId;
use helve_domain::job::{JobKind, JobStatus};

use super::view::{JobListView, JobView};
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::page::{Cursors, PageQuery};
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::db;
use crate::db::jobs::JobFilter;

/// List jobs
///
/// Newest first. Everything that is given must hold.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    operation_id = "listJobs",
    tag = "jobs",
    params(
        ("kind" = inline(Option<JobKind>), Query, description = "Of this kind", nullable = false),
        ("status" = Option<JobStatus>, Query, description = "In this state", nullable = false),
        PageQuery,
    ),
    responses((status = 200, description = "A page of jobs", body = JobListView))
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let cursors = Cursors { list: "jobs", tenant: scope.tenant() };
    let limit = query.limit(&state.limits)?;
    let after = query.cursor()?.map(|cursor| cursors.read_id(&cursor)).transpose()?;
    let filter = JobFilter {
        kind: query.parsed("kind", "cancel or replay", |text| text.parse().ok())?,
        status: query
            .parsed("status", "one of queued, running, cancelling, finished, cancelled", |text| text.parse().ok())?,
        after: after.map(JobId::from_uuid),
    };
    query.finish()?;
    let page = db::jobs::list(&state.reads.of(scope.tenant()), scope.tenant(), filter, limit).await?;
    let next_cursor = cursors.next(&page, |job| job.id.uuid().into_bytes());
    let items = page.items.iter().map(|job| JobView::of(job, false)).collect();
    Ok(json::answer(200, &JobListView { items, next_cursor }))
}
