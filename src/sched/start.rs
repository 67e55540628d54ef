//! Starting the scheduler: the lease, the lanes, what a former owner left, then the owner's loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Database, Retention, Scheduling, Secret};
use crate::db::lane::LaneName;
use crate::db::{Pool, partitions};
use crate::error::{Error, Result};
use crate::id::{NodeId, SHARDS};
use crate::ops::definitions::Definitions;
use crate::supervisor::{Schedule, Supervisor};

use super::directory::{Directory, Place};
use super::intake::fresh_secret;
use super::lane::LaneWriter;
use super::lease::{Lease, Standing};
use super::owner::{Owner, OwnerParts};
use super::reads::Reads;
use super::{INTAKE, Request, Scheduler};

/// How often old partitions are dropped and new ones made.
const MAINTAIN: Duration = Duration::from_secs(3_600);

/// What the scheduler is made of.
pub struct Parts {
    /// For connections of its own.
    pub database: Database,
    /// For maintenance.
    pub pool: Pool,
    /// How runs are given to workers.
    pub scheduling: Scheduling,
    /// How long things are kept.
    pub retention: Retention,
    /// No other engine can be alive: do not wait for leases.
    pub takeover: bool,
    /// Compiled workflows.
    pub definitions: Definitions,
    /// Time.
    pub clock: Clock,
    /// Owns the tasks.
    pub supervisor: Supervisor,
}

/// Starts the scheduler. Returns at once: [`Scheduler::is_ready`] tells when this process owns its shards,
/// which it waits for while another engine does.
///
/// # Errors
/// `Internal` when the system gives no random numbers.
pub fn start(parts: Parts) -> Result<Scheduler> {
    let (intake, requests) = mpsc::channel(INTAKE);
    let node = NodeId::generate(parts.clock.now());
    let ready = Arc::new(AtomicBool::new(false));
    let (secret, _) =
        fresh_secret().map_err(|e| Error::Internal(format!("the system gives no random numbers: {e}")))?;
    let (directory, secret) = (Directory::default(), Arc::new(Secret::new(secret)));
    let scheduler = Scheduler {
        intake,
        clock: parts.clock.clone(),
        node,
        ready: Arc::clone(&ready),
        directory: directory.clone(),
        secret,
    };
    let supervisor = parts.supervisor.clone();
    supervisor.clone().spawn_vital("scheduler", async move {
        serve(parts, node, requests, &ready, &directory).await;
        ready.store(false, Ordering::Release);
    });
    Ok(scheduler)
}

async fn serve(
    parts: Parts,
    node: NodeId,
    requests: mpsc::Receiver<Request>,
    ready: &AtomicBool,
    directory: &Directory,
) {
    let stopping = parts.supervisor.stopping();
    let standing = Standing::new(parts.clock.clone());
    let mut lease = Lease::new(parts.database.clone(), node, parts.scheduling.lease, standing.clone());
    let name = format!("pid {}", std::process::id());
    if !lease.acquire(&name, parts.takeover, &stopping).await {
        return;
    }
    // Released when the owner ends, so that a renewal never outlives it.
    let renewing = CancellationToken::new();
    let work = async {
        if let Some(owner) = build(&parts, node, &standing, &stopping).await {
            maintain(&parts);
            ready.store(true, Ordering::Release);
            directory.set((0..SHARDS).map(|_| Place::Here).collect());
            info!(node = %node, "the engine owns its shards");
            tokio::select! {
                () = owner.run(requests, stopping.clone()) => {}
                () = standing.fenced() => {}
            }
        }
        renewing.cancel();
    };
    tokio::join!(work, lease.keep(&renewing));
    ready.store(false, Ordering::Release);
    lease.resign().await;
}

/// Opens the lanes and rebuilds the state; tries again while the database is away. `None`: the process
/// stops, or another one has taken over.
async fn build(parts: &Parts, node: NodeId, standing: &Standing, stopping: &CancellationToken) -> Option<Owner> {
    loop {
        let fenced = standing.fenced();
        tokio::select! {
            built = try_build(parts, node, standing) => match built {
                Ok(owner) => return Some(owner),
                Err(e) => warn!(error = %e, "the scheduler cannot start yet"),
            },
            () = fenced => return None,
            () = stopping.cancelled() => return None,
        }
        standing.tick();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn try_build(parts: &Parts, node: NodeId, standing: &Standing) -> Result<Owner> {
    partitions::make_ahead(&parts.pool, parts.clock.now()).await?;
    let lane = |name| {
        let (database, clock) = (parts.database.clone(), parts.clock.clone());
        LaneWriter::new(name, database, node, clock, standing.clone(), parts.retention.idempotency)
    };
    let (mut create, mut finish) = (lane(LaneName::Create), lane(LaneName::Finish));
    for writer in [&mut create, &mut finish] {
        if let Err(e) = writer.open().await {
            if e == crate::db::lane::LaneError::Fenced {
                standing.fence();
            }
            warn!(error = ?e, "a lane cannot be opened");
            return Err(crate::error::Error::unavailable("a lane cannot be opened"));
        }
    }
    let mut reader = Reads::new(parts.database.clone(), parts.definitions.clone());
    let left = reader.left_behind().await?;
    let (clock, settings, standing) = (parts.clock.clone(), parts.scheduling.clone(), standing.clone());
    let mut owner = Owner::new(OwnerParts { clock, settings, create, finish, reader, standing });
    owner.recover(left);
    Ok(owner)
}

fn maintain(parts: &Parts) {
    let (pool, clock, keep) = (parts.pool.clone(), parts.clock.clone(), parts.retention.history);
    let schedule = Schedule { name: "partitions", period: MAINTAIN, wake: Arc::new(Notify::new()) };
    parts.supervisor.every(schedule, move || {
        let (pool, clock) = (pool.clone(), clock.clone());
        async move {
            partitions::make_ahead(&pool, clock.now()).await?;
            partitions::drop_old(&pool, clock.now(), keep).await
        }
    });
}
