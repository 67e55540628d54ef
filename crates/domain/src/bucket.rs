//! Token buckets: how much may happen in a time on average, and how much of it at once.

use std::time::{Duration, Instant};

use crate::clock::Timestamp;

/// The longest wait that a bucket asks for; what is slower than that is looked at again.
const LONGEST: f64 = 100_000.0;
/// A hair below what is wanted is enough: rounding must not cost a second look.
const HAIR: f64 = 1e-6;

/// A time that buckets fill by.
pub trait Moment: Copy + Ord {
    /// How long from `earlier` to this time; zero when it lies after.
    fn passed_since(self, earlier: Self) -> Duration;
}

impl Moment for Timestamp {
    fn passed_since(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl Moment for Instant {
    fn passed_since(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// Fills with `rate` tokens a second up to its capacity. What is taken may be more than there is: the rest is owed.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket<T> {
    rate: f64,
    capacity: f64,
    debt: f64,
    tokens: f64,
    at: T,
}

impl<T: Moment> Bucket<T> {
    /// A full one, in which nothing can be owed.
    pub const fn full(rate: f64, capacity: f64, now: T) -> Self {
        Self { rate, capacity, debt: 0.0, tokens: capacity, at: now }
    }

    /// With so many tokens in it.
    #[must_use]
    pub const fn holding(mut self, tokens: f64) -> Self {
        self.tokens = tokens;
        self
    }

    /// In which so much can be owed; what is taken beyond that is forgiven.
    #[must_use]
    pub const fn lending(mut self, debt: f64) -> Self {
        self.debt = debt;
        self
    }

    /// Adds what has come since the last look.
    pub fn refill(&mut self, now: T) {
        let came = now.passed_since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + came).min(self.capacity);
        self.at = self.at.max(now);
    }

    /// Whether so many are there.
    pub const fn has(&self, tokens: f64) -> bool {
        self.tokens >= tokens - HAIR
    }

    /// Whether it is as full as it gets: nothing was taken for a while.
    pub const fn is_full(&self) -> bool {
        self.has(self.capacity)
    }

    /// Takes so many, whether they are there or not.
    pub const fn take(&mut self, tokens: f64) {
        self.tokens = (self.tokens - tokens).max(-self.debt);
    }

    /// How long until so many are there.
    pub fn wait_for(&self, tokens: f64) -> Duration {
        Duration::from_secs_f64(((tokens - self.tokens).max(0.0) / self.rate).min(LONGEST))
    }

    /// How long until it is full.
    pub fn wait_until_full(&self) -> Duration {
        self.wait_for(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    #[test]
    fn it_gives_its_capacity_at_once_and_then_its_rate() {
        let mut bucket = Bucket::full(2.0, 3.0, at(0));
        let given = |bucket: &mut Bucket<Timestamp>, ms| {
            bucket.refill(at(ms));
            std::iter::from_fn(|| bucket.has(1.0).then(|| bucket.take(1.0))).count()
        };
        assert_eq!(given(&mut bucket, 0), 3);
        assert_eq!(bucket.wait_for(1.0), Duration::from_millis(500));
        assert_eq!([500, 900, 1_000].map(|ms| given(&mut bucket, ms)), [1, 0, 1]);
        assert_eq!(bucket.wait_until_full(), Duration::from_millis(1_500));
        assert_eq!(given(&mut bucket, 60_000), 3, "what is not used is not saved up");
        bucket.refill(at(100));
        assert_eq!(given(&mut bucket, 60_000), 0, "a clock that went back gives nothing twice");
    }

    #[test]
    fn what_is_owed_is_paid_first_and_has_a_bound() {
        let mut bucket = Bucket::full(10.0, 10.0, at(0)).lending(20.0);
        bucket.take(1_000.0);
        assert_eq!(bucket.wait_for(0.0), Duration::from_secs(2));
        bucket.refill(at(2_000));
        assert!(bucket.has(0.0) && !bucket.has(1.0));
        let mut strict = Bucket::full(10.0, 10.0, at(0));
        strict.take(1_000.0);
        assert_eq!(strict.wait_for(1.0), Duration::from_millis(100));
    }

    #[test]
    fn a_bucket_that_hardly_fills_asks_for_a_look_and_not_for_ever() {
        let bucket = Bucket::full(1e-12, 1.0, at(0)).holding(0.0);
        assert_eq!(bucket.wait_for(1.0), Duration::from_secs(100_000));
    }
}
