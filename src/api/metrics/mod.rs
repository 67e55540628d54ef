//! `GET /metrics` for Prometheus, and the load of a tenant's actions for autoscalers.

mod loads;
mod page;
pub mod queues;
mod requests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use helve_domain::error::Error;
use helve_domain::scope::Scope;
use tokio::sync::Mutex;

use super::ApiState;
use super::auth::bearer;
use super::problem::ApiError;
use crate::config::MetricsAccess;
use crate::db::Pool;
use crate::metrics::Metrics;
use crate::metrics::text::MEDIA_TYPE;

pub use requests::Requests;

/// How long a page counts: asked a thousand times a second, the engine still counts once.
const FRESH: Duration = Duration::from_secs(1);
/// Actions that have a label of their own; further ones share `other`.
const NAMES: usize = 100;

/// What the engine shows of itself. Clones share it.
#[derive(Clone)]
pub struct Observed(Arc<Shared>);

struct Shared {
    metrics: Arc<Metrics>,
    access: MetricsAccess,
    /// The engine's own.
    pool: Pool,
    requests: Requests,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    page: Option<(Instant, Bytes)>,
    names: Names,
}

/// The actions that have a label of their own. Who has one keeps it, so that no series changes its meaning.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn label<'a>(&mut self, action: &'a str) -> &'a str {
        if self.0.contains(action) {
            return action;
        }
        if self.0.len() >= NAMES {
            return "other";
        }
        self.0.insert(action.to_owned());
        action
    }
}

impl Observed {
    /// Shows `metrics` to whom `access` allows it.
    pub fn new(metrics: Arc<Metrics>, access: MetricsAccess, pool: Pool) -> Self {
        let requests = Requests::of(&super::openapi());
        Self(Arc::new(Shared { metrics, access, pool, requests, last: Mutex::default() }))
    }

    /// Counts of the requests.
    pub fn requests(&self) -> &Requests {
        &self.0.requests
    }
}

/// Get figures of this engine
///
/// In the text format of Prometheus. Who may ask is the setting `HELVE_HTTP_METRICS`: with `token`, the default, it
/// takes a token with the scope `admin`. The figures are of this engine and sum up over its tenants.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "metrics",
    security(()),
    responses(
        (status = 200, description = "The figures", body = String, content_type = "text/plain"),
        (status = 403, description = "The token lacks the scope `admin`"),
        (status = 404, description = "Switched off"),
    )
)]
pub async fn metrics(State(state): State<ApiState>, request: Request) -> Result<Response, ApiError> {
    let shared = Arc::clone(&state.observed.0);
    match shared.access {
        MetricsAccess::Open => {}
        MetricsAccess::Token => {
            let scope = state.authenticator.authenticate(bearer(request.headers())?).await?;
            scope.require(Scope::Admin)?;
        }
        MetricsAccess::Off => return Err(Error::not_found("route", "/metrics").into()),
    }
    let mut last = shared.last.lock().await;
    let now = state.clock.instant();
    let fresh = last.page.as_ref().filter(|(at, _)| now.duration_since(*at) < FRESH).map(|(_, page)| page.clone());
    let page = match fresh {
        Some(page) => page,
        None => {
            let page = Bytes::from(page::write(&state, &shared, &mut last.names).await);
            last.page = Some((state.clock.instant(), page.clone()));
            page
        }
    };
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], page).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_kept() {
        let mut names = Names::default();
        for n in 0..500 {
            let action = format!("a{n}");
            let expected = if n < NAMES { action.as_str() } else { "other" };
            assert_eq!(names.label(&action), expected);
        }
        assert_eq!((names.label("a3"), names.label("a300"), names.0.len()), ("a3", "other", NAMES));
    }
}
