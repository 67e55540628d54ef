//! Composition: builds every part of an engine once, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::server::{Connections, Patience, Server};
use crate::api::{self, ApiState, Observed, Readiness};
use crate::clock::Clock;
use crate::config::Config;
use crate::db::{Pool, migrate};
use crate::error::{Error, Result};
use crate::forward::{self, Forwarder};
use crate::jobs;
use crate::metrics::Metrics;
use crate::ops::auth::Authenticator;
use crate::ops::definitions::Definitions;
use crate::ops::retention::{self, Retention};
use crate::ops::tickets::Tickets;
use crate::sched::{self, Scheduler};
use crate::share::Shares;
use crate::supervisor::Supervisor;
use crate::ws::{self, WsState};

/// Connections that may wait in the kernel to be accepted.
const BACKLOG: u32 = 1_024;
/// What the last commits may take when everybody has left.
const COMMIT: Duration = Duration::from_secs(5);
/// What the tasks have to end when there is nothing left to do.
const END: Duration = Duration::from_secs(5);

/// A running engine.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    supervisor: Supervisor,
    scheduler: Scheduler,
    connections: Connections,
    sockets: WsState,
    shares: Shares,
    /// The entry takes no more.
    closing: CancellationToken,
    drain: Duration,
}

impl App {
    /// Starts an engine. It listens when this returns; `/readyz` says when it takes part: every shard has an owner
    /// that it knows, itself or another engine.
    ///
    /// # Errors
    /// `Internal` with a text for the operator: the schema is not up to date, or the address is taken;
    /// `Unavailable` when the database does not answer.
    pub async fn start(config: Config, clock: Clock) -> Result<Self> {
        let pool = Pool::new(&config.database)?;
        check_schema(&pool).await?;
        let (listener, address) = listen(config.http.listen)?;
        let (supervisor, closing) = (Supervisor::default(), CancellationToken::new());
        let limits = Arc::new(config.limits.clone());
        let definitions = Definitions::new(pool.clone(), clock.clone(), Arc::clone(&limits), supervisor.clone());
        let authenticator = Authenticator::start(pool.clone(), clock.clone(), &supervisor);
        let metrics = Arc::new(Metrics::default());
        let scheduler = sched::start(sched::Parts {
            database: config.database.clone(),
            pool: pool.clone(),
            address: config.http.advertise.clone().unwrap_or_else(|| address.to_string()),
            scheduling: config.scheduling.clone(),
            retention: config.retention.clone(),
            limits: Arc::clone(&limits),
            takeover: config.takeover,
            definitions: definitions.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            supervisor: supervisor.clone(),
        })?;
        let owner = scheduler.clone();
        let readiness = Readiness::new(move || owner.is_ready());
        let tickets = Tickets::new(pool.clone(), clock.clone(), Arc::clone(&limits), &config.http.origins);
        let jobs = jobs::start(jobs::Parts {
            pool: pool.clone(),
            scheduler: scheduler.clone(),
            definitions: definitions.clone(),
            key_lifetime: config.retention.idempotency,
            keep: config.retention.jobs,
            clock: clock.clone(),
            supervisor: supervisor.clone(),
        });
        let owner = scheduler.clone();
        retention::start(pool.clone(), clock.clone(), &supervisor, move || owner.owned_shards());
        let parts = forward::Parts::of(&scheduler, limits.wait, closing.clone(), config.http.drain);
        let forwarder = Forwarder::new(parts, &supervisor);
        let shares = Shares::new(limits.tenant_bytes);
        let sockets = WsState::new(ws::Parts {
            scheduler: scheduler.clone(),
            forwarder: forwarder.clone(),
            authenticator: authenticator.clone(),
            tickets: tickets.clone(),
            definitions: definitions.clone(),
            shares: shares.clone(),
            config: &config,
            supervisor: &supervisor,
        });
        let state = ApiState {
            scheduler: scheduler.clone(),
            forwarder,
            definitions,
            retention: Retention::new(pool.clone(), config.retention.history),
            jobs,
            authenticator,
            tickets,
            pool,
            limits,
            shares: shares.clone(),
            clock,
            readiness,
            streams: config.http.streams_per_tenant,
            observed: Observed::new(metrics, config.http.metrics),
            stopping: closing.clone(),
        };
        let server = Server {
            listener,
            router: api::router(state).merge(ws::routes(sockets.clone())),
            connections: config.http.connections,
            patience: Patience::default(),
            closing: closing.clone(),
        };
        let connections = server.start(&supervisor);
        Ok(Self { address, supervisor, scheduler, connections, sockets, shares, closing, drain: config.http.drain })
    }

    /// Whether it takes work: every shard has an owner that it knows.
    pub fn is_ready(&self) -> bool {
        self.scheduler.is_ready()
    }

    /// Bytes of memory that tenants' requests hold now, and how many tenants hold any.
    pub fn held(&self) -> (usize, usize) {
        self.shares.total()
    }

    /// Resolves when something without which the engine is useless has died: it should be stopped.
    pub async fn failed(&self) {
        self.supervisor.failed().await;
    }

    /// Its scheduler, with the directory of engines.
    pub const fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Stops in order: nothing new comes in, workers go elsewhere, open requests are answered, what was
    /// decided is committed, and only then the parts end.
    pub async fn stop(self) {
        self.closing.cancel();
        if self.scheduler.is_ready() {
            // With other engines there, work and workers go over to them; alone, workers are told to come back.
            if !self.scheduler.leave(self.drain).await {
                self.scheduler.drain(self.drain).await;
            }
            let left = async { tokio::join!(self.connections.all_closed(), self.sockets.all_closed()) };
            if tokio::time::timeout(self.drain, left).await.is_err() {
                info!("some requests or workers did not leave in time and are cut off");
            }
            self.scheduler.quiesce(COMMIT).await;
        }
        if !self.supervisor.shut_down(END).await {
            warn!("some tasks did not end in time and are cut off");
        }
        info!("stopped");
    }
}

async fn check_schema(pool: &Pool) -> Result<()> {
    let pending = migrate::pending(pool).await?;
    if pending.is_empty() {
        return Ok(());
    }
    let names = pending.join(", ");
    Err(Error::Internal(format!("the database lacks {names}: run `helve migrate`")))
}

fn listen(address: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        // A restart must not wait for the connections of before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    });
    bound.map_err(|e| {
        let hint = if e.kind() == std::io::ErrorKind::AddrInUse { ": choose another port" } else { "" };
        Error::Internal(format!("cannot listen on {address}: {e}{hint}"))
    })
}
