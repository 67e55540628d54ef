//! Requests and sockets of tenants whose shard another engine owns: passed on to the owner, once.
//!
//! Both entries stand on it. What it promises: a request is decided by the owner or by nobody; it is sent again only
//! when the engine before did nothing with it, or when doing it twice is the same as doing it once.

mod body;
mod client;
mod frames;
mod headers;
mod places;
#[cfg(test)]
mod tests;
mod tunnel;

use std::sync::Arc;
use std::time::{Duration, Instant};

use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::{NodeId, TenantId};
use helve_domain::secret::Secret;
use helve_supervisor::Supervisor;
use hyper::header::HeaderMap;
use hyper::{Response, Uri};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Directory, Peer, Place};
use crate::sched::Scheduler;
use client::Client;

pub use body::Passed;
pub use client::Outgoing;
pub use headers::{NOT_OWNER, Sender};
pub use tunnel::{Opened, Switched};

/// How soon the same engine is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// Owners that one request may see go while it waits for them: more do not change in its time.
const MOVES: u32 = 3;

const NO_OWNER: Error = Error::unavailable("no engine that owns the tenant's shard can be reached now");
const NOT_HERE: Error = Error::unavailable("this engine does not own the tenant's shard");

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A request without an owner waits, over all attempts.
    pub find: Duration,
    /// An engine that was taken for the owner and is not, waits to become it: it learns that at the next renewal of
    /// its lease.
    pub own: Duration,
    /// An owner answers, beyond the `wait` of the request: longer than it waits for a commit itself.
    pub answer: Duration,
    /// A stream of events is silent. The owner sends a comment far more often.
    pub silence: Duration,
    /// An engine that is not the owner any more still says what it had to say: one that hands its shards over has told
    /// everybody before. One that stands still, or whose machine has no power, says nothing, and nothing else tells.
    pub moved: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            find: Duration::from_secs(3),
            own: Duration::from_millis(1_500),
            answer: Duration::from_secs(15),
            silence: Duration::from_secs(75),
            moved: Duration::from_secs(1),
        }
    }
}

/// What became of one attempt.
#[derive(Debug)]
enum Tried<T> {
    /// The engine answered.
    Answered(T),
    /// Another attempt is safe: it did nothing, or twice is the same as once.
    NotTaken,
    /// As [`Tried::NotTaken`], and it is not the owner any more: the time in which it was counts as no search.
    Overtaken,
    /// It may have acted on it.
    Lost,
}

/// Passes on what belongs to another engine. Cheap to clone.
#[derive(Clone)]
pub struct Forwarder(Arc<Shared>);

struct Shared {
    directory: Directory,
    /// Hash of what other engines present to this one.
    secret: [u8; 32],
    client: Client,
    supervisor: Supervisor,
    clock: Clock,
    patience: Patience,
}

/// What a forwarder needs to know of its engine.
pub struct Parts {
    /// Who owns what.
    pub directory: Directory,
    /// What other engines present to this one.
    pub secret: Secret,
    /// The longest `wait` of a request.
    pub wait: Duration,
    /// Cancelled when the engine takes no more requests.
    pub closing: CancellationToken,
    /// How long open requests may go on then.
    pub drain: Duration,
    /// How long things may take.
    pub patience: Patience,
    /// Files for connections, which those of clients take, too.
    pub places: Arc<Semaphore>,
    /// The engine's clock.
    pub clock: Clock,
}

impl Parts {
    /// Those of the scheduler's process, for the entry that it has.
    pub fn of(scheduler: &Scheduler, entry: Entry) -> Self {
        let Entry { wait, closing, drain, places } = entry;
        let (directory, secret) = (scheduler.directory().clone(), scheduler.secret().clone());
        let (patience, clock) = (Patience::default(), scheduler.clock().clone());
        Self { directory, secret, wait, closing, drain, patience, places, clock }
    }
}

/// What a forwarder needs to know of its engine's entry: see [`Parts`].
pub struct Entry {
    /// The longest `wait` of a request.
    pub wait: Duration,
    /// Cancelled when the engine takes no more requests.
    pub closing: CancellationToken,
    /// How long open requests may go on then.
    pub drain: Duration,
    /// Files for connections.
    pub places: Arc<Semaphore>,
}

impl Forwarder {
    /// Composes the parts; connections are tasks of `supervisor`.
    pub fn new(parts: Parts, supervisor: &Supervisor) -> Self {
        let secret = headers::hash(&parts.secret);
        let client = Client::new(&parts, supervisor);
        let Parts { directory, clock, patience, .. } = parts;
        Self(Arc::new(Shared { directory, secret, client, supervisor: supervisor.clone(), clock, patience }))
    }

    /// Whether the tenant's work is decided in this process, as far as it knows.
    pub fn is_here(&self, tenant: TenantId) -> bool {
        matches!(self.0.directory.place(tenant), Place::Here)
    }

    /// Takes the headers of engines off a request, and tells who sent it.
    pub fn sender(&self, headers: &mut HeaderMap) -> Sender {
        headers::take(&self.0.secret, headers)
    }

    /// For a request that is not passed on any more: waits shortly until this engine owns the tenant's shard.
    ///
    /// # Errors
    /// `Unavailable` when it does not: to be answered with the header [`NOT_OWNER`].
    pub async fn become_owner(&self, tenant: TenantId) -> Result<()> {
        let until = self.0.clock.instant() + self.0.patience.own;
        let mut place = self.0.directory.place(tenant);
        while !matches!(place, Place::Here) {
            let left = self.left(until).ok_or(NOT_HERE)?;
            place = self.0.directory.other(tenant, &place, left).await;
        }
        Ok(())
    }

    /// Sends a client's request to the owner. `None`: this engine has become the owner.
    ///
    /// # Errors
    /// `Unavailable` when there is no owner in time: nothing was done. `OutcomeUnknown` when an owner may have acted.
    pub async fn send(&self, tenant: TenantId, sender: Sender, request: &Outgoing) -> Result<Option<Response<Passed>>> {
        let hops = next_hop(sender)?;
        let client = &self.0.client;
        // Over all attempts: a request that is asked again at the next owner must not take twice its time.
        let limit = client.limit(request);
        let until = self.0.clock.instant() + limit + self.0.patience.find;
        let attempt = |peer: Arc<Peer>| async move {
            match self.left(until) {
                Some(left) => client.send(Target { tenant, peer: &peer, hops }, request, left.min(limit)).await,
                None => Tried::NotTaken,
            }
        };
        let answer = self.to_owner(tenant, attempt).await;
        match answer {
            // Nothing that could have been lost.
            Err(Error::OutcomeUnknown) if request.method.is_safe() => Err(NO_OWNER),
            answer => answer,
        }
    }

    /// Tries until an owner has answered, at most [`Patience::find`] and the time of the attempts.
    async fn to_owner<T, F>(&self, tenant: TenantId, attempt: impl Fn(Arc<Peer>) -> F) -> Result<Option<T>>
    where
        F: Future<Output = Tried<T>>,
    {
        let directory = &self.0.directory;
        let find = self.0.patience.find;
        let mut until = self.0.clock.instant() + find;
        let mut place = directory.place(tenant);
        let mut moves = 0;
        loop {
            let patience = match &place {
                Place::Here => return Ok(None),
                Place::Nowhere => find,
                Place::At(peer) => match attempt(Arc::clone(peer)).await {
                    Tried::Answered(answer) => return Ok(Some(answer)),
                    Tried::Lost => return Err(Error::OutcomeUnknown),
                    Tried::Overtaken if moves < MOVES => {
                        moves += 1;
                        until = self.0.clock.instant() + find;
                        find
                    }
                    Tried::NotTaken | Tried::Overtaken => AGAIN,
                },
            };
            let left = self.left(until).ok_or(NO_OWNER)?;
            place = directory.other(tenant, &place, patience.min(left)).await;
        }
    }

    fn left(&self, until: Instant) -> Option<Duration> {
        until.checked_duration_since(self.0.clock.instant()).filter(|left| !left.is_zero())
    }
}

/// Whom a request goes to, and for whom.
#[derive(Clone, Copy)]
struct Target<'a> {
    tenant: TenantId,
    peer: &'a Peer,
    hops: u8,
}

/// Resolves when `node` is not the owner of the tenant's shard any more and has had its time for last words.
fn overtaken(
    directory: &Directory,
    tenant: TenantId,
    node: NodeId,
    words: Duration,
) -> impl Future<Output = ()> + Send + 'static {
    let directory = directory.clone();
    async move {
        directory.left(tenant, node).await;
        tokio::time::sleep(words).await;
    }
}

/// The number of hops that the next engine is told.
fn next_hop(sender: Sender) -> Result<u8> {
    match sender {
        Sender::Client { hops } if sender.may_be_forwarded() => Ok(hops + 1),
        _ => Err(NOT_HERE),
    }
}

/// The address of a path at another engine.
fn uri(peer: &Peer, at: &Uri) -> Option<Uri> {
    let path = at.path_and_query().map_or("/", |path| path.as_str());
    format!("http://{}{path}", peer.address).parse().ok()
}
