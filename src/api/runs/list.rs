//! `GET /v1/runs`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::{EventId, RunId};
use helve_domain::limits::Limits;
use helve_domain::status::RunStatus;

use super::view::{RunListView, RunView};
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::page::{Cursors, PageQuery};
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::db;
use crate::db::runs::RunFilter;

/// List runs
///
/// Newest first, open and finished ones. Everything that is given must hold.
#[utoipa::path(
    get,
    path = "/v1/runs",
    operation_id = "listRuns",
    tag = "runs",
    params(
        ("status" = Option<Vec<RunStatus>>, Query, description = "In one of these states; repeated, or separated by \
            commas", nullable = false),
        ("workflow" = Option<String>, Query, description = "Of this workflow", min_length = 1, max_length = 255,
            nullable = false),
        ("created_after" = Option<String>, Query, description = "Created at this time (RFC 3339) or later",
            format = DateTime, nullable = false),
        ("created_before" = Option<String>, Query, description = "Created before this time (RFC 3339)",
            format = DateTime, nullable = false),
        ("metadata" = Option<Vec<String>>, Query, description = "With this metadata, as `key=value`; repeated for \
            more", nullable = false),
        ("event" = Option<EventId>, Query, description = "Started by this event", nullable = false),
        ("replay_of" = Option<RunId>, Query, description = "Replays of this run", nullable = false),
        PageQuery,
    ),
    responses((status = 200, description = "A page of runs", body = RunListView))
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let cursors = Cursors { list: "runs", tenant: scope.tenant() };
    let limit = query.limit(&state.limits)?;
    let filter = filter(&mut query, &cursors, &state.limits)?;
    query.finish()?;
    let page = db::runs::list(&state.reads.of(scope.tenant()), scope.tenant(), &filter, limit).await?;
    let next_cursor = cursors.next(&page, |run| run.id.uuid().into_bytes());
    let items = page.items.iter().map(|run| RunView::of(run, false)).collect();
    Ok(json::answer(200, &RunListView { items, next_cursor }))
}

fn filter(query: &mut Query, cursors: &Cursors<'_>, limits: &Limits) -> Result<RunFilter> {
    let after = query.cursor()?.map(|cursor| cursors.read_id(&cursor)).transpose()?;
    Ok(RunFilter {
        statuses: statuses(query)?,
        workflow: query.name("workflow", limits)?,
        created_after: query.time("created_after")?,
        created_before: query.time("created_before")?,
        finished_before: None,
        metadata: query.metadata(limits)?,
        event: query.parsed("event", "an event's id, `evt_` and 32 hexadecimal digits", |text| text.parse().ok())?,
        replay_of: query
            .parsed("replay_of", "a run's id, `run_` and 32 hexadecimal digits", |text| text.parse().ok())?,
        after: after.map(RunId::from_uuid),
    })
}

/// The states that the query names.
///
/// # Errors
/// `InvalidField`.
pub(in crate::api) fn statuses(query: &mut Query) -> Result<Vec<RunStatus>> {
    let values = query.all("status");
    let parse = |text: &str| {
        let known = RunStatus::ALL.into_iter().find(|status| status.as_str() == text);
        known.ok_or_else(|| {
            let all: Vec<_> = RunStatus::ALL.into_iter().map(RunStatus::as_str).collect();
            let message = format!("query parameter `status`: expected one or more of {}", all.join(", "));
            Error::parameter(Code::InvalidField, "status", message)
        })
    };
    values.iter().flat_map(|value| value.split(',')).map(parse).collect()
}
