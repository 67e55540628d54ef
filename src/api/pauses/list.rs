//! `GET /v1/pauses`.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::PauseView;
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::page::{Cursors, PageQuery};
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::db;

/// A page of pauses, by kind and name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PauseList)]
pub struct PauseListView {
    /// The pauses.
    items: Vec<PauseView>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List pauses
///
/// What is paused, and what was resumed with a rate and is not at full speed yet.
#[utoipa::path(
    get,
    path = "/v1/pauses",
    operation_id = "listPauses",
    tag = "pauses",
    params(PageQuery),
    responses((status = 200, description = "A page of pauses", body = PauseListView))
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let cursors = Cursors { list: "pauses", tenant: scope.tenant() };
    let limit = query.limit(&state.limits)?;
    let after = query.cursor()?.map(|cursor| cursors.read(&cursor)).transpose()?;
    query.finish()?;
    let all = db::pauses::list(&state.reads.of(scope.tenant()), scope.tenant(), state.clock.now()).await?;
    let mut placed: Vec<(Vec<u8>, PauseView)> = all
        .iter()
        .map(|paused| {
            let (kind, name) = (paused.target.number(), paused.target.name());
            ([&kind.to_be_bytes(), name.as_bytes()].concat(), PauseView::of(paused))
        })
        .filter(|(place, _)| after.as_ref().is_none_or(|after| place > after))
        .collect();
    placed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let more = placed.len() > limit;
    placed.truncate(limit);
    let next_cursor = placed.last().filter(|_| more).map(|(place, _)| cursors.after(place));
    let items = placed.into_iter().map(|(_, view)| view).collect();
    Ok(json::answer(200, &PauseListView { items, next_cursor }))
}
