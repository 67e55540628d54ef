//! Events: push, get, list.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::auth::{Reader, Writer};
use super::json::{self, JsonBody};
use super::metadata::Metadata;
use super::page::Cursors;
use super::path::Id;
use super::problem::{ApiError, Problem};
use super::query::Query;
use super::{ApiState, trace};
use crate::clock::Timestamp;
use crate::db;
use crate::db::events::{Event, EventFilter};
use crate::domain::json::Payload;
use crate::domain::limits::Limits;
use crate::domain::name;
use crate::error::{Code, Error, Result};
use crate::id::{EventId, RunId, TenantId};
use crate::sched::{EventCreated, NewEvent};

/// An event to push.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushEvent<'a> {
    /// What happened, such as `image.uploaded`. Workflows match it with their `events` patterns.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9_.:/-]+$")]
    key: Cow<'a, str>,
    /// The input of the runs that it starts: any JSON, at most 1 MiB. Null if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Payload, required = false)]
    payload: Option<&'a RawValue>,
    /// Also the metadata of its runs; at most 64 keys and 16 KiB.
    #[serde(default)]
    #[schema(value_type = HashMap<String, String>, required = false)]
    metadata: Option<Metadata>,
    /// Where it comes from; together with `source_id` it is taken once in 24 hours.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255)]
    source: Option<Cow<'a, str>>,
    /// Its id there. Both or neither.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255)]
    source_id: Option<Cow<'a, str>>,
}

/// An event that was taken in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IngestedEvent)]
pub struct EventView<'a> {
    /// Its id.
    id: EventId,
    /// What happened.
    key: &'a str,
    /// As given.
    payload: &'a Payload,
    /// As given.
    #[schema(value_type = HashMap<String, String>)]
    metadata: &'a Payload,
    /// Where it comes from.
    #[schema(required)]
    source: Option<&'a str>,
    /// Its id there.
    #[schema(required)]
    source_id: Option<&'a str>,
    /// The runs that it started.
    runs: &'a [RunId],
    /// When it was taken in.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// True: its source had sent it before, and this is the event of then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    deduplicated: bool,
}

/// A page of events, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventList)]
pub struct EventListView<'a> {
    /// The events. A page of large payloads ends before its limit.
    items: Vec<EventView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<'a> EventView<'a> {
    fn of(event: &'a Event, deduplicated: bool) -> Self {
        Self {
            id: event.id,
            key: &event.key,
            payload: &event.payload,
            metadata: &event.metadata,
            source: event.source.as_ref().map(|(source, _)| source.as_str()),
            source_id: event.source.as_ref().map(|(_, id)| id.as_str()),
            runs: &event.runs,
            created_at: event.id.created_at(),
            deduplicated,
        }
    }
}

impl PushEvent<'_> {
    fn check(self, tenant: TenantId, body: &Bytes, limits: &Limits) -> Result<NewEvent> {
        let Self { key, payload, metadata, source, source_id } = self;
        name::check("/key", &key, limits)?;
        let payload = match payload {
            Some(raw) => Payload::from_raw(body, raw, "the payload", "/payload", limits)?,
            None => Payload::null(),
        };
        let source = match (source, source_id) {
            (None, None) => None,
            (Some(source), Some(id)) => {
                name::check_text("/source", &source, limits)?;
                name::check_text("/source_id", &id, limits)?;
                Some((source.into_owned(), id.into_owned()))
            }
            (Some(_), None) => return Err(both("/source_id")),
            (None, Some(_)) => return Err(both("/source")),
        };
        Ok(NewEvent {
            tenant,
            key: key.into_owned(),
            // Only compared where the source can send it again.
            body_hash: source.as_ref().map_or([0; 32], |_| Sha256::digest(body).into()),
            source,
            payload,
            metadata: metadata.unwrap_or_default().check("/metadata", limits)?,
            specs: Vec::new(),
            traceparent: None,
        })
    }
}

fn both(missing: &str) -> Error {
    let message = "`source` and `source_id` go together: both or neither";
    Error::invalid(Code::MissingField, Some(missing.to_owned()), message)
}

/// Push an event
///
/// Stores the event and a run of every workflow with a matching pattern, in one step.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "pushEvent",
    tag = "events",
    params(
        ("traceparent" = Option<String>, Header, description = "W3C trace context; travels to the workers",
            nullable = false),
    ),
    request_body(content = PushEvent, description = "The event"),
    responses(
        (status = 201, description = "Stored, with the runs that it started", body = EventView,
            headers(("Location" = String, description = "Where the event is"))),
        (status = 200, description = "Its source had sent it before", body = EventView),
        (status = 409, description = "Its source had sent another body under this id", body = Problem,
            content_type = "application/problem+json"),
        (status = 413, description = "The body or the payload is too large", body = Problem,
            content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "It matches more workflows than one event may start", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub async fn push(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let request: PushEvent<'_> = json::parse(&body)?;
    let tenant = scope.tenant();
    let mut new = request.check(tenant, &body, &state.limits)?;
    new.traceparent = trace::parent(&headers);
    new.specs = state.definitions.matching(tenant, &new.key).await?;
    let (found, max) = (new.specs.len(), state.limits.event_matches);
    if found > max {
        let message =
            format!("{found} workflows match this key; one event may start at most {max}; nothing was written");
        return Err(Error::invalid(Code::TooManyMatches, Some("/key".to_owned()), message).into());
    }
    // Cheap: the payload is shared, not copied.
    let kept = new.clone();
    match state.scheduler.push_event(new).await? {
        EventCreated::New { id, runs } => {
            let NewEvent { key, source, metadata, payload, .. } = kept;
            let event = Event { id, key, source, metadata, payload, runs };
            let mut response = json::answer(201, &EventView::of(&event, false));
            if let Ok(location) = HeaderValue::from_str(&format!("/v1/events/{id}")) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            Ok(response)
        }
        EventCreated::Existing(id) => Ok(json::answer(200, &EventView::of(&read(&state, tenant, id).await?, true))),
    }
}

async fn read(state: &ApiState, tenant: TenantId, id: EventId) -> Result<Event> {
    db::events::get(&state.pool, tenant, id).await?.ok_or_else(|| Error::not_found("event", id))
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
        (status = 404, description = "No such event", body = Problem, content_type = "application/problem+json"),
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
        ("key" = Option<String>, Query, description = "With this key", min_length = 1, max_length = 255,
            nullable = false),
        ("source" = Option<String>, Query, description = "From this source", min_length = 1, max_length = 255,
            nullable = false),
        ("created_after" = Option<String>, Query, description = "Taken in at this time (RFC 3339) or later",
            format = DateTime, nullable = false),
        ("created_before" = Option<String>, Query, description = "Taken in before this time (RFC 3339)",
            format = DateTime, nullable = false),
        ("metadata" = Option<Vec<String>>, Query, description = "With this metadata, as `key=value`; repeated for \
            more", nullable = false),
        ("limit" = Option<i32>, Query, description = "Items of the page; 50 if absent", minimum = 1, maximum = 1000,
            nullable = false),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before",
            pattern = "^[0-9a-f]{10,}$", nullable = false),
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
        key: query.name("key", &state.limits)?,
        source: query.text("source", &state.limits)?,
        created_after: query.time("created_after")?,
        created_before: query.time("created_before")?,
        metadata: query.metadata(&state.limits)?,
        after: after.map(EventId::from_uuid),
    };
    query.finish()?;
    let page = db::events::list(&state.pool, scope.tenant(), &filter, limit).await?;
    let last = page.items.last().filter(|_| page.more);
    let next_cursor = last.map(|event| cursors.after(event.id.uuid().as_bytes()));
    let items = page.items.iter().map(|event| EventView::of(event, false)).collect();
    Ok(json::answer(200, &EventListView { items, next_cursor }))
}
