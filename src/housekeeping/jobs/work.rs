//! Working off jobs, a piece at a time, in turns.

use std::time::Duration;

use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::{NodeId, RunId};
use helve_domain::job::JobStatus;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::act::Actor;
use super::{Parts, order, runs_of};
use crate::db;
use crate::db::Pool;
use crate::db::jobs::Job;
use crate::db::run_pick;
use crate::failpoint::{self, Point};

/// Runs of one piece.
const PIECE: usize = 64;
/// How long a job stays with an engine that says nothing more. A piece takes a fraction of it, unless the database
/// hangs; two engines on one job would do nothing twice either.
const LEASE: Duration = Duration::from_secs(10);
/// The wait after a piece of which something must be tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The wait after a piece is as long as the piece took, within these bounds: at most half of the time is the jobs'.
const REST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What a turn found.
enum Turn {
    /// No job that could go on now.
    Idle,
    /// A piece, which is decided.
    Done,
    /// A piece of which something must be tried again.
    Unfinished,
}

/// Works on the jobs of the shards that this process owns.
pub(super) struct Worker {
    pool: Pool,
    clock: Clock,
    node: NodeId,
    stopping: CancellationToken,
    actor: Actor,
}

impl Worker {
    pub fn new(parts: Parts) -> Self {
        Self {
            node: parts.scheduler.node(),
            stopping: parts.supervisor.stopping(),
            actor: Actor { pool: parts.pool.clone(), scheduler: parts.scheduler, definitions: parts.definitions },
            pool: parts.pool,
            clock: parts.clock,
        }
    }

    /// Works until no job is left that could go on now.
    pub async fn pass(&self) -> Result<()> {
        // When something was left that must be tried again: a lease may have to run out for it.
        let mut unfinished = None;
        loop {
            let shards = self.actor.scheduler.owned_shards();
            if shards.is_empty() || self.stopping.is_cancelled() {
                return Ok(());
            }
            let started = self.clock.instant();
            let rest = match self.turn(shards).await {
                Ok(Turn::Done) => started.elapsed().clamp(REST.0, REST.1),
                Ok(Turn::Unfinished) => {
                    unfinished = Some(started);
                    started.elapsed().clamp(REST.0, REST.1)
                }
                Ok(Turn::Idle) if unfinished.is_some_and(|at| at.elapsed() < LEASE + AGAIN) => AGAIN,
                Ok(Turn::Idle) => return Ok(()),
                Err(e @ (Error::Unavailable { .. } | Error::OutcomeUnknown)) => {
                    // The rows tell the next turn where it stands.
                    warn!(error = %e, "the jobs cannot go on now");
                    unfinished = Some(started);
                    AGAIN
                }
                Err(e) => return Err(e),
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.stopping.cancelled() => return Ok(()),
            }
        }
    }

    /// One piece of the job that has waited longest.
    async fn turn(&self, shards: Vec<i16>) -> Result<Turn> {
        let Some(job) = db::jobs::claim(&self.pool, self.node, shards, LEASE, self.clock.now()).await? else {
            return Ok(Turn::Idle);
        };
        let runs = self.piece(&job).await?;
        if runs.is_empty() {
            // Where another engine has picked meanwhile, it does not end, and comes again.
            db::jobs::finish(&self.pool, job.id, self.clock.now()).await?;
            db::jobs::settle(&self.pool, self.node, job.id, &[], Duration::ZERO).await?;
            debug!(job.id = %job.id, "a job has nothing left to do");
            return Ok(Turn::Done);
        }
        failpoint::hit(Point::JobPicked).await;
        let decided = self.actor.act(&job, &runs).await;
        failpoint::hit(Point::JobActed).await;
        let all = decided.len() == runs.len();
        let rest = if all { Duration::ZERO } else { AGAIN };
        db::jobs::settle(&self.pool, self.node, job.id, &decided, rest).await?;
        debug!(job.id = %job.id, picked = runs.len(), decided = decided.len(), "a piece of a job is done");
        Ok(if all { Turn::Done } else { Turn::Unfinished })
    }

    /// What a former owner may have left half done comes first.
    async fn piece(&self, job: &Job) -> Result<Vec<RunId>> {
        let pending = db::jobs::pending(&self.pool, job.id, PIECE).await?;
        if !pending.is_empty() || job.status == JobStatus::Cancelling {
            return Ok(pending);
        }
        let filter = runs_of(job.kind, &job.request, job.created_at);
        run_pick::pick(&self.pool, self.node, job, &filter, order(job.kind), PIECE).await
    }
}
