//! Events: push, get, list.

pub mod bulk;
mod cloud;
mod data;
mod form;
pub mod replay;
mod request;
mod view;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use helve_domain::error::{Error, Result};
use helve_domain::id::{EventId, TenantId};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::auth::{Reader, Writer};
use super::json::{self, AnyBody};
use super::page::{Cursors, PageQuery};
use super::path::Id;
use super::problem::ApiError;
use super::query::Query;
use super::trace::{self, TraceHeader};
use crate::db;
use crate::db::events::{Event, EventFilter};
use crate::sched::{EventCreated, NewEvent};
use bulk::Outcomes;
use cloud::CloudEvent;
use form::Form;
use request::PushEvent;
use view::{EventListView, EventView};

/// What a push is answered with that stored no single event.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the answers")]
enum Pushed<'a> {
    Before(EventView<'a>),
    Batch(Outcomes<'a>),
}

/// Push an event
///
/// Stores the event and a run of every workflow with a matching pattern, in one step. A workflow whose input schema the
/// payload does not fit is not started: the answer names it in `skipped`.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "pushEvent",
    tag = "events",
    params(TraceHeader),
    request_body(description = "The event; a CloudEvent also in its binary form, with `ce-` headers", content(
        (PushEvent = "application/json"),
        (CloudEvent = "application/cloudevents+json"),
        (Vec<CloudEvent> = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = 201, description = "Stored, with the runs that it started", body = EventView,
            headers(("Location" = String, description = "Where the event is"))),
        (status = 200, description = "Its source had sent it before; for a batch the outcomes, as from `pushEvents`",
            body = inline(Pushed<'_>)),
        (status = 409, description = "Its source had sent another body under this id"),
        (status = 413, description = "The body or the payload is too large"),
        (status = 422, description = "It matches more workflows than one event may start"),
    )
)]
pub async fn push(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    query: Query,
    headers: HeaderMap,
    AnyBody(body): AnyBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let tenant = scope.tenant();
    let traceparent = trace::parent(&headers);
    let event = match Form::of(&headers)? {
        Form::Batch => return bulk::batch(&state, tenant, &body, traceparent).await,
        Form::Own => json::parse::<PushEvent<'_>>(&body)?.check("", &body, traceparent, &state.limits)?,
        Form::Structured => cloud::structured("", json::text(&body)?, &body, traceparent, &state.limits)?,
        Form::Binary => cloud::binary(&headers, body, traceparent, &state.limits)?,
    };
    let (event, existed) = store(&state, event.admit(&state, tenant).await?).await?;
    Ok(answer_stored(&event, existed))
}

/// The answer of a push or a replay of one.
fn answer_stored(event: &Event, existed: bool) -> Response {
    let mut response = json::answer(if existed { 200 } else { 201 }, &EventView::of(event, existed));
    if !existed && let Ok(location) = HeaderValue::from_str(&format!("/v1/events/{}", event.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Stores an event with its runs; true: it was there before.
async fn store(state: &ApiState, new: NewEvent) -> Result<(Event, bool)> {
    // Cheap: the payload is shared, not copied.
    let created = state.scheduler.push_event(new.clone()).await?;
    stored(state, new, created).await
}

/// The event that became of a push; true: it was there before.
async fn stored(state: &ApiState, new: NewEvent, created: EventCreated) -> Result<(Event, bool)> {
    match created {
        EventCreated::New { id, runs } => {
            let NewEvent { key, source, metadata, payload, replay_of, skipped, .. } = new;
            Ok((Event { id, key, source, metadata, payload, replay_of, skipped, runs }, false))
        }
        EventCreated::Existing(id) => Ok((read(state, new.tenant, id).await?, true)),
    }
}

async fn read(state: &ApiState, tenant: TenantId, id: EventId) -> Result<Event> {
    db::events::get(&state.reads.of(tenant), tenant, id).await?.ok_or_else(|| Error::not_found("event", id))
}

/// Get an event
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    operation_id = "getEvent",
    tag = "events",
    params(("id" = EventId, Path, description = "The event's id")),
    responses(
        (status = 200, description = "The event", body = EventView),
        (status = 404, description = "No such event"),
    )
)]
pub async fn get(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Id(id): Id<EventId>,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    let event = read(&state, scope.tenant(), id).await?;
    Ok(json::answer(200, &EventView::of(&event, false)))
}

/// List events
///
/// Newest first. Everything that is given must hold.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "listEvents",
    tag = "events",
    params(
        ("key" = Option<String>, Query, description = "With this key; `*` stands for any characters", min_length = 1, max_length = 255,
            nullable = false),
        ("source" = Option<String>, Query, description = "From this source", min_length = 1, max_length = 255,
            nullable = false),
        ("created_after" = Option<String>, Query, description = "Taken in at this time (RFC 3339) or later",
            format = DateTime, nullable = false),
        ("created_before" = Option<String>, Query, description = "Taken in before this time (RFC 3339)",
            format = DateTime, nullable = false),
        ("metadata" = Option<Vec<String>>, Query, description = "With this metadata, as `key=value`; repeated for \
            more", nullable = false),
        PageQuery,
    ),
    responses((status = 200, description = "A page of events", body = EventListView))
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let cursors = Cursors { list: "events", tenant: scope.tenant() };
    let limit = query.limit(&state.limits)?;
    let after = query.cursor()?.map(|cursor| cursors.read_id(&cursor)).transpose()?;
    let filter = EventFilter {
        key: query.pattern("key", &state.limits)?,
        source: query.text("source", &state.limits)?,
        created_after: query.time("created_after")?,
        created_before: query.time("created_before")?,
        metadata: query.metadata(&state.limits)?,
        originals: false,
        after: after.map(EventId::from_uuid),
    };
    query.finish()?;
    let page = db::events::list(&state.reads.of(scope.tenant()), scope.tenant(), &filter, limit).await?;
    let next_cursor = cursors.next(&page, |event| event.id.uuid().into_bytes());
    let items = page.items.iter().map(|event| EventView::of(event, false)).collect();
    Ok(json::answer(200, &EventListView { items, next_cursor }))
}
