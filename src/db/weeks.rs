//! Weeks, by which history is cut into partitions.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveTime, Utc};
use uuid::Uuid;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What a partitioned table is cut by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::db) enum By {
    /// The time in a column.
    Time,
    /// The time in a UUIDv7.
    Id,
}

/// A week, from Monday 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::db) struct Week(DateTime<Utc>);

impl Week {
    /// The week of a time.
    pub fn of(at: DateTime<Utc>) -> Self {
        let monday = at.date_naive() - chrono::Days::new(u64::from(at.weekday().num_days_from_monday()));
        Self(monday.and_time(NaiveTime::MIN).and_utc())
    }

    /// The one after it.
    pub fn next(self) -> Self {
        Self(self.0 + WEEK)
    }

    /// The one before it.
    pub fn last(self) -> Self {
        Self(self.0 - WEEK)
    }

    /// When it begins.
    pub const fn start(self) -> DateTime<Utc> {
        self.0
    }

    /// When the next one begins.
    pub fn end(self) -> DateTime<Utc> {
        self.next().0
    }

    /// What its partition of `table` is called, the first that is free. A name is only a name: another application may
    /// have taken it.
    pub fn names(self, table: &str) -> Vec<String> {
        let day = self.0.format("%Y%m%d");
        let others = (1..10).map(|n| format!("{table}_{n}_{day}"));
        std::iter::once(format!("{table}_{day}")).chain(others).collect()
    }

    /// Its lower bound in a table that is cut in this way.
    pub fn bound(self, by: By) -> String {
        match by {
            By::Time => self.0.format("%Y-%m-%d 00:00:00+00").to_string(),
            By::Id => first_id(self.0).to_string(),
        }
    }
}

/// The smallest UUIDv7-ordered id of a time.
pub(in crate::db) fn first_id(at: DateTime<Utc>) -> Uuid {
    Uuid::from_u128(u128::try_from(at.timestamp_millis()).unwrap_or(0) << 80)
}

/// The time of a UUIDv7.
pub(in crate::db) fn time_of(id: Uuid) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(i64::try_from(id.as_u128() >> 80).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_monday_and_know_their_bounds() {
        let thursday = DateTime::parse_from_rfc3339("2026-11-26T13:14:15Z").unwrap().to_utc();
        let week = Week::of(thursday);
        assert_eq!(week.names("run_history")[..2], ["run_history_20261123", "run_history_1_20261123"]);
        assert_eq!(week.bound(By::Time), "2026-11-23 00:00:00+00");
        assert_eq!(week.next().names("payload")[0], "payload_20261130");
        assert_eq!(week.next().last(), week);
        let id = helve_domain::id::RunId::generate(helve_domain::clock::Timestamp::from(thursday)).uuid();
        assert!(first_id(week.start()) <= id && id < first_id(week.end()));
        assert_eq!(time_of(first_id(week.end())), Some(week.end()));
    }
}
