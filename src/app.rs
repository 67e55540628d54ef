//! Composition: builds every part of an engine once, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::server::{Patience, Server};
use crate::api::{ApiState, Readiness};
use crate::clock::Clock;
use crate::config::Config;
use crate::db::{Pool, migrate};
use crate::error::{Error, Result};
use crate::ops::auth::Authenticator;
use crate::ops::definitions::Definitions;
use crate::sched::{self, Scheduler};
use crate::supervisor::Supervisor;
use crate::ws::{self, WsState};

/// Connections that may wait in the kernel to be accepted.
const BACKLOG: u32 = 1_024;
/// What the parts have to end, after the drain.
const LAST: Duration = Duration::from_secs(5);

/// A running engine.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    supervisor: Supervisor,
    scheduler: Scheduler,
    sockets: WsState,
    /// The entry accepts no more.
    closing: CancellationToken,
    drain: Duration,
}

impl App {
    /// Starts an engine. It listens when this returns; `/readyz` says when it owns its shards.
    ///
    /// # Errors
    /// `Internal` with a text for the operator: the schema is not up to date, or the address is taken;
    /// `Unavailable` when the database does not answer.
    pub async fn start(config: Config, clock: Clock) -> Result<Self> {
        let pool = Pool::new(&config.database)?;
        let pending = migrate::pending(&pool).await?;
        if !pending.is_empty() {
            let names = pending.join(", ");
            return Err(Error::Internal(format!("the database lacks {names}: run `helve migrate`")));
        }
        let listener = listen(config.http.listen)?;
        let address = listener.local_addr().map_err(|e| Error::Internal(format!("no address: {e}")))?;
        let supervisor = Supervisor::default();
        let closing = CancellationToken::new();
        let (router, scheduler, sockets) = routes(&config, pool, clock, &supervisor, &closing);
        let (connections, patience) = (config.http.connections, Patience::default());
        let server = Server { listener, router, connections, patience, closing: closing.clone() };
        server.start(&supervisor);
        Ok(Self { address, supervisor, scheduler, sockets, closing, drain: config.http.drain })
    }

    /// Resolves when something without which the engine is useless has died: it should be stopped.
    pub async fn failed(&self) {
        self.supervisor.failed().await;
    }

    /// Stops in order: no new requests, workers told to leave and given time to finish, the last batch written.
    pub async fn stop(self) {
        self.closing.cancel();
        self.scheduler.drain(self.drain).await;
        // Each socket ends by itself when the drain is over; the farewells may take a little longer.
        if tokio::time::timeout(self.drain + LAST, self.sockets.all_closed()).await.is_err() {
            warn!("some worker sockets did not end in time");
        }
        self.scheduler.quiesce(LAST).await;
        if !self.supervisor.shut_down(self.drain + LAST).await {
            warn!("some tasks did not end in time and are cut off");
        }
        info!("stopped");
    }
}

/// Everything that the engine answers.
fn routes(
    config: &Config,
    pool: Pool,
    clock: Clock,
    supervisor: &Supervisor,
    closing: &CancellationToken,
) -> (axum::Router, Scheduler, WsState) {
    let limits = Arc::new(config.limits.clone());
    let definitions = Definitions::new(pool.clone(), clock.clone(), Arc::clone(&limits), supervisor.clone());
    let authenticator = Authenticator::start(pool.clone(), clock.clone(), supervisor);
    let scheduler = sched::start(sched::Parts {
        database: config.database.clone(),
        pool: pool.clone(),
        scheduling: config.scheduling.clone(),
        retention: config.retention.clone(),
        takeover: config.takeover,
        definitions: definitions.clone(),
        clock: clock.clone(),
        supervisor: supervisor.clone(),
    });
    let ready = scheduler.clone();
    let sockets =
        WsState::new(scheduler.clone(), authenticator.clone(), definitions.clone(), config, supervisor);
    let api = ApiState {
        scheduler: scheduler.clone(),
        definitions,
        authenticator,
        pool,
        limits,
        clock,
        readiness: Readiness::new(move || ready.is_ready()),
        stopping: closing.clone(),
    };
    (crate::api::router(api).merge(ws::routes(sockets.clone())), scheduler, sockets)
}

fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        // A restart must not wait for the connections of before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    });
    bound.map_err(|e| Error::Internal(format!("cannot listen on {address}: {e}")))
}
