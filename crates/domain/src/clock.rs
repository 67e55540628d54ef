//! The engine's time: wall-clock timestamps that never step, and a monotonic clock for leases.
#![expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

impl<'de> serde::Deserialize<'de> for Timestamp {
    /// Reads back what was written.
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(time.to_utc().into())
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
    /// The monotonic clock, led gently towards the machine's wall clock: a step of that one neither doubles nor
    /// skips a timer.
    System(Machine),
    /// Moved by hand in tests.
    Manual(AtomicI64),
}

/// The clocks of the machine.
struct Machine {
    base: Instant,
    course: Mutex<Course>,
    /// How wrong a test makes the wall clock, in microseconds.
    wrong: AtomicI64,
}

/// How often the course is compared with the wall clock, in microseconds.
const LOOK: i64 = 1_000_000;
/// The most that one look corrects: one part in a hundred, so that a timer is never off by more than that.
const MOST: i64 = LOOK / 100;
/// An error of the wall clock that an operator should hear of, in microseconds.
const STEPPED: i64 = 5_000_000;

/// The engine's time as a line over the monotonic clock. It never goes back, whatever the wall clock does.
#[derive(Debug, Clone, Copy)]
struct Course {
    /// Monotonic time of the last look, and the engine's time then.
    from: i64,
    time: i64,
    /// What is gained until the next look, evenly.
    gain: i64,
}

impl Course {
    const fn at(&self, mono: i64) -> i64 {
        let passed = mono.saturating_sub(self.from);
        let looked = if passed < LOOK { passed } else { LOOK };
        self.time.saturating_add(passed).saturating_add(looked * self.gain / LOOK)
    }

    /// Sets the course anew from this point on; gives how far the wall clock is ahead.
    fn look(&mut self, mono: i64, wall: i64) -> i64 {
        self.time = self.at(mono);
        self.from = mono;
        let ahead = wall.saturating_sub(self.time);
        self.gain = ahead.clamp(-MOST, MOST);
        ahead
    }
}

impl Machine {
    fn new(wrong: i64) -> Self {
        let course = Course { from: 0, time: wall().saturating_add(wrong), gain: 0 };
        Self { base: Instant::now(), course: Mutex::new(course), wrong: AtomicI64::new(wrong) }
    }

    fn now(&self) -> i64 {
        let (time, before, ahead) = {
            let mut course = self.course.lock().unwrap_or_else(PoisonError::into_inner);
            // Under the lock: times that are given out must not pass each other.
            let mono = i64::try_from(self.base.elapsed().as_micros()).unwrap_or(i64::MAX);
            if mono - course.from < LOOK {
                return course.at(mono);
            }
            let before = course.gain;
            let ahead = course.look(mono, wall().saturating_add(self.wrong.load(Ordering::Relaxed)));
            (course.time, before, ahead)
        };
        if ahead.abs() >= STEPPED && before.abs() < MOST {
            tracing::warn!(
                seconds = ahead / 1_000_000,
                "the machine's clock was set: the engine follows it by 1 %, or at once when it is started again"
            );
        }
        time
    }
}

fn wall() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_micros()).unwrap_or(i64::MAX)
}

impl Clock {
    /// The machine's time.
    pub fn system() -> Self {
        Self::wrong_by(0)
    }

    /// The time of a machine whose wall clock is ahead by so many microseconds: for tests.
    pub fn wrong_by(micros: i64) -> Self {
        Self(Arc::new(Source::System(Machine::new(micros))))
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

    /// Steps what the system's clock takes for the machine's wall clock, as an operator or NTP would: for tests.
    pub fn step(&self, micros: i64) {
        if let Source::System(machine) = &*self.0 {
            machine.wrong.fetch_add(micros, Ordering::SeqCst);
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System(machine) => Timestamp(machine.now()),
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

    const MINUTES: i64 = 10 * 60 * 1_000_000;

    /// Plays a wall clock that is ahead by what `ahead` says at each moment; gives the engine's times.
    fn play(steps: i64, every: i64, ahead: impl Fn(i64) -> i64) -> Vec<(i64, i64)> {
        let mut course = Course { from: 0, time: 0, gain: 0 };
        let mut times = Vec::new();
        for mono in (0..steps).map(|n| n * every) {
            if mono - course.from >= LOOK {
                course.look(mono, mono + ahead(mono));
            }
            times.push((mono, course.at(mono)));
        }
        times
    }

    #[test]
    fn a_step_of_ten_minutes_changes_an_interval_by_one_part_in_a_hundred() {
        for step in [-MINUTES, MINUTES] {
            // Seen often, and seldom: a process may be asked for the time once in a while only.
            for every in [333, 70_001, 1_000_000, 2_500_000] {
                let times = play(400, every, |mono| if mono > every * 100 { step } else { 0 });
                for (from, to) in times.iter().zip(&times[1..]) {
                    let (real, told) = (to.0 - from.0, to.1 - from.1);
                    assert!(told >= 0, "time went back by {told} at {}", to.0);
                    assert!((told - real).abs() <= real / 100 + 1, "{real} became {told} with a step of {step}");
                }
            }
        }
    }

    #[test]
    fn the_wall_clock_is_caught_up_with_and_not_overshot() {
        for step in [-3_000_000, 250, 3_000_000] {
            let (mono, time) = *play(400, LOOK, |mono| if mono > 0 { step } else { 0 }).last().unwrap();
            assert_eq!(time - mono, step);
        }
    }

    #[test]
    fn a_process_that_slept_does_not_jump() {
        let mut course = Course { from: 0, time: 0, gain: 0 };
        course.look(LOOK, LOOK + MINUTES);
        let hour = 3_600 * LOOK;
        assert_eq!(course.at(hour), hour + MOST, "one look corrects no more than its part");
    }

    #[test]
    fn a_step_reaches_the_clock_that_is_asked() {
        let clock = Clock::wrong_by(MINUTES);
        let ahead = clock.now().since(Clock::system().now());
        assert!(ahead > Duration::from_secs(590), "{ahead:?}");
        let before = clock.now();
        clock.step(-2 * MINUTES);
        assert!(clock.now() >= before && clock.now().since(before) < Duration::from_secs(60));
    }
}
