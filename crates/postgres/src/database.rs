//! Settings of a connection.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use helve_domain::secret::Secret;

use crate::target;

/// Where PostgreSQL is and how it is used.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Database {
    /// A `postgres://` URL, with `sslmode` up to `verify-full`.
    #[serde(serialize_with = "without_password")]
    pub url: Secret,
    /// Connections for reads and everything that is not a lane. Lanes and the lease have their own.
    pub pool_size: u32,
    /// The longest that a read may take.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub statement_timeout: Duration,
    /// The schema of Helve's tables, once it is known. Clones share it.
    #[serde(skip)]
    pub home: Home,
    /// Whether it can be reached. Clones share it.
    #[serde(skip)]
    pub reach: Reach,
}

impl Database {
    /// The database at `url` with every default.
    pub fn at(url: impl Into<String>) -> Self {
        let statement_timeout = Duration::from_secs(10);
        Self { url: Secret::new(url), pool_size: 8, statement_timeout, home: Home::default(), reach: Reach::default() }
    }
}

/// Whether connections can be opened. Everything that needs one notices an outage by itself; the log has one line when it
/// begins and one when it is over, whoever was first.
#[derive(Debug, Clone, Default)]
pub struct Reach(Arc<Mutex<Option<Outage>>>);

/// A time without connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When the first one could not be opened.
    since: Instant,
    /// How many could not be.
    pub failed: u64,
}

impl Reach {
    fn lock(&self) -> MutexGuard<'_, Option<Outage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection could not be opened. True: it is the first one.
    pub fn lost(&self, now: Instant) -> bool {
        let mut outage = self.lock();
        let is_first = outage.is_none();
        outage.get_or_insert(Outage { since: now, failed: 0 }).failed += 1;
        is_first
    }

    /// A connection is open. What is over now, and how long it lasted.
    pub fn found(&self, now: Instant) -> Option<(Duration, Outage)> {
        let outage = self.lock().take()?;
        Some((now.saturating_duration_since(outage.since), outage))
    }

    /// Whether the last one could not be opened.
    pub fn is_lost(&self) -> bool {
        self.lock().is_some()
    }
}

fn without_password<S: serde::Serializer>(url: &Secret, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&target::shown(url.reveal()))
}

/// A schema that is determined once: the first connection finds it, and every later one uses it, whatever schemas and
/// settings of roles have appeared in between.
#[derive(Debug, Clone, Default)]
pub struct Home(Arc<OnceLock<String>>);

impl Home {
    /// Which schema, if that is known.
    pub fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Decides, and returns the decision, which is another caller's if that one was earlier.
    pub fn decide(&self, schema: String) -> &str {
        self.0.get_or_init(|| schema)
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Clock;

    use super::*;

    #[test]
    fn an_outage_begins_once_and_is_over_once() {
        let (reach, now) = (Reach::default(), Clock::system().instant());
        assert_eq!(reach.found(now), None);
        let others = reach.clone();
        assert!(reach.lost(now) && !others.lost(now + Duration::from_secs(1)) && others.is_lost());
        let (lasted, outage) = others.found(now + Duration::from_secs(3)).unwrap();
        assert_eq!((lasted, outage.failed), (Duration::from_secs(3), 2));
        assert_eq!(reach.found(now), None);
        assert!(reach.lost(now), "the next one is a line of its own");
    }
}
