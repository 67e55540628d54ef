//! Pauses: what may not start, who said so and why, until when; and the gentle start afterwards.

use std::sync::Arc;
use std::time::Duration;

use crate::bucket;
use crate::clock::Timestamp;
use crate::id::{TenantId, TokenId, WorkerId};

/// What can be paused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Every run of a workflow, whatever its version.
    Workflow(Arc<str>),
    /// Everything that needs this action.
    Action(Arc<str>),
    /// A worker: it gets nothing new.
    Worker(WorkerId),
}

impl Target {
    /// Its kind in the interface.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Workflow(_) => "workflow",
            Self::Action(_) => "action",
            Self::Worker(_) => "worker",
        }
    }

    /// Its kind in the rows.
    pub const fn number(&self) -> i16 {
        match self {
            Self::Workflow(_) => 0,
            Self::Action(_) => 1,
            Self::Worker(_) => 2,
        }
    }

    /// Its name, or the worker's id.
    pub fn name(&self) -> String {
        match self {
            Self::Workflow(name) | Self::Action(name) => name.to_string(),
            Self::Worker(id) => id.to_string(),
        }
    }

    /// From a row.
    pub fn from_row(number: i16, name: &str) -> Option<Self> {
        match number {
            0 => Some(Self::Workflow(name.into())),
            1 => Some(Self::Action(name.into())),
            2 => name.parse().ok().map(Self::Worker),
            _ => None,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}`", self.kind(), self.name())
    }
}

/// A pause, or the gentle start after one.
#[derive(Debug, Clone, PartialEq)]
pub struct Pause {
    /// Why.
    pub reason: Arc<str>,
    /// Whose token asked for it.
    pub by: TokenId,
    /// What that token was called.
    pub by_name: Arc<str>,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// It is over, and the backlog goes gently.
    pub resumed: Option<Resumed>,
}

/// A gentle start: at most so many starts a second until nothing waits any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// Starts per second.
    pub rate: f64,
    /// Since when.
    pub at: Timestamp,
    /// The actions that runs of a paused workflow may need; empty for an action and a worker.
    pub actions: Vec<Arc<str>>,
}

/// A target with its pause.
#[derive(Debug, Clone, PartialEq)]
pub struct Paused {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub target: Target,
    /// How.
    pub pause: Pause,
}

/// The lowest and the highest rate of a gentle start.
pub const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;
/// Bytes of a reason.
pub const REASON_BYTES: usize = 1_024;
/// Pauses that one tenant may have at once.
pub const MAX_PAUSES: usize = 1_000;

/// Tokens of a gentle start: one for each run that starts. It fills with the rate, up to a tenth of a second's worth
/// and at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket(bucket::Bucket<Timestamp>);

impl Bucket {
    /// With one token: the first run goes at once.
    pub const fn new(rate: f64, now: Timestamp) -> Self {
        Self(bucket::Bucket::full(rate, (rate / 10.0).max(1.0), now).holding(1.0))
    }

    /// Adds what has come since the last look.
    pub fn refill(&mut self, now: Timestamp) {
        self.0.refill(now);
    }

    /// Whether a run may start.
    pub const fn has_token(&self) -> bool {
        self.0.has(1.0)
    }

    /// Whether it is as full as it gets: nothing has taken a token for a while.
    pub const fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// A run starts.
    pub const fn take(&mut self) {
        self.0.take(1.0);
    }

    /// How long until there is a token, or until it is full if there is one.
    pub fn wait(&self) -> Duration {
        if self.has_token() { self.0.wait_until_full() } else { self.0.wait_for(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_a_tenth_of_a_second_more() {
        for rate in [0.5, 3.0, 250.0] {
            let mut now = Timestamp::from_micros(1_000_000);
            let (start, mut bucket, mut starts) = (now, Bucket::new(rate, now), 0_u32);
            while now.since(start) < Duration::from_secs(10) {
                bucket.refill(now);
                while bucket.has_token() {
                    bucket.take();
                    starts += 1;
                }
                now = now.plus(bucket.wait().max(Duration::from_millis(10)));
            }
            let most = rate * 10.0 + (rate / 10.0).max(1.0);
            assert!(f64::from(starts) <= most && f64::from(starts) >= rate * 9.5, "{starts} at {rate}/s");
        }
    }

    #[test]
    fn a_target_survives_its_row() {
        let worker = WorkerId::generate(Timestamp::from_micros(1));
        for target in [Target::Workflow("w".into()), Target::Action("a/b".into()), Target::Worker(worker)] {
            assert_eq!(Target::from_row(target.number(), &target.name()), Some(target));
        }
        assert_eq!(Target::from_row(2, "not an id"), None);
    }
}
