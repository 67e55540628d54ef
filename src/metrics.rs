//! What the engine counts about itself: plain atomics that the hot path adds to and `GET /metrics` reads.

pub mod process;
pub mod text;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use helve_domain::clock::Timestamp;

/// Upper bounds of durations, in microseconds.
const MICROS: &[u64] = &[
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    3_600_000_000,
];
/// Upper bounds of rows in a statement.
const ROWS: &[u64] = &[1, 2, 5, 10, 25, 50, 100, 250];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a histogram's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Kept in microseconds, shown in seconds.
    Seconds,
    /// Shown as they are.
    Rows,
}

/// How often a value lay below each of a few fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    unit: Unit,
    /// One for each bound, and one for what is above all of them. Not cumulative.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one.
    pub fn new(unit: Unit) -> Self {
        let buckets = (0..=bounds(unit).len()).map(|_| AtomicU64::new(0)).collect();
        Self { unit, buckets, sum: AtomicU64::new(0) }
    }

    /// Takes a duration in.
    pub fn observe(&self, took: Duration) {
        self.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 16));
    }

    /// Takes a number in.
    pub fn record(&self, value: u64) {
        let at = bounds(self.unit).partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many values were taken in.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }

    /// Each bound with the number of values up to it; the last is what there is in all.
    fn cumulative(&self) -> (Vec<(f64, u64)>, u64) {
        let (mut sum, mut below) = (0, Vec::with_capacity(self.buckets.len()));
        for (at, bucket) in self.buckets.iter().enumerate() {
            sum += bucket.load(Ordering::Relaxed);
            if let Some(bound) = bounds(self.unit).get(at) {
                below.push((shown(self.unit, *bound), sum));
            }
        }
        (below, sum)
    }

    fn sum(&self) -> f64 {
        shown(self.unit, self.sum.load(Ordering::Relaxed))
    }
}

const fn bounds(unit: Unit) -> &'static [u64] {
    match unit {
        Unit::Seconds => MICROS,
        Unit::Rows => ROWS,
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of 285 years fit")]
fn shown(unit: Unit, value: u64) -> f64 {
    match unit {
        Unit::Seconds => value as f64 / 1e6,
        Unit::Rows => value as f64,
    }
}

/// One of the two writers.
#[derive(Debug)]
pub struct LaneMetrics {
    /// Rows of each batch.
    pub rows: Histogram,
    /// From taking a batch to being certain of its outcome: the lane does nothing else meanwhile.
    pub busy: Histogram,
    /// Statements whose answer was lost.
    pub unknown: Counter,
    /// Transitions that were set aside and wait by themselves, now.
    aside: AtomicUsize,
    /// Since when something has waited and nothing has gone through, in microseconds of the engine's time; 0: not so.
    since: AtomicI64,
    /// Batches since then that brought nothing through, with the one underway. A single one may be one locked row.
    fruitless: AtomicUsize,
    underway: AtomicBool,
}

impl Default for LaneMetrics {
    fn default() -> Self {
        Self {
            rows: Histogram::new(Unit::Rows),
            busy: Histogram::new(Unit::Seconds),
            unknown: Counter::default(),
            aside: AtomicUsize::new(0),
            since: AtomicI64::new(0),
            fruitless: AtomicUsize::new(0),
            underway: AtomicBool::new(false),
        }
    }
}

impl LaneMetrics {
    /// A batch begins.
    pub fn begin(&self, now: Timestamp) {
        // Only the lane itself writes this.
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(now.micros(), Ordering::Relaxed);
        }
        self.underway.store(true, Ordering::Relaxed);
    }

    /// Some of the batch went through, or was refused for good; the rest goes on from here.
    pub fn go_on(&self, now: Timestamp) {
        self.since.store(now.micros(), Ordering::Relaxed);
        self.fruitless.store(0, Ordering::Relaxed);
    }

    /// The batch is over. `fruitful`: something of it went through.
    pub fn end(&self, fruitful: bool) {
        if fruitful {
            self.since.store(0, Ordering::Relaxed);
            self.fruitless.store(0, Ordering::Relaxed);
        } else {
            self.fruitless.fetch_add(1, Ordering::Relaxed);
        }
        self.underway.store(false, Ordering::Relaxed);
    }

    /// So many transitions are set aside now.
    pub fn set_aside(&self, n: usize) {
        self.aside.store(n, Ordering::Relaxed);
    }

    /// How many transitions are set aside.
    pub fn aside(&self) -> usize {
        self.aside.load(Ordering::Relaxed)
    }

    /// How long the lane has not committed although something waits for it.
    pub fn stalled(&self, now: Timestamp) -> Duration {
        let stands = self.underway.load(Ordering::Relaxed) || self.fruitless.load(Ordering::Relaxed) > 1;
        match self.since.load(Ordering::Relaxed) {
            since if since != 0 && stands => now.since(Timestamp::from_micros(since)),
            _ => Duration::ZERO,
        }
    }
}

/// Spans of recorded traces.
#[derive(Debug, Default)]
pub struct SpanMetrics {
    /// A collector took them.
    pub exported: Counter,
    /// They found the exporter's channel full.
    pub dropped: Counter,
    /// The collector refused them, or did not take them in time.
    pub failed: Counter,
}

/// Everything that is counted where it happens. What memory knows anyway is asked for when somebody looks.
#[derive(Debug)]
pub struct Metrics {
    /// From the time from which a run may start to its first assignment, of runs that were created assigned.
    pub start_optimistic: Histogram,
    /// The same of runs that were queued first.
    pub start_queued: Histogram,
    /// From the assignment of the last attempt to the end.
    pub run: Histogram,
    /// Runs that succeeded.
    pub succeeded: Counter,
    /// Runs that failed.
    pub failed: Counter,
    /// Runs that were cancelled.
    pub cancelled: Counter,
    /// The writer of new runs.
    pub create: LaneMetrics,
    /// The writer of everything else.
    pub finish: LaneMetrics,
    /// Engines that this one has taken over from.
    pub takeovers: Counter,
    /// Tenants whose old runs could not be deleted, once for each pass.
    pub retention_failed: Counter,
    /// What became of spans.
    pub spans: SpanMetrics,
}

/// A lane that has committed nothing for so long, although something waits for it, does not take work.
const STALLED: Duration = Duration::from_secs(5);

impl Metrics {
    /// Whether one of the lanes has been standing for 5 s or more.
    pub fn is_stalled(&self, now: Timestamp) -> bool {
        [&self.create, &self.finish].iter().any(|lane| lane.stalled(now) >= STALLED)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(Unit::Seconds);
        Self {
            start_optimistic: seconds(),
            start_queued: seconds(),
            run: seconds(),
            succeeded: Counter::default(),
            failed: Counter::default(),
            cancelled: Counter::default(),
            create: LaneMetrics::default(),
            finish: LaneMetrics::default(),
            takeovers: Counter::default(),
            retention_failed: Counter::default(),
            spans: SpanMetrics::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_counts_below_it() {
        let rows = Histogram::new(Unit::Rows);
        for value in [1, 2, 3, 250, 251] {
            rows.record(value);
        }
        let (below, all) = rows.cumulative();
        assert_eq!(below[..3], [(1.0, 1), (2.0, 2), (5.0, 3)]);
        assert_eq!((below.last(), all), (Some(&(250.0, 4)), 5));
        assert_eq!((rows.count(), rows.sum()), (5, 507.0));
    }

    #[test]
    fn the_longest_time_is_still_counted() {
        let times = Histogram::new(Unit::Seconds);
        times.observe(Duration::MAX);
        times.observe(Duration::from_micros(500));
        let (below, all) = times.cumulative();
        assert_eq!((below[0], all), ((0.0005, 1), 2));
    }

    #[test]
    fn a_lane_stands_when_batch_after_batch_brings_nothing_through() {
        let lane = LaneMetrics::default();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let stalled = |seconds: i64| lane.stalled(at(seconds)).as_secs();
        lane.begin(at(10));
        assert_eq!(stalled(17), 7, "one that is underway for long");
        lane.end(false);
        assert_eq!(stalled(18), 0, "a single row that is locked is not the lane");
        lane.begin(at(19));
        lane.end(false);
        assert_eq!(stalled(20), 10);
        lane.begin(at(21));
        lane.go_on(at(22));
        assert_eq!(stalled(23), 1);
        lane.end(true);
        assert_eq!(stalled(30), 0);
    }
}
