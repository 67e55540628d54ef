//! The worker socket: upgrade, authentication, and one supervised session a socket.

mod elsewhere;
#[doc(hidden)]
pub mod frames;
mod greet;
mod guest;
mod refusals;
mod session;
#[cfg(test)]
mod tests;
mod upgrade;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use futures_util::future::BoxFuture;
use helve_domain::clock::Clock;
use helve_domain::definition::WorkflowDefinition;
use helve_domain::delivery::Close;
use helve_domain::error::{Error, Result};
use helve_domain::id::TenantId;
use helve_domain::limits::Limits;
use helve_supervisor::Supervisor;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::field::Empty;
use tracing::{Instrument, debug, info_span};

use crate::config::{Config, Http, Scheduling};
use crate::forward::{Forwarder, Sender};
use crate::ops::auth::Authenticator;
use crate::ops::definitions::Definitions;
use crate::ops::tickets::Tickets;
use crate::sched::Scheduler;
use crate::share::{Account, Shares};
use guest::{Admitted, Caller, Guest};
use refusals::Refusals;
use upgrade::Refusal;
use wire::{End, Wire};

/// The path of the worker socket.
pub const PATH: &str = "/v1/worker/connect";

/// How long the client may take to switch protocols after it was told that it may.
const SWITCH: Duration = Duration::from_secs(5);

/// Sockets at once of which nobody knows whose they are: their first frame must bring a ticket.
const STRANGERS: usize = 256;

/// What worker sockets need of the engine. Cheap to clone.
#[derive(Clone)]
pub struct WsState(Arc<Shared>);

struct Shared {
    forwarder: Forwarder,
    authenticator: Authenticator,
    tickets: Tickets,
    strangers: Arc<Semaphore>,
    supervisor: Supervisor,
    http: Http,
    /// The open sockets of each tenant.
    sockets: Account,
    open: TaskTracker,
    /// Ends the sockets that lead to another engine: nobody there knows that this one stops.
    leaving: CancellationToken,
    sessions: Context,
}

/// Registers one workflow of a worker's hello: tenant, name, definition, and where it stands in the frame.
type Register =
    Box<dyn Fn(TenantId, String, WorkflowDefinition, String) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Which of these actions no workflow of the tenant has.
type WithoutWorkflow = Box<dyn Fn(TenantId, Vec<Arc<str>>) -> BoxFuture<'static, Result<Vec<Arc<str>>>> + Send + Sync>;

/// What every session of the process shares.
struct Context {
    scheduler: Scheduler,
    register: Register,
    without_workflow: WithoutWorkflow,
    limits: Limits,
    shares: Shares,
    scheduling: Scheduling,
    /// How long a stopping engine waits for its workers to leave.
    drain: Duration,
    clock: Clock,
    stopping: CancellationToken,
    refusals: Refusals,
}

/// What the worker sockets are made of.
pub struct Parts<'a> {
    /// Opens sessions.
    pub scheduler: Scheduler,
    /// Opens sockets at the engines that own other shards.
    pub forwarder: Forwarder,
    /// Who is asking.
    pub authenticator: Authenticator,
    /// Lets pages in.
    pub tickets: Tickets,
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
        let Parts { scheduler, forwarder, authenticator, tickets, definitions, shares, config, supervisor } = parts;
        let known = definitions.clone();
        let without_workflow: WithoutWorkflow = Box::new(move |tenant, actions| {
            let known = known.clone();
            Box::pin(async move { known.without_workflow(tenant, &actions).await })
        });
        let register: Register = Box::new(move |tenant, name, definition, at| {
            let definitions = definitions.clone();
            Box::pin(async move { definitions.register(tenant, &at, &name, definition).await.map(drop) })
        });
        let sessions = Context {
            clock: scheduler.clock().clone(),
            scheduler,
            register,
            without_workflow,
            limits: config.limits.clone(),
            shares,
            scheduling: config.scheduling.clone(),
            drain: config.http.drain,
            stopping: supervisor.stopping(),
            refusals: Refusals::default(),
        };
        Self(Arc::new(Shared {
            forwarder,
            authenticator,
            tickets,
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            supervisor: supervisor.clone(),
            http: config.http.clone(),
            sockets: Account::default(),
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
    match admit(&shared, sender, request.headers()).await {
        Ok((admitted, accepted)) if admitted.tenant().is_none_or(|tenant| shared.forwarder.is_here(tenant)) => {
            open(shared, admitted, accepted, request).await
        }
        Ok((admitted, accepted)) => elsewhere::connect(shared, admitted, accepted, sender, request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Opens the socket here: only now a ticket is used.
async fn open(shared: Arc<Shared>, admitted: Admitted, accepted: Response, request: Request) -> Response {
    match guest::caller(&shared, admitted, request.headers()).await {
        Ok(caller) => {
            start(shared, caller, request);
            accepted
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Who may open a socket, and the answer that opens it.
async fn admit(shared: &Shared, sender: Sender, headers: &HeaderMap) -> Result<(Admitted, Response), Refusal> {
    let admitted = guest::admit(shared, sender, headers).await?;
    let response = upgrade::accept(headers)?;
    if shared.sessions.stopping.is_cancelled() {
        return Err(Error::unavailable("the engine is stopping").into());
    }
    Ok((admitted, response))
}

/// Starts the session that waits for the switch of protocols. The framework's own upgrade is not used: it spawns
/// where no supervisor sees it, and it hides the stream, which must be drained when a frame is too large.
fn start(shared: Arc<Shared>, caller: Caller, request: Request) {
    let span = match &caller {
        Caller::Guest(Guest { who, .. }) => info_span!("session", tenant = %who.tenant, token = %who.token),
        Caller::Stranger(_) => info_span!("session", tenant = Empty, token = Empty),
    };
    let (supervisor, open) = (shared.supervisor.clone(), shared.open.clone());
    let task = async move {
        let stream = match tokio::time::timeout(SWITCH, hyper::upgrade::on(request)).await {
            Ok(Ok(upgraded)) => TokioIo::new(upgraded),
            Ok(Err(err)) => return debug!(error = %err, "the upgrade failed"),
            Err(_) => return debug!("the upgrade took too long"),
        };
        let ctx = &shared.sessions;
        match caller {
            Caller::Guest(Guest { place: None, .. }) => {
                let wire = Wire::new(stream, &ctx.limits, ctx.scheduler.standing().clone()).await;
                wire.finish(End::Close(Close::TooMany)).await;
            }
            caller => session::serve(ctx, stream, caller).await,
        }
    };
    supervisor.spawn("socket", open.track_future(task.instrument(span)));
}
