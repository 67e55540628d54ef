//! `POST /v1/runs/bulk`.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use helve_domain::error::{Error, Result};
use helve_domain::id::TenantId;
use helve_domain::run::Run;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::request::{Around, BulkItem, idempotency};
use super::view::RunView;
use crate::api::ApiState;
use crate::api::auth::Writer;
use crate::api::json::{self, JsonBody};
use crate::api::problem::{ApiError, Problem};
use crate::api::query::Query;
use crate::api::trace::{self, TraceHeader};
use crate::sched::{Created, NewRun};
use crate::share::Held;

/// Reads of runs that were created before, at once for one request.
const READS: usize = 4;
/// Items that are parsed or written before others have a turn.
const TURN: usize = 64;
/// What an item holds beside its bytes until it is decided.
const ITEM: usize = 1 << 10;

/// Runs to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRuns<'a> {
    /// 1 to 1,000 of them. Each has its own outcome: a wrong one does not harm the others.
    #[serde(borrow)]
    #[schema(value_type = Vec<BulkItem>, min_items = 1, max_items = 1000)]
    runs: Vec<&'a RawValue>,
}

/// What became of one item: a run, or a problem.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkOutcome)]
pub struct Outcome<'a> {
    /// 201 created, 200 created before under its key, or the problem's status.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    run: Option<RunView<'a>>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

/// What became of each item, in the order of the request.
#[derive(Debug, ToSchema)]
#[schema(as = BulkResult)]
#[expect(dead_code, reason = "it is written item by item, and stands here for the document")]
pub struct Outcomes<'a> {
    /// One for each item.
    results: Vec<Outcome<'a>>,
}

/// Create many runs
///
/// Each item has its own outcome and its own `idempotency_key`; the answer is 200 also when items failed.
#[utoipa::path(
    post,
    path = "/v1/runs/bulk",
    operation_id = "createRuns",
    tag = "runs",
    params(TraceHeader),
    request_body(content = CreateRuns, description = "The runs"),
    responses((status = 200, description = "An outcome for each item", body = Outcomes))
)]
pub async fn create_many(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let request: CreateRuns<'_> = json::parse(&body)?;
    let (count, max) = (request.runs.len(), state.limits.bulk_items);
    if !(1..=max).contains(&count) {
        return Err(Error::field("/runs", format!("expected 1 to {max} runs; got {count}")).into());
    }
    let held = state.shares.take(scope.tenant(), count * ITEM)?;
    let traceparent = trace::parent(&headers);
    let mut checked = Vec::with_capacity(count);
    for (i, item) in request.runs.iter().enumerate() {
        let_others(i).await;
        checked.push(check(&state, scope.tenant(), &body, &format!("/runs/{i}"), item, traceparent.as_deref()).await);
    }
    let outcomes = create_all(&state, scope.tenant(), checked, held).await?;
    let mut text = Vec::with_capacity(outcomes.len() * 512);
    text.extend_from_slice(br#"{"results":["#);
    for (i, made) in outcomes.iter().enumerate() {
        let_others(i).await;
        if i > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &outcome(made))
            .map_err(|e| Error::Internal(format!("an answer cannot be written: {e}")))?;
    }
    text.extend_from_slice(b"]}");
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// A thousand items must not keep a thread of the runtime to themselves.
async fn let_others(item: usize) {
    if item % TURN == TURN - 1 {
        tokio::task::yield_now().await;
    }
}

async fn check(
    state: &ApiState,
    tenant: TenantId,
    body: &Bytes,
    at: &str,
    item: &RawValue,
    traceparent: Option<&str>,
) -> Result<NewRun> {
    let (run, key) = json::parse_part::<BulkItem<'_>>(at, item.get())?.split();
    let key = key.map(|key| {
        let pointer = Some(format!("{at}/idempotency_key"));
        idempotency(&key, pointer, item.get().as_bytes(), &state.limits)
    });
    let around = Around {
        tenant,
        body,
        at,
        idempotency: key.transpose()?,
        traceparent: traceparent.map(str::to_owned),
        watch: false,
    };
    run.check(state, around).await
}

/// A run, and whether it was there before.
type Made = (Box<Run>, bool);

/// Creates what passed the checks, and keeps the order of the request.
async fn create_all(
    state: &ApiState,
    tenant: TenantId,
    checked: Vec<Result<NewRun>>,
    held: Held,
) -> Result<Vec<Result<Made>>> {
    let mut good = Vec::with_capacity(checked.len());
    let places: Vec<Option<Error>> = checked.into_iter().map(|item| item.map(|run| good.push(run)).err()).collect();
    let created = if good.is_empty() { Vec::new() } else { state.scheduler.create_many(good, Some(held)).await? };
    let mut created = created.into_iter();
    let missing = || Error::Internal("an item of a bulk has no outcome".to_owned());
    let outcomes = places.into_iter().map(|refused| match refused {
        Some(error) => Err(error),
        None => created.next().unwrap_or_else(|| Err(missing())),
    });
    let outcomes: Vec<Result<Created>> = outcomes.collect();
    let runs = stream::iter(outcomes).map(async |outcome| match outcome? {
        Created::New { run, .. } => Ok((run, false)),
        Created::Existing(id) => Ok((Box::new(super::read(state, tenant, id).await?), true)),
    });
    Ok(runs.buffered(READS).collect().await)
}

fn outcome(made: &Result<Made>) -> Outcome<'_> {
    match made {
        Ok((run, existed)) => {
            Outcome { status: if *existed { 200 } else { 201 }, run: Some(RunView::of(run, *existed)), problem: None }
        }
        Err(error) => {
            let problem = Problem::of(error);
            Outcome { status: problem.status(), run: None, problem: Some(problem) }
        }
    }
}
