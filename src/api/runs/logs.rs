//! `GET /v1/runs/{id}/logs`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::clock::Timestamp;
use helve_domain::error::Error;
use helve_domain::id::RunId;
use helve_domain::live::LogLevel;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::db;
use crate::db::live::StoredLine;
use crate::db::page::Page;

/// One line of a run's log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLine)]
pub struct LogLineView<'a> {
    /// Its place in the run's log: from 0 on, without gaps.
    #[schema(minimum = 0)]
    offset: i64,
    /// The attempt that wrote it.
    #[schema(minimum = 1)]
    attempt: i32,
    /// How much it matters.
    level: LogLevel,
    /// What it says.
    message: &'a str,
    /// When it was written, as far as the worker told.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl<'a> LogLineView<'a> {
    /// A stored line.
    pub fn of(line: &'a StoredLine) -> Self {
        let StoredLine { place, attempt, line } = line;
        Self { offset: *place, attempt: *attempt, level: line.level, message: &line.message, at: line.at }
    }
}

/// A page of a run's log, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogPage)]
pub struct LogPageView<'a> {
    /// The lines.
    items: Vec<LogLineView<'a>>,
    /// Give it as `after` for the next page; null when there is none by now.
    #[schema(required, minimum = 0)]
    next_after: Option<i64>,
    /// Lines that are stored, of every level.
    #[schema(minimum = 0)]
    total: i64,
    /// Lines that were not stored: over a limit of the run or of its worker's rate, or without room in the engine.
    #[schema(minimum = 0)]
    dropped: i64,
}

/// List the log of a run
///
/// Oldest first. A line is here a moment after the worker sent it; those of a finished run may still come.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/logs",
    operation_id = "listRunLogs",
    tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("after" = Option<i64>, Query, description = "Lines behind this offset; from the first if absent", minimum = 0,
            nullable = false),
        ("level" = Option<LogLevel>, Query, description = "Of this level or above", nullable = false),
        ("limit" = Option<i32>, Query, description = "Items of the page; 50 if absent", minimum = 1, maximum = 1000,
            nullable = false),
    ),
    responses(
        (status = 200, description = "A page of the log", body = LogPageView),
        (status = 404, description = "No such run"),
    )
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Id(id): Id<RunId>,
    mut query: Query,
) -> Result<Response, ApiError> {
    let limit = query.limit(&state.limits)?;
    let expected = "an offset: a whole number from 0 on";
    let after =
        query.parsed("after", expected, |text| text.parse::<i64>().ok().filter(|n| (0..i64::MAX).contains(n)))?;
    let level = query.parsed("level", "debug, info, warn or error", |text| {
        LogLevel::ALL.into_iter().find(|level| level.as_str() == text)
    })?;
    query.finish()?;
    let tenant = scope.tenant();
    let counts =
        db::live::counts(&state.reads.of(tenant), tenant, id).await?.ok_or_else(|| Error::not_found("run", id))?;
    let (from, level) = (after.map_or(0, |after| after + 1), level.unwrap_or(LogLevel::Debug));
    let lines = db::live::log(&state.reads.of(tenant), tenant, id, from, level, limit + 1).await?;
    let page = Page::cut(lines, limit);
    let next_after = page.items.last().filter(|_| page.more).map(|line| line.place);
    let items = page.items.iter().map(LogLineView::of).collect();
    Ok(json::answer(200, &LogPageView { items, next_after, total: counts.lines, dropped: counts.dropped }))
}
