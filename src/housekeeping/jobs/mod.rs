//! Work on runs that exist: replaying one, and bulk jobs that cancel or replay what a filter finds.

mod act;
pub mod replay;
mod work;

use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::{Clock, Timestamp};
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::{JobId, TenantId};
use helve_domain::job::{JobKind, JobRequest, JobStatus};
use helve_domain::status::RunStatus;
use helve_supervisor::Schedule;
use tokio::sync::Notify;

use super::Parts;
use crate::db;
use crate::db::TenantPools;
use crate::db::jobs::{Inserted, Job, Key, NewJob};
use crate::db::run_pick::{self, Order};
use crate::db::runs::RunFilter;
use work::Worker;

/// Open jobs of one tenant; one more is refused.
pub const MAX_OPEN: i64 = 20;
/// How often an engine looks for jobs that another one has taken in. Of its own, and of shards that it gains, it learns
/// at once.
const LOOK: Duration = Duration::from_secs(30);
/// How often old jobs are deleted.
const EXPIRE: Duration = Duration::from_secs(3_600);

/// Takes in bulk jobs. Clones share one worker.
#[derive(Clone)]
pub struct Jobs {
    asked: TenantPools,
    clock: Clock,
    wake: Arc<Notify>,
    /// How long keys are kept.
    key_lifetime: Duration,
}

/// What became of a request for a job.
#[derive(Debug)]
pub enum Accepted {
    /// It is stored, and will be worked off.
    New(Job),
    /// Its key was used before with the same body.
    Existing(Job),
}

/// Starts the work on jobs: those of the shards that this process owns.
pub fn start(parts: Parts) -> Jobs {
    let wake = Arc::new(Notify::new());
    let jobs = Jobs {
        asked: parts.asked.clone(),
        clock: parts.clock.clone(),
        wake: Arc::clone(&wake),
        key_lifetime: parts.retention.idempotency,
    };
    let (pool, clock, keep) = (parts.pool.clone(), parts.clock.clone(), parts.retention.jobs);
    let supervisor = parts.supervisor.clone();
    let (directory, gained, stopping) = (parts.scheduler.directory().clone(), Arc::clone(&wake), supervisor.stopping());
    supervisor.spawn("jobs.shards", async move {
        let mut known = Vec::new();
        loop {
            tokio::select! {
                here = directory.gained(&known) => known = here,
                () = stopping.cancelled() => return,
            }
            gained.notify_one();
        }
    });
    let worker = Arc::new(Worker::new(parts));
    supervisor.every(Schedule { name: "jobs", period: LOOK, wake }, move || {
        let worker = Arc::clone(&worker);
        async move { worker.pass().await }
    });
    let expire = Schedule::of("jobs.expire", EXPIRE);
    let stopping = supervisor.stopping();
    supervisor.every(expire, move || {
        let (pool, before, stopping) = (pool.clone(), clock.now().minus(keep), stopping.clone());
        async move {
            while !stopping.is_cancelled() && db::jobs::expire(&pool, before).await? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
    });
    jobs
}

/// Which runs a job finds: what was there when it was created, in the states that it is for.
pub(crate) fn runs_of(kind: JobKind, request: &JobRequest, created_at: Timestamp) -> RunFilter {
    let filter = &request.filter;
    let fits = |status: RunStatus| status.is_final() == (kind == JobKind::Replay);
    let wanted = |status: &RunStatus| filter.status.is_empty() || filter.status.contains(status);
    let before = filter.created_before.map_or(created_at, |before| before.min(created_at));
    RunFilter {
        statuses: RunStatus::ALL.into_iter().filter(|s| fits(*s) && wanted(s)).collect(),
        workflow: filter.workflow.clone(),
        created_after: filter.created_after,
        created_before: Some(before),
        finished_before: Some(created_at),
        metadata: filter.metadata.clone().into_iter().collect(),
        event: filter.event,
        replay_of: filter.replay_of,
        after: None,
    }
}

const fn order(kind: JobKind) -> Order {
    match kind {
        JobKind::Cancel => Order::NewestFirst,
        JobKind::Replay => Order::OldestFirst,
    }
}

impl Jobs {
    /// How many runs such a job would find now.
    ///
    /// # Errors
    /// `Unavailable`, also when the filter finds them too slowly.
    pub async fn preview(&self, tenant: TenantId, kind: JobKind, request: &JobRequest) -> Result<i64> {
        run_pick::count(&self.asked.of(tenant), tenant, &runs_of(kind, request, self.clock.now())).await
    }

    /// Stores a job: it is worked off from now on, whatever becomes of this process.
    ///
    /// # Errors
    /// `IdempotencyConflict`, `Limited` when too many are open, `Unavailable`, `OutcomeUnknown`.
    pub async fn create(
        &self,
        tenant: TenantId,
        kind: JobKind,
        request: JobRequest,
        key: Option<(String, [u8; 32])>,
    ) -> Result<Accepted> {
        let now = self.clock.now();
        let total = run_pick::count(&self.asked.of(tenant), tenant, &runs_of(kind, &request, now)).await?;
        let expires_at = now.plus(self.key_lifetime);
        let key = key.map(|(key, body_hash)| Key { key, body_hash, expires_at });
        let new = NewJob { id: JobId::generate(now), tenant, kind, request, total, created_at: now, key };
        match db::jobs::insert(&self.asked.of(tenant), &new, MAX_OPEN).await? {
            Inserted::New => {
                self.wake.notify_one();
                Ok(Accepted::New(self.get(tenant, new.id).await?))
            }
            Inserted::Existing(id, true) => Ok(Accepted::Existing(self.get(tenant, id).await?)),
            Inserted::Existing(id, false) => Err(Error::Conflict {
                code: Code::IdempotencyConflict,
                message: "this idempotency key was used with another body".to_owned(),
                existing: Some(id.to_string()),
            }),
            Inserted::TooMany => Err(Error::Limited {
                message: format!("a tenant has at most {MAX_OPEN} open jobs; wait for one, or cancel one"),
                retry_after: Duration::from_secs(5),
            }),
        }
    }

    /// One job of the tenant.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    pub async fn get(&self, tenant: TenantId, id: JobId) -> Result<Job> {
        db::jobs::get(&self.asked.of(tenant), tenant, id).await?.ok_or_else(|| Error::not_found("job", id))
    }

    /// Ends a job early: what it has done stays, and nothing more is begun.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyFinished`; `Unavailable`; `OutcomeUnknown`. Safe to repeat.
    pub async fn cancel(&self, tenant: TenantId, id: JobId) -> Result<Job> {
        if let Some(job) = db::jobs::cancel(&self.asked.of(tenant), tenant, id, self.clock.now()).await? {
            self.wake.notify_one();
            return Ok(job);
        }
        let job = self.get(tenant, id).await?;
        if job.status == JobStatus::Finished {
            return Err(Error::Conflict {
                code: Code::AlreadyFinished,
                message: "the job has finished already".to_owned(),
                existing: Some(id.to_string()),
            });
        }
        Ok(job)
    }
}
