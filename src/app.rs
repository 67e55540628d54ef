//! Composition: builds every part of an engine once, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::NodeId;
use helve_domain::limits::Limits;
use helve_supervisor::Supervisor;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::server::{Connections, Patience, Server};
use crate::api::{self, ApiState, Observed, Readiness};
use crate::config::Config;
use crate::db::{Pool, TenantPools, home, migrate};
use crate::forward::{self, Forwarder};
use crate::housekeeping;
use crate::metrics::Metrics;
use crate::ops::auth::Authenticator;
use crate::ops::definitions::{self, Definitions};
use crate::ops::retention::Retention;
use crate::ops::tickets::Tickets;
use crate::sched::{self, Scheduler};
use crate::share::Shares;
use crate::traces::{self, Tracer};
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
        let base = Base::new(config, clock)?;
        check_schema(&base.pool).await?;
        let (listener, address) = listen(base.config.http.listen)?;
        let scheduler = base.start_scheduler(address)?;
        let http = &base.config.http;
        let places = Arc::new(Semaphore::new(http.places));
        let entry = forward::Entry {
            wait: base.limits.wait,
            closing: base.closing.clone(),
            drain: http.drain,
            places: Arc::clone(&places),
        };
        let parts = forward::Parts::of(&scheduler, entry);
        let forwarder = Forwarder::new(parts, &base.supervisor);
        let tickets = Tickets::new(
            base.pool.clone(),
            base.reads.clone(),
            base.clock.clone(),
            Arc::clone(&base.limits),
            &http.origins,
        );
        let sockets = WsState::new(ws::Parts {
            scheduler: scheduler.clone(),
            forwarder: forwarder.clone(),
            authenticator: base.authenticator.clone(),
            tickets: tickets.clone(),
            definitions: base.definitions.clone(),
            shares: base.shares.clone(),
            config: &base.config,
            supervisor: &base.supervisor,
        });
        let router = api::router(base.api(&scheduler, forwarder, tickets)).merge(ws::routes(sockets.clone()));
        let server = Server {
            listener,
            router,
            connections: http.connections,
            places,
            patience: Patience::default(),
            closing: base.closing.clone(),
        };
        let connections = server.start(&base.supervisor);
        let drain = http.drain;
        let Base { supervisor, shares, closing, .. } = base;
        Ok(Self { address, supervisor, scheduler, connections, sockets, shares, closing, drain })
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

/// What the parts stand on.
struct Base {
    config: Config,
    /// For the engine itself, and for what tenants ask.
    pool: Pool,
    reads: TenantPools,
    clock: Clock,
    limits: Arc<Limits>,
    supervisor: Supervisor,
    closing: CancellationToken,
    definitions: Definitions,
    authenticator: Authenticator,
    metrics: Arc<Metrics>,
    node: NodeId,
    tracer: Tracer,
    shares: Shares,
}

impl Base {
    fn new(config: Config, clock: Clock) -> Result<Self> {
        let pool = Pool::new(&config.database)?;
        let supervisor = Supervisor::default();
        let limits = Arc::new(config.limits.clone());
        let reads = TenantPools::new(&pool, &supervisor);
        let definitions = Definitions::start(definitions::Parts {
            pool: pool.clone(),
            reads: reads.clone(),
            clock: clock.clone(),
            limits: Arc::clone(&limits),
            supervisor: supervisor.clone(),
        })?;
        let authenticator = Authenticator::start(pool.clone(), clock.clone(), &supervisor);
        let (metrics, node) = (Arc::new(Metrics::default()), NodeId::generate(clock.now()));
        let tracer = Tracer::start(traces::Parts {
            settings: &config.traces,
            node,
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            supervisor: &supervisor,
        })?;
        Ok(Self {
            pool,
            reads,
            clock,
            supervisor,
            closing: CancellationToken::new(),
            definitions,
            authenticator,
            metrics,
            node,
            tracer,
            shares: Shares::new(limits.tenant_bytes),
            limits,
            config,
        })
    }

    fn start_scheduler(&self, address: SocketAddr) -> Result<Scheduler> {
        let config = &self.config;
        sched::start(sched::Parts {
            database: config.database.clone(),
            pool: self.pool.clone(),
            address: config.http.advertise.clone().unwrap_or_else(|| address.to_string()),
            scheduling: config.scheduling.clone(),
            retention: config.retention.clone(),
            limits: Arc::clone(&self.limits),
            takeover: config.takeover,
            definitions: self.definitions.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
            tracer: self.tracer.clone(),
            node: self.node,
            supervisor: self.supervisor.clone(),
        })
    }

    /// What the handlers use; starts what goes on in the background.
    fn api(&self, scheduler: &Scheduler, forwarder: Forwarder, tickets: Tickets) -> ApiState {
        let config = &self.config;
        let (owner, metrics, clock) = (scheduler.clone(), Arc::clone(&self.metrics), self.clock.clone());
        let jobs = housekeeping::start(housekeeping::Parts {
            pool: self.pool.clone(),
            asked: self.reads.clone(),
            scheduler: scheduler.clone(),
            definitions: self.definitions.clone(),
            retention: config.retention.clone(),
            metrics: Arc::clone(&self.metrics),
            clock: self.clock.clone(),
            supervisor: self.supervisor.clone(),
        });
        ApiState::from(api::Parts {
            scheduler: scheduler.clone(),
            forwarder,
            definitions: self.definitions.clone(),
            retention: Retention::new(self.reads.clone(), config.retention.history),
            jobs,
            authenticator: self.authenticator.clone(),
            tickets,
            reads: self.reads.clone(),
            limits: Arc::clone(&self.limits),
            shares: self.shares.clone(),
            clock: self.clock.clone(),
            readiness: Readiness::new(self.pool.clone(), move || takes_work(&owner, &metrics, &clock)),
            origins: config.http.origins.clone(),
            streams: config.http.streams_per_tenant,
            observed: Observed::new(Arc::clone(&self.metrics), config.http.metrics, self.pool.clone()),
            tracer: self.tracer.clone(),
            stopping: self.closing.clone(),
        })
    }
}

fn takes_work(scheduler: &Scheduler, metrics: &Metrics, clock: &Clock) -> Result<()> {
    if !scheduler.is_ready() {
        return Err(Error::unavailable("the scheduler is not ready"));
    }
    if metrics.is_stalled(clock.now()) {
        return Err(Error::unavailable("nothing has been committed for 5 s although something waits for it"));
    }
    Ok(())
}

async fn check_schema(pool: &Pool) -> Result<()> {
    home::check(pool).await?;
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
