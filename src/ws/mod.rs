//! The worker socket: upgrade, authentication, and one supervised session a socket.

mod elsewhere;
mod greet;
mod pace;
mod protocol;
mod session;
mod sockets;
#[cfg(test)]
mod tests;
mod upgrade;
mod voice;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use axum::routing::get;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info_span};

use crate::clock::Clock;
use crate::config::{Config, Http, Scheduling};
use crate::domain::definition::WorkflowDefinition;
use crate::domain::delivery::Close;
use crate::domain::limits::Limits;
use crate::domain::scope::{Scope, Scopes};
use crate::error::{Error, Result};
use crate::forward::Forwarder;
use crate::id::{TenantId, TokenId};
use crate::ops::auth::{Authenticator, TenantScope};
use crate::ops::definitions::Definitions;
use crate::sched::Scheduler;
use crate::share::Shares;
use crate::supervisor::Supervisor;

use sockets::Sockets;
use upgrade::Refusal;
use wire::{End, Wire};

/// The path of the worker socket.
pub const PATH: &str = "/v1/worker/connect";

/// How long the client may take to switch protocols after it was told that it may.
const SWITCH: Duration = Duration::from_secs(5);

/// What worker sockets need of the engine. Cheap to clone.
#[derive(Clone)]
pub struct WsState(Arc<Shared>);

struct Shared {
    forwarder: Forwarder,
    authenticator: Authenticator,
    supervisor: Supervisor,
    http: Http,
    sockets: Sockets,
    open: TaskTracker,
    /// Ends the sockets that lead to another engine: nobody there knows that this one stops.
    leaving: CancellationToken,
    sessions: Context,
}

/// Registers one workflow of a worker's hello: tenant, name, definition, and where it stands in the frame.
type Register =
    Box<dyn Fn(TenantId, String, WorkflowDefinition, String) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// What every session of the process shares.
struct Context {
    scheduler: Scheduler,
    register: Register,
    limits: Limits,
    shares: Shares,
    scheduling: Scheduling,
    /// How long a stopping engine waits for its workers to leave.
    drain: Duration,
    clock: Clock,
    stopping: CancellationToken,
}

/// The caller that opened a socket.
#[derive(Debug, Clone, Copy)]
struct Who {
    tenant: TenantId,
    token: TokenId,
    scopes: Scopes,
}

/// A caller, and word of the end of its token.
struct Guest {
    who: Who,
    /// Resolves when the token is no longer valid.
    revoked: BoxFuture<'static, ()>,
}

/// What the worker sockets are made of.
pub struct Parts<'a> {
    /// Opens sessions.
    pub scheduler: Scheduler,
    /// Opens sockets at the engines that own other shards.
    pub forwarder: Forwarder,
    /// Who is asking.
    pub authenticator: Authenticator,
    /// Takes the workflows that workers bring.
    pub definitions: Definitions,
    /// What each tenant's frames hold.
    pub shares: Shares,
    /// The settings.
    pub config: &'a Config,
    /// Owns the sockets' tasks.
    pub supervisor: &'a Supervisor,
}

impl WsState {
    /// Composes the parts.
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { scheduler, forwarder, authenticator, definitions, shares, config, supervisor } = parts;
        let register: Register = Box::new(move |tenant, name, definition, at| {
            let definitions = definitions.clone();
            Box::pin(async move { definitions.register(tenant, &at, &name, definition).await.map(drop) })
        });
        let sessions = Context {
            clock: scheduler.clock().clone(),
            scheduler,
            register,
            limits: config.limits.clone(),
            shares,
            scheduling: config.scheduling.clone(),
            drain: config.http.drain,
            stopping: supervisor.stopping(),
        };
        Self(Arc::new(Shared {
            forwarder,
            authenticator,
            supervisor: supervisor.clone(),
            http: config.http.clone(),
            sockets: Sockets::default(),
            open: TaskTracker::new(),
            leaving: CancellationToken::new(),
            sessions,
        }))
    }

    /// Resolves when no socket is open any more. After the scheduler's drain every socket ends within its time; those
    /// that lead to another engine end now.
    pub async fn all_closed(&self) {
        self.0.leaving.cancel();
        self.0.open.close();
        self.0.open.wait().await;
    }
}

/// The routes of the worker socket.
pub fn routes(state: WsState) -> Router {
    Router::new().route(PATH, get(connect)).with_state(state)
}

async fn connect(State(WsState(shared)): State<WsState>, mut request: Request) -> Response {
    let sender = shared.forwarder.sender(request.headers_mut());
    match admit(&shared, request.headers()).await {
        Ok((scope, response)) if shared.forwarder.is_here(scope.tenant()) => {
            start(shared, &scope, request);
            response
        }
        Ok((scope, response)) => elsewhere::connect(shared, scope, response, sender, request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Who may open a socket, and the answer that opens it.
async fn admit(shared: &Shared, headers: &HeaderMap) -> Result<(TenantScope, Response), Refusal> {
    let token = bearer(headers.get(AUTHORIZATION))?;
    let scope = shared.authenticator.authenticate(token).await?;
    scope.require(Scope::Worker)?;
    upgrade::check_origin(headers, &shared.http.origins)?;
    let response = upgrade::accept(headers)?;
    if shared.sessions.stopping.is_cancelled() {
        return Err(Error::unavailable("the engine is stopping").into());
    }
    Ok((scope, response))
}

fn bearer(header: Option<&HeaderValue>) -> Result<&str> {
    let header = header.and_then(|value| value.to_str().ok());
    let header = header.ok_or(Error::Unauthenticated("`Authorization: Bearer helve_..` is required"))?;
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Error::Unauthenticated("`Authorization` must be `Bearer` and a token")),
    }
}

/// Starts the session that waits for the switch of protocols. The framework's own upgrade is not used: it spawns
/// where no supervisor sees it, and it hides the stream, which must be drained when a frame is too large.
fn start(shared: Arc<Shared>, scope: &TenantScope, request: Request) {
    let who = Who { tenant: scope.tenant(), token: scope.token(), scopes: scope.scopes() };
    let revoked = Box::pin(shared.authenticator.revoked(who.token, scope.expires_at()));
    let place = shared.sockets.enter(who.tenant, shared.http.sockets_per_tenant);
    let span = info_span!("session", tenant = %who.tenant, token = %who.token);
    let (supervisor, open) = (shared.supervisor.clone(), shared.open.clone());
    let task = async move {
        let stream = match tokio::time::timeout(SWITCH, hyper::upgrade::on(request)).await {
            Ok(Ok(upgraded)) => TokioIo::new(upgraded),
            Ok(Err(err)) => return debug!(error = %err, "the upgrade failed"),
            Err(_) => return debug!("the upgrade took too long"),
        };
        let ctx = &shared.sessions;
        match place {
            Some(_place) => session::serve(ctx, stream, Guest { who, revoked }).await,
            None => Wire::new(stream, &ctx.limits, ctx.clock.clone()).await.finish(End::Close(Close::TooMany)).await,
        }
    };
    supervisor.spawn("socket", open.track_future(task.instrument(span)));
}
