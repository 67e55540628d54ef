//! Pauses: of workflows, actions and workers; what is paused now.

pub mod action;
pub mod list;
mod view;
pub mod worker;
pub mod workflow;

use std::sync::Arc;

use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

pub use view::{PauseView, ResumedView};

use helve_domain::duration::Span;
use helve_domain::error::{Error, Result};
use helve_domain::pause::{Pause, Paused, RATES, REASON_BYTES, Target};

use super::ApiState;
use super::json;
use super::problem::ApiError;
use crate::db;
use crate::ops::auth::TenantScope;
use crate::sched::{PauseChange, PauseOrder};

/// Why, and for how long.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// For people: shown wherever somebody asks why a run waits.
    #[schema(min_length = 1, max_length = 1024)]
    reason: String,
    /// The pause ends by itself after this time; never if absent.
    #[serde(default)]
    expires_in: Option<Span>,
}

/// How fast the backlog goes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// Starts per second until the backlog is gone; at once if absent. In any second at most this many and a tenth
    /// more, at least one more.
    #[serde(default)]
    #[schema(minimum = 0.001, maximum = 10000)]
    rate: Option<f64>,
}

/// Pauses what exists; checked by the caller.
async fn pause(state: &ApiState, scope: &TenantScope, target: Target, body: &[u8]) -> Result<Response, ApiError> {
    let PauseRequest { reason, expires_in } = json::parse(body)?;
    let wrong = |c: char| c.is_control() && c != '\n' && c != '\t';
    if reason.trim().is_empty() || reason.len() > REASON_BYTES || reason.contains(wrong) {
        let message = format!(
            "expected 1 to {REASON_BYTES} bytes of text without control characters; got {} bytes",
            reason.len()
        );
        return Err(Error::field("/reason", message).into());
    }
    if expires_in.is_some_and(|span| span.0.is_zero()) {
        return Err(Error::field("/expires_in", "expected a duration of at least 1ms").into());
    }
    let since = state.clock.now();
    let by = scope.token();
    let pause = Pause {
        reason: reason.into(),
        by,
        by_name: db::pauses::token_name(&state.reads.of(scope.tenant()), scope.tenant(), by).await?.into(),
        since,
        expires_at: expires_in.map(|span| since.plus(span.0)),
        resumed: None,
    };
    let order = PauseOrder { tenant: scope.tenant(), target, change: PauseChange::Pause(pause) };
    let paused = state.scheduler.pause(order).await?;
    let paused = paused.ok_or_else(|| Error::Internal("a pause without its answer".to_owned()))?;
    tracing::info!(target.kind = paused.target.kind(), target.name = paused.target.name(), token.id = %by, "paused");
    Ok(json::answer(200, &PauseView::of(&paused)))
}

/// Resumes. What is not paused stays as it is.
async fn resume(state: &ApiState, scope: &TenantScope, target: Target, body: &[u8]) -> Result<Response, ApiError> {
    let ResumeRequest { rate } = json::parse(body)?;
    if rate.is_some_and(|rate| !RATES.contains(&rate)) {
        let message = format!("expected {} to {} starts per second", RATES.start(), RATES.end());
        return Err(Error::field("/rate", message).into());
    }
    let actions: Vec<Arc<str>> = match (&target, rate) {
        (Target::Workflow(name), Some(_)) => {
            db::pauses::actions(&state.reads.of(scope.tenant()), scope.tenant(), name).await?
        }
        _ => Vec::new(),
    };
    let (kind, name) = (target.kind(), target.name());
    let change = PauseChange::Resume { rate, actions };
    let left = state.scheduler.pause(PauseOrder { tenant: scope.tenant(), target, change }).await?;
    tracing::info!(target.kind = kind, target.name = name, token.id = %scope.token(), "resumed");
    Ok(json::answer(200, &ResumedView::of(kind, &name, left.as_ref())))
}

/// The pause of a workflow as the rows have it, for those who show the workflow.
pub async fn of_workflows(state: &ApiState, scope: &TenantScope) -> Result<Vec<Paused>> {
    let all = db::pauses::list(&state.reads.of(scope.tenant()), scope.tenant(), state.clock.now()).await?;
    Ok(all.into_iter().filter(|paused| matches!(paused.target, Target::Workflow(_))).collect())
}
