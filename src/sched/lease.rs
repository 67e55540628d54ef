//! What this process knows of its own lease: trusted only for two thirds of its time, by its own clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Whether this process may write, as far as it knows without asking.
#[derive(Clone)]
pub(super) struct Standing(Arc<Inner>);

struct Inner {
    base: std::time::Instant,
    /// Microseconds after `base` until which the lease is trusted.
    valid_until: AtomicI64,
    /// Microseconds after `base` of the last turn of the owner's loop.
    turned_at: AtomicI64,
    fenced: CancellationToken,
    changed: Notify,
    clock: Clock,
}

impl Standing {
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            base: clock.instant(),
            valid_until: AtomicI64::new(0),
            turned_at: AtomicI64::new(0),
            fenced: CancellationToken::new(),
            changed: Notify::new(),
            clock,
        }))
    }

    /// The engine's clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The time by which [`Standing::trust`] counts.
    pub fn elapsed(&self) -> i64 {
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
        self.0.turned_at.store(self.elapsed(), Ordering::Release);
    }

    /// Another process has taken over.
    pub fn fence(&self) {
        self.0.fenced.cancel();
    }

    /// Resolves when another process has taken over.
    pub async fn fenced(&self) {
        self.0.fenced.cancelled().await;
    }

    /// Whether the owner's loop has turned within this time: a loop that stands must not keep its shards by a task
    /// that only renews.
    pub fn has_turned(&self, within: Duration) -> bool {
        let ago = self.elapsed().saturating_sub(self.0.turned_at.load(Ordering::Acquire));
        ago <= i64::try_from(within.as_micros()).unwrap_or(i64::MAX)
    }

    /// Whether another process has taken over.
    pub fn is_fenced(&self) -> bool {
        self.0.fenced.is_cancelled()
    }

    /// A renewal that was sent at `sent` was granted.
    pub fn trust(&self, sent: i64, ttl: Duration) {
        let two_thirds = i64::try_from((ttl * 2 / 3).as_micros()).unwrap_or(i64::MAX);
        self.0.valid_until.store(sent.saturating_add(two_thirds), Ordering::Release);
        self.0.changed.notify_waiters();
    }
}
