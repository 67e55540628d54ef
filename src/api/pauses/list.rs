//! `GET /v1/pauses`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::pause::Paused;
use serde::Serialize;
use utoipa::ToSchema;

use super::PauseView;
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::page::{self, Cursors, PageQuery};
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
    let place = |paused: &Paused| {
        let (kind, name) = (paused.target.number(), paused.target.name());
        [&kind.to_be_bytes(), name.as_bytes()].concat()
    };
    let page = page::of_all(all, after.as_ref(), limit, place);
    let next_cursor = cursors.next(&page, place);
    let items = page.items.iter().map(PauseView::of).collect();
    Ok(json::answer(200, &PauseListView { items, next_cursor }))
}
