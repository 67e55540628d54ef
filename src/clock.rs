//! The engine's time: wall-clock timestamps that never step, and a monotonic clock for leases.
#![expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};

/// Microseconds since the Unix epoch, UTC. The resolution of PostgreSQL's `timestamptz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This time moved forward; saturates at the ends of time.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This time moved back; saturates at the ends of time.
    #[must_use]
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long from `earlier` to this time; zero when it lies after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same instant for the database and for JSON.
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(t: DateTime<Utc>) -> Self {
        Self(t.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds, as in every JSON document of the interface.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: it stands in every answer, several times.
        use chrono::{Datelike, Timelike};
        let t = self.to_utc();
        let (year, month, day) = (t.year(), t.month(), t.day());
        let (hour, minute, second) = (t.hour(), t.minute(), t.second());
        let micros = t.nanosecond() / 1_000;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Source of time. Cheap to clone; a test may hold one that it moves by hand.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

enum Source {
    /// The wall clock read once, then carried on by the monotonic clock: a step of the machine's
    /// clock neither doubles nor skips a timer.
    System { wall: i64, base: Instant },
    /// Moved by hand in tests.
    Manual(AtomicI64),
}

impl Clock {
    /// The machine's time.
    pub fn system() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(Source::System {
            wall: i64::try_from(wall.as_micros()).unwrap_or(i64::MAX),
            base: Instant::now(),
        }))
    }

    /// A clock that stands at `at` until [`Clock::advance`].
    pub fn manual(at: Timestamp) -> Self {
        Self(Arc::new(Source::Manual(AtomicI64::new(at.0))))
    }

    /// Moves a manual clock forward; does nothing to the system's.
    pub fn advance(&self, d: Duration) {
        if let Source::Manual(at) = &*self.0 {
            at.fetch_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System { wall, base } => Timestamp(*wall).plus(base.elapsed()),
            Source::Manual(at) => Timestamp(at.load(Ordering::SeqCst)),
        }
    }

    /// The monotonic clock, for intervals inside the process.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_microseconds_and_read_back() {
        let t = Timestamp::from_micros(1_700_000_000_000_042);
        assert_eq!(t.to_string(), "2023-11-14T22:13:20.000042Z");
        let back: DateTime<Utc> = t.to_string().parse().unwrap();
        assert_eq!(Timestamp::from(back), t);
    }
}
