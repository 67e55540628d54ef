//! The load of each action of a tenant, for autoscalers.

use axum::extract::State;
use axum::response::Response;
use helve_core::ActionLoad;
use helve_domain::clock::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::loads;
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::page::{self, Cursors, PageQuery};
use crate::api::problem::ApiError;
use crate::api::query::Query;

/// Slots of workers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActionSlots)]
pub struct SlotsView {
    /// Slots of every kind of the connected workers that offer the action. A slot may serve several actions.
    total: u64,
    /// How many of those are taken.
    used: u64,
}

/// What there is to do for an action, and who does it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActionLoad)]
pub struct LoadView<'a> {
    /// Its name.
    action: &'a str,
    /// Runs that wait for a worker. Counted up to 10,000 where they are not all in memory.
    queued: usize,
    /// Attempts that workers hold.
    running: usize,
    /// Both together: what an autoscaler divides by the slots that a worker has.
    unfinished: usize,
    /// How long the run that waits longest has waited, in seconds; null when none waits.
    #[schema(required)]
    oldest_seconds: Option<f64>,
    /// Connected workers that offer the action and take work.
    workers: usize,
    /// Their slots.
    slots: SlotsView,
}

/// A page of loads, by the actions' names.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActionLoadList)]
pub struct LoadListView<'a> {
    /// The actions.
    items: Vec<LoadView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<'a> LoadView<'a> {
    fn of(load: &'a ActionLoad, now: Timestamp) -> Self {
        Self {
            action: &load.action,
            queued: load.queued,
            running: load.running,
            unfinished: load.queued + load.running,
            oldest_seconds: load.oldest.map(|oldest| now.since(oldest).as_secs_f64()),
            workers: load.workers,
            slots: SlotsView { total: load.slots, used: load.used },
        }
    }
}

/// Get the load of actions
///
/// Every action with a queued run, a running one or a connected worker. With `action` exactly that one, also when
/// there is nothing to do for it: an autoscaler always finds `items.0`.
#[utoipa::path(
    get,
    path = "/v1/metrics/queues",
    operation_id = "listActionLoads",
    tag = "metrics",
    params(
        ("action" = Option<String>, Query, description = "Only this action", min_length = 1, max_length = 255,
            nullable = false),
        PageQuery,
    ),
    responses((status = 200, description = "A page of loads", body = LoadListView))
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let tenant = scope.tenant();
    let cursors = Cursors { list: "action-loads", tenant };
    let action = query.name("action", &state.limits)?;
    let limit = query.limit(&state.limits)?;
    let after = query.cursor()?.map(|cursor| cursors.read(&cursor)).transpose()?;
    query.finish()?;
    let survey = state.scheduler.action_loads(tenant).await?;
    let (mut loads, _) = loads::complete(&state.reads.of(tenant), Some(tenant), |_| true, survey.actions).await?;
    if let Some(action) = &action {
        loads.retain(|load| *load.action == **action);
        if loads.is_empty() {
            loads.push(ActionLoad::idle(tenant, action.as_str().into()));
        }
    }
    let page = page::of_all(loads, after.as_ref(), limit, |load| load.action.as_bytes().to_vec());
    let next_cursor = cursors.next(&page, |load| load.action.as_bytes());
    let now = state.clock.now();
    let items = page.items.iter().map(|load| LoadView::of(load, now)).collect();
    Ok(json::answer(200, &LoadListView { items, next_cursor }))
}
