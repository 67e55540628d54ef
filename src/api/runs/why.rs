//! `GET /v1/runs/{id}/why`.

use axum::extract::State;
use axum::response::Response;
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use helve_domain::id::{RunId, TenantId, WorkerId};
use helve_domain::run::{Run, RunError};
use helve_domain::why::{Cause, Ended, Estimate, Holder, Place, Wait, Why, losses_text};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::json;
use crate::api::path::Id;
use crate::api::pauses::PauseView;
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::api::runs::view::LossView;
use crate::sched::WhyQuery;

/// Reads of the row before it is given up: it moves on faster than it is read.
const LOOKS: u32 = 5;

/// A worker that could run it, that cannot for now, or that has it.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhyWorker {
    /// Its id.
    id: WorkerId,
    /// Its name; empty when it is gone.
    name: String,
    /// `open`, `away` (its socket is gone), `draining`, `congested` (it does not read), `paused`, or
    /// `other_labels` (it lacks labels that the run requires).
    state: &'static str,
    /// What it lacks of the labels that the run requires, such as `gpu=a100`; absent where it lacks none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    lacks: Vec<String>,
    /// Slots of the kind that the run needs.
    slots: u32,
    /// Of them taken.
    used: u32,
    /// Runs that hold slots of this kind, at most 5 of them.
    runs: Vec<RunId>,
    /// How many runs there are.
    runs_count: usize,
    /// When its socket was lost; absent while it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, format = DateTime)]
    lost_at: Option<Timestamp>,
    /// When its work goes to others, if it stays away until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, format = DateTime)]
    given_up_at: Option<Timestamp>,
}

/// Slots that a run needs.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhySlots {
    /// The kind.
    kind: String,
    /// How many.
    cost: u32,
}

/// What belongs to the reason; the other fields are absent.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct WhyDetails<'a> {
    /// The action that it needs: for `no_worker`, `no_slot`, `behind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    /// The slots that it needs: for `no_slot`, `behind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<WhySlots>,
    /// Runs before it in its queue: for `no_slot`, `behind`, `resuming`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead: Option<usize>,
    /// False: at least that many are before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<bool>,
    /// Workers that offer the action, at most 10 of them: for `no_worker`, `no_slot`, `behind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<Vec<WhyWorker>>,
    /// How many workers there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers_count: Option<usize>,
    /// No worker has that many slots, even without any work: for `no_slot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    never: Option<bool>,
    /// The pause, or the gentle start after it: for `paused`, `resuming`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<PauseView>,
    /// When it starts, is tried again or has ended: for `scheduled`, `retry`, `final`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
    /// Its last error: for `retry`, `parked`, `final`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RunError>,
    /// Who has it: for `running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<WhyWorker>,
    /// Since when: for `running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// Whether the worker has confirmed that it arrived: for `running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<bool>,
    /// The end of its time: for `running`, once it arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    timeout_at: Option<Timestamp>,
    /// How the run lost its workers: for any reason, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_loss: Option<LossView<'a>>,
}

/// When it may start.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhyEstimate {
    /// From now, in milliseconds.
    starts_in_ms: u64,
    /// The same as a time.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    /// How it was computed.
    basis: String,
}

/// Why a run stands where it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Why)]
pub struct WhyView<'a> {
    /// The run.
    run: RunId,
    /// Its status.
    status: &'static str,
    /// For a machine: `scheduled`, `retry`, `paused`, `resuming`, `no_worker`, `no_slot`, `behind`, `loading`,
    /// `writing`, `running`, `parked` or `final`.
    reason: &'static str,
    /// For a person: one sentence.
    text: String,
    /// What belongs to the reason.
    details: WhyDetails<'a>,
    /// When it may start; null where nobody can honestly tell.
    #[schema(required)]
    estimate: Option<WhyEstimate>,
}

impl WhyWorker {
    fn of(holder: Holder) -> Self {
        Self {
            id: holder.worker,
            name: holder.name.to_string(),
            state: holder.state.as_str(),
            lacks: holder.lacks,
            slots: holder.slots,
            used: holder.used,
            runs: holder.runs,
            runs_count: holder.held,
            lost_at: holder.away.map(|away| away.since),
            given_up_at: holder.away.map(|away| away.until),
        }
    }
}

impl WhyDetails<'_> {
    fn of(cause: Cause, error: Option<RunError>) -> Self {
        let none = Self::default();
        match cause {
            Cause::Scheduled { at } => Self { at: Some(at), ..none },
            Cause::Retry { at, .. } => Self { at: Some(at), error, ..none },
            Cause::Paused(paused) => Self { pause: Some(PauseView::of(&paused)), ..none },
            Cause::Resuming { paused, place } => Self { pause: Some(PauseView::of(&paused)), ..none }.at_place(place),
            Cause::NoWorker { action, workers, count } => {
                Self { action: Some(action.to_string()), ..none }.with_workers(workers, count)
            }
            Cause::NoSlot { wait, never } => Self { never: Some(never), ..none }.waiting(*wait),
            Cause::Behind { wait } => none.waiting(*wait),
            Cause::Loading | Cause::Writing => none,
            Cause::Running { worker, since, received, timeout_at } => Self {
                worker: Some(WhyWorker::of(worker)),
                started_at: Some(since),
                received: Some(received),
                timeout_at,
                ..none
            },
            Cause::Parked => Self { error, ..none },
            Cause::Final(ended) => Self { at: ended.at, error, ..none },
        }
    }

    fn at_place(self, place: Place) -> Self {
        Self { ahead: Some(place.ahead), exact: Some(place.exact), ..self }
    }

    fn with_workers(self, workers: Vec<Holder>, count: usize) -> Self {
        let workers = workers.into_iter().map(WhyWorker::of).collect();
        Self { workers: Some(workers), workers_count: Some(count), ..self }
    }

    fn waiting(self, wait: Wait) -> Self {
        let slots = WhySlots { kind: wait.kind.to_string(), cost: wait.cost };
        let waiting = Self { action: Some(wait.action.to_string()), slots: Some(slots), ..self };
        waiting.at_place(wait.place).with_workers(wait.workers, wait.count)
    }
}

impl WhyEstimate {
    fn of(estimate: Estimate, now: Timestamp) -> Self {
        let starts_in_ms = u64::try_from(estimate.starts_in.as_millis()).unwrap_or(u64::MAX);
        Self { starts_in_ms, starts_at: now.plus(estimate.starts_in), basis: estimate.basis }
    }
}

/// Ask why a run stands where it stands
///
/// One sentence for a person, and the same for a machine: what it waits for, who holds what it needs, who paused it, or
/// who works on it. An answer is a look at one moment.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/why",
    operation_id = "explainRun",
    tag = "runs",
    params(("id" = RunId, Path, description = "The run's id")),
    responses(
        (status = 200, description = "Why", body = WhyView),
        (status = 404, description = "No such run"),
    )
)]
pub async fn why(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Id(id): Id<RunId>,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    let (run, why) = look(&state, scope.tenant(), id).await?;
    let losses = super::losses(&state, &run).await?;
    let error = run.error.as_ref().map(|e| e.message.as_str());
    let text = why.text(error) + &losses.as_ref().map(losses_text).unwrap_or_default();
    let view = WhyView {
        run: id,
        status: why.status.as_str(),
        reason: why.cause.reason(),
        text,
        estimate: why.estimate.map(|estimate| WhyEstimate::of(estimate, state.clock.now())),
        details: WhyDetails { last_loss: losses.as_ref().map(LossView::of), ..WhyDetails::of(why.cause, run.error) },
    };
    Ok(json::answer(200, &view))
}

/// The row says what the owner's memory need not know: whose the run is, and how it ended.
async fn look(state: &ApiState, tenant: TenantId, id: RunId) -> Result<(Run, Why)> {
    for _ in 0..LOOKS {
        let run = super::read(state, tenant, id).await?;
        if run.status.is_final() {
            let ended = Ended {
                at: run.finished_at,
                attempt: run.attempt,
                worker: run.worker,
                retries: run.retries,
                error: run.error.clone(),
            };
            let why = Why { status: run.status, cause: Cause::Final(Box::new(ended)), estimate: None };
            return Ok((run, why));
        }
        let spec = state.definitions.version(tenant, &run.workflow, run.version).await?;
        let (status, due, attempt) = (run.status, run.due, run.attempt);
        let asked = WhyQuery { tenant, run: id, spec, status, due, attempt };
        if let Some(why) = state.scheduler.why(asked).await? {
            return Ok((run, why));
        }
    }
    Err(Error::unavailable("the run changes faster than it can be looked at"))
}
