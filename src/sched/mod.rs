//! The scheduler's handle: what the entries call. Everything behind it is one owner of state.

mod lanes;
pub mod owner;
mod pausing;
mod request;
mod start;
mod stats;

pub use helve_core::{PauseChange, PauseOrder, WhyQuery, WorkerState};
pub use lanes::writer::LATEST_COMMIT;
pub(crate) use request::Request;
pub use start::{Parts, start};
pub use stats::Stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use helve_domain::clock::{Clock, Timestamp};
use helve_domain::definition::Spec;
use helve_domain::delivery::{Incoming, Resume, WorkerInfo};
use helve_domain::error::{Error, Result};
use helve_domain::id::{EventId, NodeId, RunId, SessionId, TenantId, TokenId};
use helve_domain::json::Payload;
use helve_domain::run::{Priority, Run};
use helve_domain::secret::Secret;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};

use crate::cluster::{Directory, Leave, Standing};
use crate::live::Live;
use crate::share::Held;

/// How long a caller waits for a commit before it is told that the outcome is unknown.
const ANSWER: Duration = Duration::from_secs(10);
/// Requests that may wait for the owner.
const INTAKE: usize = 8_192;

/// Calls the owner of the scheduler's state. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    intake: mpsc::Sender<Request>,
    /// Names sockets, from 1 on.
    transports: Arc<AtomicU64>,
    standing: Standing,
    clock: Clock,
    node: NodeId,
    /// Set once every shard had an owner that this process knows.
    ready: Arc<AtomicBool>,
    directory: Directory,
    secret: Arc<Secret>,
    leaves: mpsc::Sender<Leave>,
    live: Live,
}

/// A trigger, checked.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Whose it is.
    pub tenant: TenantId,
    /// What to run.
    pub spec: Arc<Spec>,
    /// As given.
    pub input: Payload,
    /// As given: a flat object of strings.
    pub metadata: Payload,
    /// The trigger's, or the workflow's.
    pub priority: Priority,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    /// Two creates with one key give one run. The scope is the workflow.
    pub idempotency: Option<Idempotency>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// Also tell when it has ended.
    pub watch: bool,
}

/// A key under which a create happens once.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The client's key.
    pub key: String,
    /// SHA-256 of what the client sent: another body under the same key is a conflict.
    pub body_hash: [u8; 32],
}

/// What became of a trigger.
#[derive(Debug)]
pub enum Created {
    /// The run is committed.
    New {
        /// As it was committed.
        run: Box<Run>,
        /// Resolves with the ended run, if the trigger asked to watch.
        finished: Option<oneshot::Receiver<Arc<Run>>>,
    },
    /// The key was used before with the same body.
    Existing(RunId),
}

/// An event, checked, with the workflows that match it.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its key.
    pub key: String,
    /// Where it comes from, with its id there: together they make it happen once.
    pub source: Option<(String, String)>,
    /// SHA-256 of what the client sent.
    pub body_hash: [u8; 32],
    /// As given. The input of its runs.
    pub payload: Payload,
    /// As given; also the metadata of its runs.
    pub metadata: Payload,
    /// The event that it repeats.
    pub replay_of: Option<EventId>,
    /// Two replays of an event with one key are one.
    pub once: Option<Idempotency>,
    /// The matching workflows that it does not start, as the interface shows them: a JSON list.
    pub skipped: Option<Payload>,
    /// Current versions of the matching workflows that it starts.
    pub specs: Vec<Arc<Spec>>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// What became of an event.
#[derive(Debug)]
pub enum EventCreated {
    /// The event and its runs are committed.
    New {
        /// Its id.
        id: EventId,
        /// The runs that it started, in the order of `specs`.
        runs: Vec<RunId>,
    },
    /// It was pushed before.
    Existing(EventId),
}

/// What a worker says first.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Whose worker it is.
    pub tenant: TenantId,
    /// The token by which it came.
    pub token: TokenId,
    /// How it describes itself.
    pub info: WorkerInfo,
    /// The session that it wants to go on with.
    pub resume: Option<Resume>,
}

/// One transport of a session. A later one of the same session replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The session.
    pub session: SessionId,
    /// Counts transports of this process.
    pub transport: u64,
}

impl Scheduler {
    /// Those who watch, and what workers say.
    pub const fn live(&self) -> &Live {
        &self.live
    }

    async fn ask<T>(&self, request: Request, answer: oneshot::Receiver<T>) -> Result<T> {
        if !self.is_ready() {
            return Err(Error::unavailable("this engine does not know yet who owns the shards"));
        }
        self.intake
            .send_timeout(request, Duration::from_secs(2))
            .await
            .map_err(|_| Error::unavailable("the scheduler takes no more requests now"))?;
        let answered = async {
            let answer = answer.await;
            // Of what was decided before a standstill nobody knows whether it is still so.
            self.standing.speaks().await.then_some(answer)
        };
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(_)) | None) | Err(_) => Err(Error::OutcomeUnknown),
        }
    }

    /// Creates a run: committed when this returns. Dropping the call drops only its answer.
    pub async fn create(&self, run: NewRun) -> Result<Created> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Create { run, reply }, answer).await?
    }

    /// Creates many runs of one tenant, each with its own outcome, in the order given. `held` counts until they are decided.
    pub async fn create_many(&self, runs: Vec<NewRun>, held: Option<Held>) -> Result<Vec<Result<Created>>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::CreateMany { runs, held, reply }, answer).await
    }

    /// Stores an event and the runs that it starts, in one statement.
    pub async fn push_event(&self, event: NewEvent) -> Result<EventCreated> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Event { event, reply }, answer).await?
    }

    /// Stores many events, each with its runs in one statement and with its own outcome, in the order given.
    pub async fn push_events(&self, events: Vec<NewEvent>) -> Result<Vec<Result<EventCreated>>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Events { events, reply }, answer).await
    }

    /// Cancels a run: committed when this returns. A cancelled run is cancelled again with success.
    pub async fn cancel(&self, tenant: TenantId, run: RunId) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Cancel { tenant, run, reply }, answer).await?
    }

    /// Sends a parked run to its queue again, with nothing spent: committed when this returns.
    pub async fn unpark(&self, tenant: TenantId, run: RunId) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Unpark { tenant, run, reply }, answer).await?
    }

    /// Resolves with the run when it ends. Read the run *after* this call: it may have ended before.
    pub async fn watch(&self, tenant: TenantId, run: RunId) -> Result<oneshot::Receiver<Arc<Run>>> {
        let (reply, answer) = oneshot::channel();
        self.intake
            .send_timeout(Request::Watch { tenant, run, reply }, Duration::from_secs(2))
            .await
            .map_err(|_| Error::unavailable("the scheduler takes no more requests now"))?;
        Ok(answer)
    }

    /// Passes on what a worker says. Waits while the owner is busy: the socket is read more slowly.
    pub async fn worker(&self, from: Connection, message: Incoming) {
        let mut request = Request::Worker { from, message };
        // The owner ends only with the process: nobody is left who could take the message. A slow one must not
        // lose it.
        while let Err(SendTimeoutError::Timeout(again)) = self.intake.send_timeout(request, ANSWER).await {
            tracing::warn!("the scheduler does not take a worker's message");
            request = again;
        }
    }

    /// The tenant's workers as they stand in memory.
    pub async fn workers(&self, tenant: TenantId) -> Result<Vec<WorkerState>> {
        let (reply, answer) = oneshot::channel();
        self.look(Request::Snapshot { tenant, reply }, answer).await
    }

    /// Counters since the start.
    pub async fn stats(&self) -> Result<Stats> {
        let (reply, answer) = oneshot::channel();
        self.look(Request::Stats { reply }, answer).await
    }

    /// The engine's clock.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl Scheduler {
    /// Whether this process takes part: every shard had an owner that it knows, itself or another engine.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Which engine decides a tenant's work.
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What a request brings that another engine passes on to this one: made anew at each start.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Whether this process speaks for its shards: to be asked before work leaves it.
    pub(crate) const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The shards whose tenants' background work is this process's.
    pub fn owned_shards(&self) -> Vec<i16> {
        if self.is_ready() { self.directory.here() } else { Vec::new() }
    }

    /// This process, as workers see it in `welcome`.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Asks every worker to open a socket elsewhere within this time, and assigns nothing new.
    pub async fn drain(&self, within: Duration) {
        // Without an owner there is nobody to drain.
        let _ = self.intake.send_timeout(Request::Drain { within }, Duration::from_secs(1)).await;
    }

    /// Hands every shard over to other engines, at most `within`. False: there is no other, or it took too long.
    pub async fn leave(&self, within: Duration) -> bool {
        let (reply, done) = oneshot::channel();
        if self.leaves.send_timeout(reply, Duration::from_secs(1)).await.is_err() {
            return false;
        }
        matches!(tokio::time::timeout(within, done).await, Ok(Ok(true)))
    }

    /// Resolves when everything decided so far is committed, or after `within`.
    pub async fn quiesce(&self, within: Duration) {
        let (reply, answer) = oneshot::channel();
        let _ = self.intake.send_timeout(Request::Quiesce { reply }, Duration::from_secs(1)).await;
        // What is not committed by then is found by the successor.
        let _ = tokio::time::timeout(within, answer).await;
    }
}

#[cfg(test)]
impl Scheduler {
    /// A handle whose owner is played by a test.
    pub(crate) fn played(clock: Clock, node: NodeId) -> (Self, mpsc::Receiver<Request>) {
        let (intake, requests) = mpsc::channel(INTAKE);
        let (ready, secret) = (Arc::new(AtomicBool::new(true)), Arc::new(Secret::new("played")));
        let (directory, leaves) = (Directory::everywhere(&crate::cluster::Place::Here), mpsc::channel(1).0);
        let live = Live::new(clock.clone(), node, crate::live::Desk::new());
        let (transports, standing) = (Arc::new(AtomicU64::new(1)), Standing::new(clock.clone()));
        standing.trust(standing.elapsed(), Duration::from_secs(3_600));
        (Self { intake, transports, standing, clock, node, ready, directory, secret, leaves, live }, requests)
    }
}
