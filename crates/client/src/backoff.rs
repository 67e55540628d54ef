//! How long a worker waits before it reconnects.

use std::time::{Duration, Instant};

use helve_domain::backoff;

/// The cap of the first wait; each further one doubles it.
const FIRST: Duration = Duration::from_millis(500);
/// The cap while the session's grace (15 s by default) may still be running.
const EARLY_CAP: Duration = Duration::from_secs(5);
/// How long the early cap holds.
const EARLY: Duration = Duration::from_secs(60);
/// The cap after that.
const LATE_CAP: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one: the next loss starts from the shortest wait.
const STABLE: Duration = Duration::from_secs(10);

/// Full jitter, so that a thousand workers of a restarted engine do not reconnect at the same instant.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
    /// When the connection was first missed.
    since: Option<Instant>,
    connected: Option<Instant>,
}

impl Backoff {
    /// The connection is up.
    pub(super) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// How long to wait before the next try.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        if self.connected.take().is_some_and(|at| now.saturating_duration_since(at) >= STABLE) {
            *self = Self::default();
        }
        let since = *self.since.get_or_insert(now);
        let cap = if now.saturating_duration_since(since) < EARLY { EARLY_CAP } else { LATE_CAP };
        let bound = backoff::nth(FIRST, cap, self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        backoff::jittered(bound, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Clock;

    use super::*;

    #[test]
    fn waits_grow_to_five_seconds_then_to_thirty_and_start_again_after_a_good_connection() {
        let start = Clock::system().instant();
        let mut backoff = Backoff::default();
        let longest = |backoff: &mut Backoff, now: Instant| (0..2_000).map(|_| backoff.next(now)).max().unwrap();
        assert!(backoff.next(start) <= FIRST);
        let early = longest(&mut backoff, start);
        assert!(early <= EARLY_CAP && early > EARLY_CAP.mul_f64(0.9), "{early:?}");
        let late = longest(&mut backoff, start + EARLY);
        assert!(late <= LATE_CAP && late > LATE_CAP.mul_f64(0.9), "{late:?}");

        let up = start + EARLY * 2;
        backoff.connected(up);
        assert!(backoff.next(up + STABLE) <= FIRST);
    }

    #[test]
    fn a_connection_that_breaks_at_once_does_not_reset_the_wait() {
        let start = Clock::system().instant();
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.next(start);
            backoff.connected(start);
        }
        assert_eq!(backoff.attempts, 6);
    }
}
