//! Workers as they stand in memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use helve_domain::clock::Timestamp;
use helve_domain::id::WorkerId;
use helve_domain::pause::Target;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::auth::Reader;
use super::json;
use super::page::{self, Cursors, PageQuery};
use super::pauses::PauseView;
use super::problem::ApiError;
use super::query::Query;
use crate::sched::WorkerState;

/// Slots of one kind.
#[derive(Debug, Serialize, ToSchema)]
pub struct SlotUse {
    /// How many the worker has.
    total: u32,
    /// How many are taken. More than `total` after a worker has lowered it.
    used: u32,
}

/// A program that executes tasks.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Worker)]
pub struct WorkerView<'a> {
    /// Its id.
    id: WorkerId,
    /// For people; need not be unique.
    name: &'a str,
    /// The client library that it uses.
    sdk: &'a str,
    /// What it can do.
    #[schema(value_type = Vec<String>)]
    actions: &'a [Arc<str>],
    /// Its capacity by kind.
    slots: BTreeMap<&'a str, SlotUse>,
    /// Free labels.
    labels: &'a BTreeMap<String, String>,
    /// Whether its socket is open.
    connected: bool,
    /// Whether it takes no more work.
    draining: bool,
    /// When its socket was lost; its work is taken back after the grace.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    lost_at: Option<Timestamp>,
    /// Its pause, or its gentle start after one.
    #[schema(required)]
    pause: Option<PauseView>,
}

/// A page of workers, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkerList)]
pub struct WorkerListView<'a> {
    /// The workers.
    items: Vec<WorkerView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<'a> WorkerView<'a> {
    fn of(worker: &'a WorkerState) -> Self {
        let (info, used) = (&worker.info, &worker.used);
        let mut slots: BTreeMap<&str, SlotUse> =
            info.slots.iter().map(|(kind, total)| (&**kind, SlotUse { total: *total, used: 0 })).collect();
        for (kind, used) in used {
            slots.entry(kind).or_insert(SlotUse { total: 0, used: 0 }).used = *used;
        }
        Self {
            id: worker.id,
            name: &info.name,
            sdk: &info.sdk,
            actions: &info.actions,
            slots,
            labels: &info.labels,
            connected: worker.connected,
            draining: worker.draining,
            lost_at: worker.lost_at,
            pause: worker.pause.as_ref().map(|p| PauseView::new(&Target::Worker(worker.id), p)),
        }
    }
}

/// List workers
///
/// Those whose session is alive: connected ones, and those that may still come back within their grace.
#[utoipa::path(
    get,
    path = "/v1/workers",
    operation_id = "listWorkers",
    tag = "workers",
    params(PageQuery),
    responses((status = 200, description = "A page of workers", body = WorkerListView))
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let cursors = Cursors { list: "workers", tenant: scope.tenant() };
    let limit = query.limit(&state.limits)?;
    let after = query.cursor()?.map(|cursor| cursors.read_id(&cursor)).transpose()?.map(WorkerId::from_uuid);
    query.finish()?;
    let workers = state.scheduler.workers(scope.tenant()).await?;
    let page = page::of_all(workers, after.map(Reverse).as_ref(), limit, |worker| Reverse(worker.id));
    let next_cursor = cursors.next(&page, |worker| worker.id.uuid().into_bytes());
    let items = page.items.iter().map(WorkerView::of).collect();
    Ok(json::answer(200, &WorkerListView { items, next_cursor }))
}
