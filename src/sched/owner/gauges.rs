//! What the owner says to those who watch, and what it counts while it works.

use std::time::Duration;

use helve_core::{Seen, Survey};
use helve_domain::error::Result;
use helve_domain::id::TenantId;
use helve_domain::status::RunStatus;
use tokio::sync::oneshot;

use super::Owner;
use super::intake::shard_of;
use crate::sched::{Request, Scheduler, Stats};

/// How long an observer waits for the owner: it has more important things to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// What an observer asks.
pub(crate) enum Question {
    /// The process.
    Load(oneshot::Sender<Load>),
    /// One shard with all its tenants; nothing when it is not owned here.
    Shard(usize, oneshot::Sender<Option<Survey>>),
    /// One tenant.
    Tenant(TenantId, oneshot::Sender<Survey>),
}

/// The process in figures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Counters since the start.
    pub stats: Stats,
    /// Worker sockets.
    pub sockets: usize,
    /// Transitions that wait for the lane of new runs.
    pub waiting_creates: usize,
    /// Transitions that wait for the other lane.
    pub waiting_finishes: usize,
    /// New runs that are not committed.
    pub creating: usize,
}

impl Owner {
    /// Answers an observer. One that has gone needs no answer.
    pub fn measure(&mut self, question: Question) {
        match question {
            Question::Load(reply) => {
                let ([waiting_creates, waiting_finishes], creating) = self.waiting();
                let (stats, sockets) = (self.stats(), self.sockets.len());
                let _ = reply.send(Load { stats, sockets, waiting_creates, waiting_finishes, creating });
            }
            Question::Shard(shard, reply) => {
                let _ = reply.send(self.shards.get(shard).map(|owned| owned.state.survey(None)));
            }
            Question::Tenant(tenant, reply) => {
                let owned = self.shards.get(shard_of(tenant));
                let _ = reply.send(owned.map(|owned| owned.state.survey(Some(tenant))).unwrap_or_default());
            }
        }
    }

    /// Counts what has become certain.
    pub fn seen(&self, seen: Seen) {
        match seen {
            Seen::Started { ready, optimistic } => {
                let took = self.clock.now().since(ready);
                let way = if optimistic { &self.metrics.start_optimistic } else { &self.metrics.start_queued };
                way.observe(took);
            }
            Seen::Ended { status, ran } => {
                match status {
                    RunStatus::Succeeded => self.metrics.succeeded.inc(),
                    RunStatus::Cancelled => self.metrics.cancelled.inc(),
                    _ => self.metrics.failed.inc(),
                }
                if let Some(ran) = ran {
                    self.metrics.run.observe(ran);
                }
            }
        }
    }
}

impl Scheduler {
    /// The process in figures; `None` when the owner is not there or has no time.
    pub async fn load(&self) -> Option<Load> {
        let (reply, answer) = oneshot::channel();
        self.observe(Question::Load(reply), answer).await
    }

    /// One shard in figures; `None` when it is not owned here, or the owner has no time.
    pub async fn survey(&self, shard: i16) -> Option<Survey> {
        let (reply, answer) = oneshot::channel();
        self.observe(Question::Shard(usize::try_from(shard).ok()?, reply), answer).await?
    }

    async fn observe<T>(&self, question: Question, answer: oneshot::Receiver<T>) -> Option<T> {
        self.intake.send_timeout(Request::Measure(question), PATIENCE).await.ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// The load of a tenant's actions.
    ///
    /// # Errors
    /// As any question to the owner.
    pub async fn action_loads(&self, tenant: TenantId) -> Result<Survey> {
        let (reply, answer) = oneshot::channel();
        self.look(Request::Measure(Question::Tenant(tenant, reply)), answer).await
    }
}
