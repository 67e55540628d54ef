//! Keeping the lease: renewed while the owner's loop is alive, and trusted only for two thirds of its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::Database;
use crate::db::lease::{LeaseConnection, OtherNode};
use crate::error::Result;
use crate::failpoint::{self, Point};
use crate::id::{NodeId, SHARDS};

/// How often a standby looks whether it can take over.
const LOOK: Duration = Duration::from_millis(300);

/// Whether this process may write, as far as it knows without asking.
#[derive(Clone)]
pub(super) struct Standing(Arc<Inner>);

struct Inner {
    base: std::time::Instant,
    /// Microseconds after `base` until which the lease is trusted.
    valid_until: AtomicI64,
    /// The owner's loop sets it at every turn; a renewal takes it.
    alive: AtomicBool,
    fenced: CancellationToken,
    changed: Notify,
    clock: Clock,
}

impl Standing {
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            base: clock.instant(),
            valid_until: AtomicI64::new(0),
            alive: AtomicBool::new(true),
            fenced: CancellationToken::new(),
            changed: Notify::new(),
            clock,
        }))
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.0.clock.instant().duration_since(self.0.base).as_micros()).unwrap_or(i64::MAX)
    }

    /// Whether the lease is trusted now.
    pub fn is_valid(&self) -> bool {
        !self.0.fenced.is_cancelled() && self.elapsed() < self.0.valid_until.load(Ordering::Acquire)
    }

    /// Waits until the lease is trusted. Once fenced it never is: the process ends.
    pub async fn wait(&self) {
        while !self.is_valid() {
            let changed = self.0.changed.notified();
            // A lapse is noticed by the renewal; the time limit is for the race between both lines.
            let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
        }
    }

    /// The owner's loop has made a turn.
    pub fn tick(&self) {
        self.0.alive.store(true, Ordering::Release);
    }

    /// Another process has taken over.
    pub fn fence(&self) {
        self.0.fenced.cancel();
    }

    /// Resolves when another process has taken over.
    pub async fn fenced(&self) {
        self.0.fenced.cancelled().await;
    }

    fn trust(&self, sent: i64, ttl: Duration) {
        let two_thirds = i64::try_from((ttl * 2 / 3).as_micros()).unwrap_or(i64::MAX);
        self.0.valid_until.store(sent.saturating_add(two_thirds), Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

/// The lease of one process.
pub(super) struct Lease {
    database: Database,
    node: NodeId,
    ttl: Duration,
    standing: Standing,
    conn: Option<LeaseConnection>,
}

impl Lease {
    pub const fn new(database: Database, node: NodeId, ttl: Duration, standing: Standing) -> Self {
        Self { database, node, ttl, standing, conn: None }
    }

    /// Waits until this process owns every shard. `at_once`: no other engine can be alive.
    pub async fn acquire(&mut self, name: &str, at_once: bool, stopping: &CancellationToken) -> bool {
        let mut suspects: Vec<OtherNode> = Vec::new();
        let mut told = false;
        loop {
            match self.try_acquire(name, at_once, &mut suspects).await {
                Ok(true) => return true,
                Ok(false) if !told => {
                    told = true;
                    info!("another engine owns the shards: standing by");
                }
                Ok(false) => {}
                Err(e) => {
                    self.conn = None;
                    warn!(error = %e, "cannot look for the lease yet");
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return false,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn connection(&mut self) -> Result<&mut LeaseConnection> {
        match &mut self.conn {
            Some(conn) => Ok(conn),
            empty => Ok(empty.insert(LeaseConnection::open(&self.database, self.node, self.ttl).await?)),
        }
    }

    /// One look. A node is gone if it looked gone twice in a row: its lease ran out, or none of its lanes has a
    /// backend although the database itself did not restart.
    async fn try_acquire(&mut self, name: &str, at_once: bool, suspects: &mut Vec<OtherNode>) -> Result<bool> {
        let standing = self.standing.clone();
        let ttl = self.ttl;
        let conn = self.connection().await?;
        let others = conn.others().await?;
        let looks_gone = |n: &OtherNode| n.expired || (!n.connected && n.settled);
        for other in &others {
            let again = suspects.iter().any(|s| s.id == other.id && looks_gone(s));
            if at_once || (looks_gone(other) && again) {
                warn!(node = %other.id, "taking over from a node that is gone");
                failpoint::hit(Point::BeforeFence).await;
                conn.fence(other.id).await?;
                failpoint::hit(Point::AfterFence).await;
            } else {
                *suspects = others;
                return Ok(false);
            }
        }
        let sent = standing.elapsed();
        conn.register(name).await?;
        if conn.take_shards().await? < i64::from(SHARDS) {
            // Another standby was faster.
            conn.resign().await?;
            return Ok(false);
        }
        standing.trust(sent, ttl);
        Ok(true)
    }

    /// Renews until the process stops. Ends early only when another process has taken over.
    pub async fn keep(&mut self, stopping: &CancellationToken) {
        // An idle engine asks the database little; what fails is tried again while the lease is still trusted.
        let (period, retry) = (self.ttl * 2 / 5, self.ttl / 8);
        let mut wait = period;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            // A loop that does not turn must not keep its shards by a task that only renews.
            if std::mem::replace(&mut wait, period) == period && !self.standing.0.alive.swap(false, Ordering::AcqRel) {
                warn!("the owner's loop has not turned: the lease is not renewed");
                continue;
            }
            let sent = self.standing.elapsed();
            let ttl = self.ttl;
            failpoint::hit(Point::BeforeRenewal).await;
            let renewed = match self.connection().await {
                Ok(conn) => tokio::time::timeout(ttl / 3, conn.renew()).await,
                Err(e) => Ok(Err(e)),
            };
            failpoint::hit(Point::AfterRenewal).await;
            match renewed {
                Ok(Ok(true)) => self.standing.trust(sent, ttl),
                Ok(Ok(false)) => {
                    error!("another engine has taken over: this process ends");
                    return self.standing.fence();
                }
                Ok(Err(e)) => {
                    (self.conn, wait) = (None, retry);
                    warn!(error = %e, "the lease could not be renewed");
                }
                Err(_) => {
                    (self.conn, wait) = (None, retry);
                    warn!("the lease could not be renewed in time");
                }
            }
        }
    }

    /// Gives everything up, so that a successor need not wait.
    pub async fn resign(&mut self) {
        let resign = async { self.connection().await?.resign().await };
        match tokio::time::timeout(Duration::from_secs(2), resign).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!(error = %e, "the lease was not given back: it will run out"),
            Err(_) => warn!("the lease was not given back in time: it will run out"),
        }
    }
}
