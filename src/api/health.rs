//! Whether the process runs, and whether it can take work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use helve_domain::error::{Error, Result};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::ApiState;
use super::json;
use super::problem::ApiError;
use crate::db::{self, Pool};

/// How long an answer of the database counts. These routes are open to everybody: asked a thousand times a second
/// they still ask the database once.
const FRESH: Duration = Duration::from_secs(1);

/// What the load balancer wants to know.
#[derive(Clone)]
pub struct Readiness(Arc<Shared>);

struct Shared {
    /// Whether the scheduler takes work, and if not, why.
    scheduler: Box<dyn Fn() -> Result<()> + Send + Sync>,
    /// The engine's own: however much tenants ask, the database answers.
    pool: Pool,
    last: Mutex<Option<(Instant, bool)>>,
}

impl Readiness {
    /// Ready when `scheduler` says so and the database answers.
    pub fn new(pool: Pool, scheduler: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { scheduler: Box::new(scheduler), pool, last: Mutex::new(None) }))
    }

    async fn check(&self, state: &ApiState) -> Result<()> {
        if state.stopping.is_cancelled() {
            return Err(Error::unavailable("the engine stops"));
        }
        (self.0.scheduler)()?;
        let mut last = self.0.last.lock().await;
        let now = state.clock.instant();
        let known = last.filter(|(at, _)| now.duration_since(*at) < FRESH).map(|(_, answers)| answers);
        let answers = match known {
            Some(answers) => answers,
            None => {
                let answers = db::health::ping(&self.0.pool).await.is_ok();
                *last = Some((state.clock.instant(), answers));
                answers
            }
        };
        if answers { Ok(()) } else { Err(Error::unavailable("the database does not answer")) }
    }
}

/// The engine's state.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    status: &'static str,
}

/// Say what this is
///
/// One line for whoever looks at the address with a browser.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "getRoot",
    tag = "health",
    security(()),
    responses((status = 200, description = "One line", body = String, content_type = "text/plain"))
)]
pub async fn root() -> &'static str {
    concat!(
        "Helve ",
        env!("CARGO_PKG_VERSION"),
        ": /openapi.json describes the interface, /readyz says whether it takes work, docs/guide of the source explains it\n"
    )
}

/// Check that the process runs
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealth",
    tag = "health",
    security(()),
    responses((status = 200, description = "The process runs", body = Health))
)]
pub async fn health() -> Response {
    json::answer(200, &Health { status: "ok" })
}

/// Check that the engine can take work
///
/// Every shard has an owner, what waits for a commit is committed within 5 s, and the database answers.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not ready: send work elsewhere"),
    )
)]
pub async fn ready(State(state): State<ApiState>) -> Result<Response, ApiError> {
    state.readiness.check(&state).await?;
    Ok(json::answer(200, &Health { status: "ok" }))
}
