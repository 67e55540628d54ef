//! What this process knows of its own lease: trusted only for two thirds of its time, by its own clock.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use helve_domain::clock::Clock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What stands for the end of the lease of a process that was taken over.
const NEVER: i64 = i64::MIN;

/// Whether this process may write, and say what it wrote, as far as it knows without asking.
#[derive(Clone)]
pub(crate) struct Standing(Arc<Inner>);

struct Inner {
    base: std::time::Instant,
    /// Microseconds after `base` until which the lease is trusted; [`NEVER`] once fenced.
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

    /// Whether the lease is trusted now: one look at the clock, and one at memory.
    pub fn is_valid(&self) -> bool {
        self.elapsed() < self.0.valid_until.load(Ordering::Acquire)
    }

    /// Waits until it is certain whether this process still speaks for its shards. False: another one does. A process
    /// that stood still does not know how long: what it has committed before, another one may have overtaken.
    pub async fn speaks(&self) -> bool {
        if self.is_valid() {
            return true;
        }
        tokio::select! {
            () = self.wait() => true,
            () = self.fenced() => false,
        }
    }

    /// Waits until the lease is trusted. Once fenced it never is: the process ends.
    pub async fn wait(&self) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Before the look: a renewal between both lines is not missed.
            changed.as_mut().enable();
            if self.is_valid() {
                return;
            }
            changed.await;
        }
    }

    /// The owner's loop has made a turn.
    pub fn tick(&self) {
        self.0.turned_at.store(self.elapsed(), Ordering::Release);
    }

    /// Another process has taken over.
    pub fn fence(&self) {
        self.0.valid_until.store(NEVER, Ordering::Release);
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
        let until = |known: i64| (known != NEVER).then(|| sent.saturating_add(two_thirds));
        if self.0.valid_until.fetch_update(Ordering::AcqRel, Ordering::Acquire, until).is_err() {
            return;
        }
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    #[tokio::test]
    async fn a_lease_is_trusted_for_two_thirds_from_when_its_renewal_was_sent() {
        let standing = Standing::new(Clock::system());
        assert!(!standing.is_valid(), "nothing was granted yet");
        standing.trust(standing.elapsed(), TTL);
        assert!(standing.is_valid() && standing.speaks().await);
        // As after a freeze: the answer to a renewal that was sent long ago.
        standing.trust(standing.elapsed() - 2_000_001, TTL);
        assert!(!standing.is_valid());
    }

    #[tokio::test]
    async fn who_was_taken_over_is_never_trusted_again() {
        let standing = Standing::new(Clock::system());
        standing.fence();
        standing.trust(standing.elapsed(), TTL);
        assert!(!standing.is_valid());
        assert!(!standing.speaks().await);
    }

    #[tokio::test]
    async fn who_is_in_doubt_waits_for_the_next_renewal() {
        let standing = Standing::new(Clock::system());
        let renewed = async {
            tokio::task::yield_now().await;
            standing.trust(standing.elapsed(), TTL);
        };
        assert!(tokio::join!(standing.speaks(), renewed).0);
    }
}
