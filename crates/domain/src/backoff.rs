//! Waits between tries: each twice as long as the one before, up to a longest.

use std::time::Duration;

/// Gives one wait after the other.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    given: u32,
}

impl Backoff {
    /// From `first` up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, given: 0 }
    }

    /// How long to wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        let wait = nth(self.first, self.longest, self.given);
        self.given = self.given.saturating_add(1);
        wait
    }

    /// A try went well: the next wait is the first again.
    pub const fn reset(&mut self) {
        self.given = 0;
    }
}

/// The wait after `n` others.
pub fn nth(first: Duration, longest: Duration, n: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(n)).min(longest)
}

/// A part of the wait by chance, at least so much of it (0 to 1): who was stopped in one instant must not come back in
/// one. The middle where the machine has no randomness: jitter is a courtesy, not a need.
pub fn jittered(wait: Duration, least: f64) -> Duration {
    let chance = getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX));
    wait.mul_f64(least + (1.0 - least) * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(20 * MS, 100 * MS);
        let waits: Vec<_> = (0..5).map(|_| backoff.next_wait().as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 100, 100]);
        backoff.reset();
        assert_eq!(backoff.next_wait(), 20 * MS);
        assert_eq!(nth(MS, Duration::from_secs(3_600), u32::MAX), Duration::from_secs(3_600), "no overflow");
    }

    #[test]
    fn jitter_keeps_the_least_and_never_adds() {
        let waits: Vec<_> = (0..1_000).map(|_| jittered(1_000 * MS, 0.5)).collect();
        assert!(waits.iter().all(|wait| (500 * MS..=1_000 * MS).contains(wait)));
        let (short, long) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*short < 600 * MS && *long > 900 * MS, "{short:?} to {long:?}");
    }
}
