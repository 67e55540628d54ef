//! `POST /v1/events/{id}/replay` and `POST /v1/events/replay`: what has happened, for the workflows of now.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use helve_domain::error::{Code, Error, Result};
use helve_domain::event::Pattern;
use helve_domain::id::{EventId, RunId, TenantId};
use helve_domain::limits::Limits;
use helve_domain::name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::bulk::store_all;
use super::request::Incoming;
use super::view::EventView;
use super::{answer_stored, read, store};
use crate::api::auth::Writer;
use crate::api::json::{self, JsonBody};
use crate::api::metadata::Metadata;
use crate::api::page::Cursors;
use crate::api::path::Id;
use crate::api::problem::{ApiError, Problem};
use crate::api::query::Query;
use crate::api::runs::request::header_key;
use crate::api::{ApiState, time, trace};
use crate::db;
use crate::db::events::{Event, EventFilter};
use crate::sched::{Idempotency, NewEvent};

/// Events that a preview counts.
const COUNTED: usize = 10_000;

/// Which events to replay. Everything that is given must hold; at least one thing must be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayFilter<'a> {
    /// With this key, or one that this pattern matches: `*` for any characters.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255)]
    key: Option<Cow<'a, str>>,
    /// From this source.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255)]
    source: Option<Cow<'a, str>>,
    /// Taken in at this time or later.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, format = DateTime)]
    created_after: Option<Cow<'a, str>>,
    /// Taken in before this time.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, format = DateTime)]
    created_before: Option<Cow<'a, str>>,
    /// With these metadata.
    #[serde(default)]
    #[schema(value_type = HashMap<String, String>, required = false)]
    metadata: Option<Metadata>,
}

/// Events to replay, oldest first. Replays are not replayed: only what was pushed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayEvents<'a> {
    /// Which.
    #[serde(borrow)]
    filter: ReplayFilter<'a>,
    /// True: only count. Nothing is written.
    #[serde(default)]
    preview: bool,
    /// At most so many in this request; 1,000 if absent. Large payloads end it earlier.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<usize>,
    /// `next_cursor` of the request before.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, pattern = "^[0-9a-f]{10,}$")]
    cursor: Option<Cow<'a, str>>,
}

/// What a replay would do, or has done.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayResult {
    /// The outcome of each event, in the order of their age; empty in a preview.
    results: Vec<ReplayOutcome>,
    /// Give it as `cursor` to go on; null when no event is left, and in a preview.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Only in a preview: what matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    preview: Option<ReplayPreview>,
}

/// What a replay would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayPreview {
    /// Events that match, counted up to 10,000.
    #[schema(minimum = 0)]
    events: u64,
    /// Whether there are more.
    more: bool,
    /// Runs that these would start now, input schemas not looked at.
    #[schema(minimum = 0)]
    runs: u64,
}

/// What became of one event.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayOutcome {
    /// The event that was to be replayed.
    event: EventId,
    /// 201 replayed, 200 replayed before under this key, or the problem's status.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// The new event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    replay: Option<EventId>,
    /// The runs that it started.
    runs: Vec<RunId>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

/// Replay an event
///
/// Stores a new event with the same key, payload and metadata, and starts a run of every workflow that matches now.
/// Each call is another replay; with an `Idempotency-Key` the same key gives the same one, for 24 hours.
#[utoipa::path(
    post,
    path = "/v1/events/{id}/replay",
    operation_id = "replayEvent",
    tag = "events",
    params(
        ("id" = EventId, Path, description = "The event's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Two replays of an event with one key are one, for \
            24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false),
    ),
    responses(
        (status = 201, description = "Replayed, with the runs that it started", body = EventView,
            headers(("Location" = String, description = "Where the new event is"))),
        (status = 200, description = "The key had replayed it before", body = EventView),
        (status = 404, description = "No such event"),
        (status = 422, description = "It matches more workflows than one event may start"),
    )
)]
pub async fn one(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Id(id): Id<EventId>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    query.finish()?;
    let once = header_key(&headers, b"", &state.limits)?;
    let event = read(&state, scope.tenant(), id).await?;
    let new = again(&state, scope.tenant(), event, once, trace::parent(&headers)).await?;
    let (event, existed) = store(&state, new).await?;
    Ok(answer_stored(&event, existed))
}

/// Replay events
///
/// Oldest first, at most 1,000 in a request, each with its own outcome. With an `Idempotency-Key` a request may be sent
/// again: what was replayed under the key is not replayed twice, for 24 hours.
#[utoipa::path(
    post,
    path = "/v1/events/replay",
    operation_id = "replayEvents",
    tag = "events",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "An event is replayed once under one key, for 24 \
            hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false),
    ),
    request_body(content = ReplayEvents, description = "Which"),
    responses((status = 200, description = "An outcome for each event, or what a preview found", body = ReplayResult))
)]
pub async fn many(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let request: ReplayEvents<'_> = json::parse(&body)?;
    let (tenant, limits) = (scope.tenant(), &state.limits);
    let once = header_key(&headers, b"", limits)?;
    let max = limits.bulk_items;
    let limit = request.limit.unwrap_or(max);
    if !(1..=max).contains(&limit) {
        return Err(Error::field("/limit", format!("expected 1 to {max}; got {limit}")).into());
    }
    let cursors = Cursors { list: "replay", tenant };
    let cursor = request.cursor.map(|cursor| cursors.read_id(&cursor)).transpose();
    let cursor = cursor.map_err(|e| Error::invalid(e.code(), Some("/cursor".to_owned()), e.client_text()))?;
    let filter = EventFilter { after: cursor.map(EventId::from_uuid), ..request.filter.check(limits)? };
    if request.preview {
        let preview = Some(preview(&state, tenant, &filter).await?);
        return Ok(json::answer(200, &ReplayResult { results: Vec::new(), next_cursor: None, preview }));
    }
    let page = db::events::oldest(&state.reads.of(tenant), tenant, &filter, limit).await?;
    let next_cursor = cursors.next(&page, |last| last.id.uuid().into_bytes());
    let ids: Vec<EventId> = page.items.iter().map(|event| event.id).collect();
    let mut checked = Vec::with_capacity(ids.len());
    for event in page.items {
        checked.push(again(&state, tenant, event, once.clone(), trace::parent(&headers)).await);
    }
    let made = store_all(&state, checked).await?;
    let results = ids.into_iter().zip(made).map(|(event, made)| outcome(event, made)).collect();
    Ok(json::answer(200, &ReplayResult { results, next_cursor, preview: None }))
}

/// The event once more, for the workflows of now.
async fn again(
    state: &ApiState,
    tenant: TenantId,
    event: Event,
    once: Option<Idempotency>,
    traceparent: Option<String>,
) -> Result<NewEvent> {
    let Event { id, key, payload, metadata, .. } = event;
    // Its source sent it once; the replay is ours.
    let incoming = Incoming { key, source: None, payload, metadata, traceparent, key_at: String::new() };
    let new = incoming.admit(state, tenant).await?;
    Ok(NewEvent { replay_of: Some(id), once, ..new })
}

async fn preview(state: &ApiState, tenant: TenantId, filter: &EventFilter) -> Result<ReplayPreview> {
    let (keys, more) = db::events::keys(&state.reads.of(tenant), tenant, filter, COUNTED).await?;
    let (mut events, mut runs) = (0, 0);
    for (key, count) in keys {
        let matching = state.definitions.matching(tenant, &key).await?.len();
        events += count;
        runs += count * u64::try_from(matching).unwrap_or(u64::MAX);
    }
    Ok(ReplayPreview { events, more, runs })
}

fn outcome(event: EventId, made: Result<(Event, bool)>) -> ReplayOutcome {
    match made {
        Ok((replay, existed)) => {
            let status = if existed { 200 } else { 201 };
            ReplayOutcome { event, status, replay: Some(replay.id), runs: replay.runs, problem: None }
        }
        Err(error) => {
            let problem = Problem::of(&error);
            ReplayOutcome { event, status: problem.status(), replay: None, runs: Vec::new(), problem: Some(problem) }
        }
    }
}

impl ReplayFilter<'_> {
    fn check(self, limits: &Limits) -> Result<EventFilter> {
        let Self { key, source, created_after, created_before, metadata } = self;
        if let Some(key) = &key {
            Pattern::parse("/filter/key", key, limits)?;
        }
        if let Some(source) = &source {
            name::check_text("/filter/source", source, limits)?;
        }
        let filter = EventFilter {
            key: key.map(Cow::into_owned),
            source: source.map(Cow::into_owned),
            created_after: time::field("/filter/created_after", created_after.as_deref())?,
            created_before: time::field("/filter/created_before", created_before.as_deref())?,
            metadata: metadata.unwrap_or_default().pairs("/filter/metadata", limits)?.into_iter().collect(),
            originals: true,
            after: None,
        };
        if filter.is_open() {
            let message = "give at least one of key, source, created_after, created_before and metadata";
            return Err(Error::invalid(Code::MissingField, Some("/filter".to_owned()), message));
        }
        Ok(filter)
    }
}
