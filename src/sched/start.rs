//! Starting the scheduler: this engine becomes known, opens its lanes, and takes part in the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::NodeId;
use helve_domain::limits::Limits;
use helve_domain::secret::Secret;
use helve_postgres::Database;
use helve_supervisor::Supervisor;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{INTAKE, Request, Scheduler};
use crate::cluster::Directory;
use crate::cluster::Standing;
use crate::cluster::{self, Cluster, Order, Report};
use crate::config::{Retention, Scheduling};
use crate::db::lane::LaneName;
use crate::db::{Pool, partitions};
use crate::live::Live;
use crate::live::{Desk, LogWriter};
use crate::metrics::Metrics;
use crate::ops::definitions::Definitions;
use crate::sched::lanes::writer::{LaneWriter, WriterParts};
use crate::sched::owner::intake::fresh_secret;
use crate::sched::owner::reads::Reads;
use crate::sched::owner::{Owner, OwnerParts};
use crate::traces::Tracer;

/// What the scheduler is made of.
pub struct Parts {
    /// For connections of its own.
    pub database: Database,
    /// For maintenance.
    pub pool: Pool,
    /// Host and port at which other engines reach this one.
    pub address: String,
    /// How runs are given to workers.
    pub scheduling: Scheduling,
    /// What workers may say.
    pub limits: Arc<Limits>,
    /// How long things are kept.
    pub retention: Retention,
    /// No other engine can be alive: do not wait for leases.
    pub takeover: bool,
    /// Compiled workflows.
    pub definitions: Definitions,
    /// Time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Takes the spans of runs.
    pub tracer: Tracer,
    /// Which engine this is.
    pub node: NodeId,
    /// Owns the tasks.
    pub supervisor: Supervisor,
}

/// The ends of the channels between the scheduler's tasks.
struct Ends {
    requests: mpsc::Receiver<Request>,
    orders: mpsc::Receiver<Order>,
    reports: mpsc::Sender<Report>,
}

/// Starts the scheduler. Returns at once: [`Scheduler::is_ready`] tells when every shard has an owner.
///
/// # Errors
/// `Internal` when the system gives no random numbers.
pub fn start(parts: Parts) -> Result<Scheduler> {
    let (intake, requests) = mpsc::channel(INTAKE);
    let (orders, ordered) = mpsc::channel(cluster::ORDERS);
    let (reports, reported) = mpsc::channel(cluster::ORDERS);
    let (leaves, left) = mpsc::channel(1);
    let node = parts.node;
    let ready = Arc::new(AtomicBool::new(false));
    let (secret, _) =
        fresh_secret().map_err(|e| Error::Internal(format!("the system gives no random numbers: {e}")))?;
    let (directory, secret) = (Directory::default(), Arc::new(Secret::new(secret)));
    let standing = Standing::new(parts.clock.clone());
    let cluster = Cluster::new(cluster::Parts {
        database: parts.database.clone(),
        node,
        address: parts.address.clone(),
        secret: Arc::clone(&secret),
        ttl: parts.scheduling.lease,
        standing: standing.clone(),
        directory: directory.clone(),
        definitions: parts.definitions.clone(),
        ready: Arc::clone(&ready),
        orders,
        reports: reported,
        leaves: left,
        metrics: Arc::clone(&parts.metrics),
    });
    let clock = parts.clock.clone();
    let live = Live::new(clock.clone(), node, Desk::new());
    let scheduler = Scheduler {
        intake,
        transports: Arc::new(AtomicU64::new(1)),
        standing: standing.clone(),
        clock,
        node,
        ready: Arc::clone(&ready),
        directory,
        secret,
        leaves,
        live: live.clone(),
    };
    let supervisor = parts.supervisor.clone();
    let (pool, limits, clock) = (parts.pool.clone(), Arc::clone(&parts.limits), parts.clock.clone());
    let writer = LogWriter { live: live.clone(), pool, limits, clock };
    supervisor.spawn_vital("logs", writer.run(supervisor.stopping()));
    let ends = Ends { requests, orders: ordered, reports };
    let work = async move {
        serve(parts, node, standing, cluster, ends, &live).await;
        ready.store(false, Ordering::Release);
        live.close();
    };
    supervisor.spawn_apart("scheduler", work)?;
    Ok(scheduler)
}

async fn serve(parts: Parts, node: NodeId, standing: Standing, mut cluster: Cluster, ends: Ends, live: &Live) {
    let stopping = parts.supervisor.stopping();
    let name = format!("pid {}", std::process::id());
    if !cluster.register(&name, parts.takeover, &stopping).await {
        return;
    }
    // Released when the owner ends, so that a renewal never outlives it.
    let ending = CancellationToken::new();
    let work = async {
        let Ends { requests, orders, reports } = ends;
        if let Some((create, finish)) = open_lanes(&parts, node, &standing, &stopping).await {
            // The cluster hears of it before anything else that the owner says.
            let _ = reports.send(Report::Open).await;
            let owner = Owner::new(OwnerParts {
                clock: parts.clock.clone(),
                settings: parts.scheduling.clone(),
                create,
                finish,
                reader: Reads::new(parts.database.clone(), parts.definitions.clone(), parts.tracer.sampler()),
                standing: standing.clone(),
                orders,
                reports,
                live: live.clone(),
                metrics: Arc::clone(&parts.metrics),
                tracer: parts.tracer.clone(),
            });
            tokio::select! {
                () = owner.run(requests, stopping.clone()) => {}
                () = standing.fenced() => {}
            }
        }
        ending.cancel();
    };
    tokio::join!(work, cluster.run(&ending));
    cluster.resign().await;
}

/// Opens the lanes; tries again while the database is away. `None`: the process stops, or another one has taken over.
async fn open_lanes(
    parts: &Parts,
    node: NodeId,
    standing: &Standing,
    stopping: &CancellationToken,
) -> Option<(LaneWriter, LaneWriter)> {
    let alive = async {
        loop {
            // Whoever tries is as alive as a loop that turns.
            standing.tick();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let open = async {
        loop {
            match try_open(parts, node, standing).await {
                Ok(lanes) => return lanes,
                Err(e) => warn!(error = %e, "the scheduler cannot start yet"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        lanes = open => Some(lanes),
        () = alive => None,
        () = standing.fenced() => None,
        () = stopping.cancelled() => None,
    }
}

async fn try_open(parts: &Parts, node: NodeId, standing: &Standing) -> Result<(LaneWriter, LaneWriter)> {
    let (pool, now) = (parts.pool.clone(), parts.clock.now());
    parts.supervisor.shared(async move { partitions::make_ahead(&pool, now).await }).await?;
    let lane = |name| {
        let of = WriterParts {
            database: parts.database.clone(),
            pool: parts.pool.clone(),
            supervisor: parts.supervisor.clone(),
            node,
            clock: parts.clock.clone(),
            standing: standing.clone(),
            key_lifetime: parts.retention.idempotency,
            metrics: Arc::clone(&parts.metrics),
        };
        LaneWriter::new(name, of)
    };
    let (mut create, mut finish) = (lane(LaneName::Create), lane(LaneName::Finish));
    for writer in [&mut create, &mut finish] {
        if let Err(e) = writer.open().await {
            if e == crate::db::lane::LaneError::Fenced {
                standing.fence();
            }
            warn!(error = ?e, "a lane cannot be opened");
            return Err(Error::unavailable("a lane cannot be opened"));
        }
    }
    Ok((create, finish))
}
