//! `POST /v1/events/bulk`, and the batched form of CloudEvents.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use helve_domain::error::{Error, Result};
use helve_domain::id::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::cloud::CloudEvent;
use super::form::Form;
use super::request::{Incoming, PushEvent};
use super::view::EventView;
use super::{cloud, stored};
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json::{self, AnyBody};
use crate::api::problem::{ApiError, Problem};
use crate::api::query::Query;
use crate::api::trace::{self, TraceHeader};
use crate::db::events::Event;
use crate::sched::NewEvent;

/// Reads of events that were pushed before, at once for one request.
const READS: usize = 4;

/// Events to push.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushEvents<'a> {
    /// 1 to 1,000 of them. Each has its own outcome: a wrong one does not harm the others.
    #[serde(borrow)]
    #[schema(value_type = Vec<PushEvent>, min_items = 1, max_items = 1000)]
    events: Vec<&'a RawValue>,
}

/// What became of one item: an event, or a problem.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkEventOutcome)]
pub struct Outcome<'a> {
    /// 201 stored, 200 sent before by its source, or the problem's status.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// The event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    event: Option<EventView<'a>>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

/// What became of each item, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkEventResult)]
pub struct Outcomes<'a> {
    /// One for each item.
    results: Vec<Outcome<'a>>,
}

/// Push many events
///
/// Each item is stored with its runs in one step and has its own outcome; the answer is 200 also when items failed.
#[utoipa::path(
    post,
    path = "/v1/events/bulk",
    operation_id = "pushEvents",
    tag = "events",
    params(TraceHeader),
    request_body(description = "The events", content(
        (PushEvents = "application/json"),
        (Vec<CloudEvent> = "application/cloudevents-batch+json"),
    )),
    responses((status = 200, description = "An outcome for each item", body = Outcomes))
)]
pub async fn push_many(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    query: Query,
    headers: HeaderMap,
    AnyBody(body): AnyBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let traceparent = trace::parent(&headers);
    match Form::of_many(&headers)? {
        Form::Batch => batch(&state, scope.tenant(), &body, traceparent).await,
        _ => {
            let request: PushEvents<'_> = json::parse(&body)?;
            count(&state, "/events", request.events.len())?;
            let item = |i: usize, raw: &RawValue| {
                let at = format!("/events/{i}");
                let event: PushEvent<'_> = json::parse_part(&at, raw.get())?;
                event.check(&at, &body, traceparent.clone(), &state.limits)
            };
            push_all(&state, scope.tenant(), &request.events, item).await
        }
    }
}

/// The batched form of CloudEvents.
pub async fn batch(
    state: &ApiState,
    tenant: TenantId,
    body: &Bytes,
    traceparent: Option<String>,
) -> Result<Response, ApiError> {
    let events = json::parse_list(body)?;
    count(state, "", events.len())?;
    let item = |i: usize, raw: &RawValue| {
        cloud::structured(&format!("/{i}"), raw.get(), body, traceparent.clone(), &state.limits)
    };
    push_all(state, tenant, &events, item).await
}

fn count(state: &ApiState, at: &str, count: usize) -> Result<()> {
    let max = state.limits.bulk_items;
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(Error::field(at, format!("expected 1 to {max} events; got {count}")))
}

async fn push_all(
    state: &ApiState,
    tenant: TenantId,
    items: &[&RawValue],
    check: impl Fn(usize, &RawValue) -> Result<Incoming>,
) -> Result<Response, ApiError> {
    let mut checked = Vec::with_capacity(items.len());
    for (i, raw) in items.iter().enumerate() {
        checked.push(match check(i, raw) {
            Ok(event) => event.admit(state, tenant).await,
            Err(error) => Err(error),
        });
    }
    let made = store_all(state, checked).await?;
    let results = made.iter().map(outcome).collect();
    Ok(json::answer(200, &Outcomes { results }))
}

/// Stores what passed the checks, and keeps the order of the request. True: it was there before.
pub async fn store_all(state: &ApiState, checked: Vec<Result<NewEvent>>) -> Result<Vec<Result<(Event, bool)>>> {
    let mut good = Vec::with_capacity(checked.len());
    let places: Vec<Result<NewEvent>> =
        checked.into_iter().map(|item| item.inspect(|event| good.push(event.clone()))).collect();
    let created = if good.is_empty() { Vec::new() } else { state.scheduler.push_events(good).await? };
    let mut created = created.into_iter();
    let missing = || Error::Internal("an item of a bulk has no outcome".to_owned());
    let outcomes = places.into_iter().map(|item| {
        let event = item?;
        Ok((event, created.next().unwrap_or_else(|| Err(missing()))?))
    });
    let outcomes: Vec<Result<_>> = outcomes.collect();
    let events = stream::iter(outcomes).map(async |outcome| {
        let (event, created) = outcome?;
        stored(state, event, created).await
    });
    Ok(events.buffered(READS).collect().await)
}

fn outcome(made: &Result<(Event, bool)>) -> Outcome<'_> {
    match made {
        Ok((event, existed)) => Outcome {
            status: if *existed { 200 } else { 201 },
            event: Some(EventView::of(event, *existed)),
            problem: None,
        },
        Err(error) => {
            let problem = Problem::of(error);
            Outcome { status: problem.status(), event: None, problem: Some(problem) }
        }
    }
}
