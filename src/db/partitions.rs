//! Weeks of history: made ahead, dropped whole when they are older than the retention.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, Bool, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::Pool;
use super::failure::map_error;
use crate::clock::Timestamp;
use crate::error::{Error, Result};

const DAY: Duration = Duration::from_secs(24 * 3_600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How far ahead weeks are made.
const AHEAD: Duration = Duration::from_secs(14 * 24 * 3_600);

/// What a partitioned table is cut by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The time in a column.
    Time,
    /// The time in a UUIDv7.
    Id,
}

const TABLES: [(&str, By); 6] = [
    ("run_history", By::Time),
    ("run_transition", By::Time),
    ("event", By::Id),
    ("payload", By::Id),
    ("run_live", By::Id),
    ("run_log", By::Id),
];

/// A week, from Monday 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Week(DateTime<Utc>);

impl Week {
    fn of(at: DateTime<Utc>) -> Self {
        let monday = at.date_naive() - chrono::Days::new(u64::from(at.weekday().num_days_from_monday()));
        Self(monday.and_time(NaiveTime::MIN).and_utc())
    }

    fn next(self) -> Self {
        Self(self.0 + WEEK)
    }

    fn name(self, table: &str) -> String {
        format!("{table}_{}", self.0.format("%Y%m%d"))
    }

    fn bound(self, by: By) -> String {
        match by {
            By::Time => self.0.format("%Y-%m-%d 00:00:00+00").to_string(),
            By::Id => first_id(self.0).to_string(),
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let day = name.rsplit('_').next()?;
        let date = chrono::NaiveDate::parse_from_str(day, "%Y%m%d").ok()?;
        Some(Self(date.and_time(NaiveTime::MIN).and_utc()))
    }
}

/// The smallest UUIDv7-ordered id of a time.
fn first_id(at: DateTime<Utc>) -> Uuid {
    Uuid::from_u128(u128::try_from(at.timestamp_millis()).unwrap_or(0) << 80)
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Flag {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

/// Makes the weeks around now that are missing. Must have succeeded once before a lane opens.
///
/// # Errors
/// `Unavailable`.
pub async fn make_ahead(pool: &Pool, now: Timestamp) -> Result<()> {
    let mut conn = pool.get().await?;
    let have = existing(&mut conn).await?;
    let (mut week, last) = (Week::of(now.minus(WEEK).to_utc()), Week::of(now.plus(AHEAD).to_utc()));
    while week <= last {
        for (table, by) in TABLES {
            let name = week.name(table);
            if have.contains(&name) {
                continue;
            }
            let (from, to) = (week.bound(by), week.next().bound(by));
            let sql = format!(
                "create table if not exists {name} partition of {table} for values from ('{from}') to ('{to}')"
            );
            ddl(&mut conn, &sql).await?;
            debug!(partition = name, "made a partition");
        }
        week = week.next();
    }
    Ok(())
}

async fn existing(conn: &mut AsyncPgConnection) -> Result<Vec<String>> {
    let sql = "select c.relname::text as name from pg_inherits i join pg_class c on c.oid = i.inhrelid \
        join pg_class p on p.oid = i.inhparent where p.relname = any($1) order by 1";
    let tables: Vec<&str> = TABLES.iter().map(|t| t.0).collect();
    let rows: Vec<Name> =
        diesel::sql_query(sql).bind::<Array<Text>, _>(tables).load(&mut *conn).await.map_err(map_error)?;
    Ok(rows.into_iter().map(|r| r.name).collect())
}

/// Runs one piece of DDL. Its lock must not queue up in front of the lanes: it waits 50 ms at most, and
/// tries again.
async fn ddl(conn: &mut AsyncPgConnection, sql: &str) -> Result<()> {
    let text = format!("set lock_timeout = '50ms'; {sql}; reset lock_timeout");
    for attempt in 1..=40_u64 {
        match conn.batch_execute(&text).await {
            Ok(()) => return Ok(()),
            Err(e) if e.to_string().contains("lock timeout") => {
                tokio::time::sleep(Duration::from_millis(25 * attempt)).await;
            }
            Err(e) => return Err(map_error(e)),
        }
    }
    Err(Error::unavailable("a partition could not be changed: its table is locked"))
}

/// Drops what is older than `keep`: whole weeks of history and traces, then events and payloads of weeks
/// that no run, open or kept, can refer to. Also expired create keys.
///
/// # Errors
/// `Unavailable`; what is left is dropped by the next pass.
pub async fn drop_old(pool: &Pool, now: Timestamp, keep: Duration) -> Result<()> {
    let mut conn = pool.get().await?;
    let cutoff = now.minus(keep).to_utc();
    for name in existing(&mut conn).await? {
        let Some(week) = Week::from_name(&name) else { continue };
        if week.next().0 > cutoff {
            continue;
        }
        let by_id = TABLES.iter().any(|(table, by)| *by == By::Id && name.starts_with(&format!("{table}_")));
        if by_id && is_referred(&mut conn, week).await? {
            continue;
        }
        // The parent is locked only as long as the detaching takes.
        ddl(&mut conn, &format!("drop table if exists {name}")).await?;
        info!(partition = name, "dropped a partition past its retention");
    }
    expire_keys(&mut conn, now).await
}

/// Whether a run made in this week or before is open or kept. A run of an event is made within moments of
/// the event: a day more is plenty.
async fn is_referred(conn: &mut AsyncPgConnection, week: Week) -> Result<bool> {
    let end = first_id(week.next().0 + DAY);
    let sql =
        "select exists (select from open_run where id < $1) or exists (select from run_history where id < $1) as yes";
    let rows: Vec<Flag> =
        diesel::sql_query(sql).bind::<diesel::sql_types::Uuid, _>(end).load(&mut *conn).await.map_err(map_error)?;
    Ok(rows.into_iter().next().is_none_or(|r| r.yes))
}

async fn expire_keys(conn: &mut AsyncPgConnection, now: Timestamp) -> Result<()> {
    let sql = "delete from idempotency where (tenant, scope, key) in ( \
        select tenant, scope, key from idempotency where expires_at <= $1 limit 5000 for update skip locked)";
    for _ in 0..200 {
        let gone =
            diesel::sql_query(sql).bind::<Timestamptz, _>(now.to_utc()).execute(&mut *conn).await.map_err(map_error)?;
        if gone < 5_000 {
            return Ok(());
        }
    }
    warn!("more create keys expire than one pass can delete");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_monday_and_know_their_names() {
        let thursday = DateTime::parse_from_rfc3339("2026-11-26T13:14:15Z").unwrap().to_utc();
        let week = Week::of(thursday);
        assert_eq!(week.name("run_history"), "run_history_20261123");
        assert_eq!(Week::from_name("run_history_20261123"), Some(week));
        assert_eq!(week.bound(By::Time), "2026-11-23 00:00:00+00");
        assert_eq!(week.next().name("payload"), "payload_20261130");
        let id = crate::id::RunId::generate(Timestamp::from(thursday)).uuid();
        assert!(first_id(week.0) <= id && id < first_id(week.next().0));
    }
}
