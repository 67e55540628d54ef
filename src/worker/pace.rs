//! How fast a peer is read: one that sends too much is read more slowly, never closed.

use std::time::{Duration, Instant};

use helve_domain::bucket::Bucket;
use helve_domain::ration::Ration;

/// The longest pause that a burst can earn.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What a peer may send: what it owes is how long it is not read.
#[derive(Debug)]
pub(crate) struct Pace(Bucket<Instant>);

impl Pace {
    /// A full bucket that holds one second's worth.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self(Bucket::full(per_second, per_second, now).lending(per_second * MAX_PAUSE.as_secs_f64()))
    }

    /// Takes `n` tokens. In debt, gives the time after which the peer may be read again.
    pub(crate) fn take(&mut self, n: usize, now: Instant) -> Option<Instant> {
        self.0.refill(now);
        self.0.take(u32::try_from(n).unwrap_or(u32::MAX).into());
        (!self.0.has(0.0)).then(|| now + self.0.wait_for(0.0))
    }
}

/// Messages of a minute that may be no frames: the next one closes the socket.
const MISTAKES: u32 = 10;
/// How long a mistake counts.
const MINUTE: Duration = Duration::from_secs(60);

/// Mistakes that may happen to a program now and then, and not again and again.
#[derive(Debug)]
pub(crate) struct Mistakes(Ration<Instant>);

impl Mistakes {
    /// None so far.
    pub(crate) const fn none() -> Self {
        Self(Ration::of(MISTAKES, MINUTE))
    }

    /// One more; the number of those in this minute, or `None` when they are too many.
    pub(crate) fn one_more(&mut self, now: Instant) -> Option<u32> {
        self.0.take(now).map(|_| self.0.given())
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Clock;

    use super::*;

    #[test]
    fn ten_mistakes_a_minute_are_forgiven() {
        let now = Clock::system().instant();
        let mut mistakes = Mistakes::none();
        for n in 1..=10 {
            assert_eq!(mistakes.one_more(now), Some(n));
        }
        assert_eq!(mistakes.one_more(now + MINUTE - Duration::from_millis(1)), None);
        assert_eq!(mistakes.one_more(now + MINUTE), Some(1));
    }

    #[test]
    fn a_burst_is_free_and_what_follows_is_slowed_down() {
        let now = Clock::system().instant();
        let mut pace = Pace::new(10, now);
        assert_eq!(pace.take(10, now), None);
        assert_eq!(pace.take(1, now), Some(now + Duration::from_millis(100)));
        let later = now + Duration::from_millis(100);
        assert_eq!(pace.take(0, later), None);
        assert_eq!(pace.take(1_000_000, later), Some(later + MAX_PAUSE));
    }
}
