//! The REST interface: every route once, for the router and for the OpenAPI document.

mod auth;
mod cors;
mod document;
mod events;
mod forward;
mod health;
mod jobs;
mod json;
mod media;
mod metadata;
mod metrics;
mod page;
mod path;
mod pauses;
mod problem;
mod query;
mod request;
mod runs;
pub mod server;
mod stream;
mod tickets;
mod time;
mod trace;
mod workers;
mod workflows;

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use helve_domain::clock::Clock;
use helve_domain::error::{Code, Error};
use helve_domain::limits::Limits;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::db::TenantPools;
use crate::forward::Forwarder;
use crate::housekeeping::jobs::Jobs;
use crate::ops::auth::Authenticator;
use crate::ops::definitions::Definitions;
use crate::ops::retention::Retention;
use crate::ops::tickets::Tickets;
use crate::sched::Scheduler;
use crate::share::Shares;
use crate::traces::Tracer;

pub use document::text as openapi_text;
pub use health::Readiness;
pub use metrics::Observed;

/// What the handlers work with. Every layer clones it for every request: a clone is one count, not one for each part.
#[derive(Clone)]
pub struct ApiState(Arc<Parts>);

/// What [`ApiState`] is made of.
pub struct Parts {
    /// Takes triggers, events and cancels.
    pub scheduler: Scheduler,
    /// Passes on what another engine owns.
    pub forwarder: Forwarder,
    /// The workflows.
    pub definitions: Definitions,
    /// How long runs are kept.
    pub retention: Retention,
    /// Bulk work on runs.
    pub jobs: Jobs,
    /// Who is asking.
    pub authenticator: Authenticator,
    /// Lets pages open worker sockets.
    pub tickets: Tickets,
    /// What tenants ask the database, each in its turns.
    pub reads: TenantPools,
    /// What clients may send.
    pub limits: Arc<Limits>,
    /// What each tenant's requests hold.
    pub shares: Shares,
    /// The engine's clock.
    pub clock: Clock,
    /// Whether the engine can take work.
    pub readiness: Readiness,
    /// Origins whose pages may ask.
    pub origins: Vec<String>,
    /// Event streams that one tenant may read at once.
    pub streams: usize,
    /// What the engine shows of itself.
    pub observed: Observed,
    /// Takes the spans of requests.
    pub tracer: Tracer,
    /// Cancelled when the engine stops: who waits for a run is answered at once.
    pub stopping: CancellationToken,
}

impl From<Parts> for ApiState {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for ApiState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Routes that need a token.
fn tenant_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(workflows::list))
        .routes(routes!(workflows::put, workflows::get, workflows::delete))
        .routes(routes!(workflows::versions))
        .routes(routes!(pauses::list::list))
        .routes(routes!(pauses::workflow::pause))
        .routes(routes!(pauses::workflow::resume))
        .routes(routes!(pauses::action::pause))
        .routes(routes!(pauses::action::resume))
        .routes(routes!(pauses::worker::pause))
        .routes(routes!(pauses::worker::resume))
        .routes(routes!(runs::create::create, runs::list::list))
        .routes(routes!(runs::bulk::create_many))
        .routes(routes!(runs::get::get))
        .routes(routes!(runs::why::why))
        .routes(routes!(runs::cancel::cancel))
        .routes(routes!(runs::replay::replay))
        .routes(routes!(runs::unpark::unpark))
        .routes(routes!(runs::logs::list))
        .routes(routes!(stream::run::watch))
        .routes(routes!(stream::tenant::watch))
        .routes(routes!(events::push, events::list))
        .routes(routes!(events::bulk::push_many))
        .routes(routes!(events::replay::many))
        .routes(routes!(events::get))
        .routes(routes!(events::replay::one))
        .routes(routes!(workers::list))
        .routes(routes!(metrics::queues::list))
        .routes(routes!(tickets::create))
        .routes(routes!(jobs::create::create, jobs::list::list))
        .routes(routes!(jobs::get::get))
        .routes(routes!(jobs::items::list))
        .routes(routes!(jobs::cancel::cancel))
}

/// Routes that are open to everybody.
fn open_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(document::Document::openapi())
        .routes(routes!(health::root))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(document::openapi))
}

/// Answers everything that REST has.
pub fn router(state: ApiState) -> axum::Router {
    let owned = tenant_routes().route_layer(from_fn_with_state(state.clone(), forward::to_owner));
    let tenant = owned.route_layer(from_fn_with_state(state.clone(), auth::authenticate));
    let (router, _) = open_routes().merge(tenant).split_for_parts();
    let router = router.fallback(no_route).method_not_allowed_fallback(no_method);
    // Within the layer below: an answer that a page may not read is counted and logged as any other.
    let router = match cors::layer(&state.origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(from_fn_with_state(state.clone(), request::observe)).with_state(state)
}

/// The document of everything that REST has.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, document) = open_routes().merge(tenant_routes()).split_for_parts();
    document::complete(document)
}

async fn no_route(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(255).collect();
    problem::ApiError(Error::not_found("route", path)).into_response()
}

async fn no_method(request: Request) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let methods = document::methods(route);
    let message = match methods.split_last() {
        None => format!("this route has no method {}; the header Allow names those it has", request.method()),
        Some((only, [])) => format!("this route has no method {}: it has {only}", request.method()),
        Some((last, others)) => {
            format!("this route has no method {}: it has {} and {last}", request.method(), others.join(", "))
        }
    };
    problem::ApiError(Error::invalid(Code::MethodNotAllowed, None, message)).into_response()
}
