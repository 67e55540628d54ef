//! Logs and progress of runs, and what was unusual in their lives.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::pg::Pg;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Binary, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::AsyncPgConnection;
use diesel_async::methods::LoadQuery;
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use helve_domain::id::{RunId, TenantId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::live::{LogLevel, LogLine};
use helve_domain::run::Losses;
use helve_domain::status::RunStatus;
use uuid::Uuid;

use super::failure::map_error;
use super::statement::statement;
use super::{Pool, partitions};

statement! {
    /// What is stored of some runs.
    Heads("sql/live/heads.sql") {
        "1" => runs: Vec<Uuid> as Array<SqlUuid>,
    }
}

statement! {
    /// Lines to store.
    Append("sql/live/append.sql") {
        "1" => runs: Vec<Uuid> as Array<SqlUuid>,
        "2" => tenants: Vec<Uuid> as Array<SqlUuid>,
        "3" => expected: Vec<i64> as Array<BigInt>,
        "4" => lines: Vec<i64> as Array<BigInt>,
        "5" => bytes: Vec<i64> as Array<BigInt>,
        "6" => dropped: Vec<i64> as Array<BigInt>,
        "7" => line_runs: Vec<Uuid> as Array<SqlUuid>,
        "8" => places: Vec<i64> as Array<BigInt>,
        "9" => attempts: Vec<i32> as Array<Integer>,
        "10" => levels: Vec<i16> as Array<SmallInt>,
        "11" => times: Vec<DateTime<Utc>> as Array<Timestamptz>,
        "12" => messages: Vec<String> as Array<Text>,
    }
}

statement! {
    /// Progress to keep.
    PutProgress("sql/live/progress.sql") {
        "1" => runs: Vec<Uuid> as Array<SqlUuid>,
        "2" => tenants: Vec<Uuid> as Array<SqlUuid>,
        "3" => progress: Vec<Vec<u8>> as Array<Binary>,
    }
}

statement! {
    /// A page of one run's log.
    LogPage("sql/live/log.sql") {
        "1" => run: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
        "3" => from: i64 as BigInt,
        "4" => limit: i64 as BigInt,
        "5" => level: i16 as SmallInt,
    }
}

statement! {
    /// The counts of one run's log.
    LogCounts("sql/live/counts.sql") {
        "1" => run: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
        "3" => created_at: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// The unusual transitions of one run.
    Transitions("sql/live/transitions.sql") {
        "1" => run: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
        "3" => created_at: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// The last loss of one run.
    Loss("sql/live/loss.sql") {
        "1" => run: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
        "3" => created_at: DateTime<Utc> as Timestamptz,
    }
}

#[derive(QueryableByName)]
struct LossRow {
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    worker: Option<Uuid>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = BigInt)]
    times: i64,
}

#[derive(QueryableByName)]
struct RunRow {
    #[diesel(sql_type = SqlUuid)]
    run: Uuid,
}

#[derive(QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = SqlUuid)]
    run: Uuid,
    #[diesel(sql_type = BigInt)]
    lines: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

#[derive(QueryableByName)]
struct CountsRow {
    #[diesel(sql_type = BigInt)]
    lines: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = BigInt)]
    dropped: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    progress: Option<Vec<u8>>,
}

#[derive(QueryableByName)]
struct LineRow {
    #[diesel(sql_type = BigInt)]
    place: i64,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = SmallInt)]
    level: i16,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    message: String,
}

#[derive(QueryableByName)]
struct TransitionRow {
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    reason: String,
}

/// What is stored of a run's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Lines: the place of the next one.
    pub lines: i64,
    /// Bytes of their messages.
    pub bytes: i64,
}

/// New lines of one run.
#[derive(Debug, Clone)]
pub struct NewLines {
    /// Which.
    pub run: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// The place of the first line: they are written only if the log ends before it.
    pub first: i64,
    /// Each with its attempt.
    pub lines: Vec<(i32, LogLine)>,
    /// Lines to count that are not stored.
    pub dropped: i64,
}

/// A stored line.
#[derive(Debug, Clone)]
pub struct StoredLine {
    /// Its place in the run's log, from 0 on.
    pub place: i64,
    /// Which attempt wrote it.
    pub attempt: i32,
    /// The line.
    pub line: LogLine,
}

/// The counts of a run's log.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Lines that are stored.
    pub lines: i64,
    /// Bytes of their messages.
    pub bytes: i64,
    /// Lines that were not stored, for whatever limit.
    pub dropped: i64,
    /// The last progress, as documents show it.
    pub progress: Option<Payload>,
}

/// Something unusual in the life of a run.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The attempt that it ended, or the last one before it.
    pub attempt: i32,
    /// The state that it came to; `None` for one that this engine does not know.
    pub status: Option<RunStatus>,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// What is stored of the logs of these runs; those without a log are absent.
///
/// # Errors
/// `Unavailable`.
pub async fn heads(pool: &Pool, runs: &[RunId]) -> Result<Vec<(RunId, Head)>> {
    let rows: Vec<HeadRow> = pool.load(Heads { runs: runs.iter().map(|r| r.uuid()).collect() }).await?;
    Ok(rows.into_iter().map(|r| (RunId::from_uuid(r.run), Head { lines: r.lines, bytes: r.bytes })).collect())
}

/// Stores lines, in one statement. Gives the runs whose log ended where it was expected to: only theirs are written.
/// Each run may be there once.
///
/// # Errors
/// `Unavailable`: then they may have been written all the same, and [`heads`] tells.
pub async fn append(pool: &Pool, batch: &[NewLines]) -> Result<Vec<RunId>> {
    let mut s = Append {
        runs: Vec::with_capacity(batch.len()),
        tenants: Vec::new(),
        expected: Vec::new(),
        lines: Vec::new(),
        bytes: Vec::new(),
        dropped: Vec::new(),
        line_runs: Vec::new(),
        places: Vec::new(),
        attempts: Vec::new(),
        levels: Vec::new(),
        times: Vec::new(),
        messages: Vec::new(),
    };
    for new in batch {
        s.runs.push(new.run.uuid());
        s.tenants.push(new.tenant.uuid());
        s.expected.push(new.first);
        s.lines.push(i64::try_from(new.lines.len()).unwrap_or(i64::MAX));
        s.bytes.push(new.lines.iter().map(|(_, l)| i64::try_from(l.message.len()).unwrap_or(0)).sum());
        s.dropped.push(new.dropped);
        for (place, (attempt, line)) in (new.first..).zip(&new.lines) {
            s.line_runs.push(new.run.uuid());
            s.places.push(place);
            s.attempts.push(*attempt);
            s.levels.push(line.level.number());
            s.times.push(line.at.to_utc());
            s.messages.push(line.message.clone());
        }
    }
    let oldest = batch.iter().map(|new| new.run).min();
    let rows: Vec<RunRow> = write(pool, s, oldest).await?;
    Ok(rows.into_iter().map(|r| RunId::from_uuid(r.run)).collect())
}

/// Writes; where a run is older than the weeks that were made for these tables, its week is made, and a try again is
/// the caller's.
async fn write<S>(pool: &Pool, statement: S, oldest: Option<RunId>) -> Result<Vec<RunRow>>
where
    S: Clone + Query + QueryFragment<Pg> + QueryId + LoadQuery<'static, AsyncPgConnection, RunRow> + Send + 'static,
{
    match (pool.try_load::<RunRow, _>(statement).await?, oldest) {
        (Err(e), Some(oldest)) if e.to_string().contains("no partition of relation") => {
            partitions::make_for(pool, [oldest.created_at()]).await?;
            Err(Error::unavailable("the week of a run was missing"))
        }
        (done, _) => done.map_err(map_error),
    }
}

/// Keeps the last progress of runs; each may be there once.
///
/// # Errors
/// `Unavailable`.
pub async fn put_progress(pool: &Pool, batch: &[(RunId, TenantId, Payload)]) -> Result<()> {
    let put = PutProgress {
        runs: batch.iter().map(|p| p.0.uuid()).collect(),
        tenants: batch.iter().map(|p| p.1.uuid()).collect(),
        progress: batch.iter().map(|p| p.2.bytes().to_vec()).collect(),
    };
    write(pool, put, batch.iter().map(|p| p.0).min()).await.map(drop)
}

/// At most `limit` lines of a run's log from a place on, of this level or above. None for another tenant's run.
///
/// # Errors
/// `Unavailable`.
pub async fn log(
    pool: &Pool,
    tenant: TenantId,
    run: RunId,
    from: i64,
    level: LogLevel,
    limit: usize,
) -> Result<Vec<StoredLine>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let page = LogPage { run: run.uuid(), tenant: tenant.uuid(), from, limit, level: level.number() };
    let rows: Vec<LineRow> = pool.load(page).await?;
    let line = |r: LineRow| StoredLine {
        place: r.place,
        attempt: r.attempt,
        line: LogLine { level: LogLevel::from_number(r.level), at: Timestamp::from(r.at), message: r.message },
    };
    Ok(rows.into_iter().map(line).collect())
}

/// What is counted of a run's log; `None` when the tenant has no such run.
///
/// # Errors
/// `Unavailable`.
pub async fn counts(pool: &Pool, tenant: TenantId, run: RunId) -> Result<Option<Counts>> {
    let ask = LogCounts { run: run.uuid(), tenant: tenant.uuid(), created_at: run.created_at().to_utc() };
    let row = pool.load::<CountsRow, _>(ask).await?.pop();
    Ok(row.map(|r| Counts {
        lines: r.lines,
        bytes: r.bytes,
        dropped: r.dropped,
        progress: r.progress.map(|bytes| Payload::trusted(Bytes::from(bytes))),
    }))
}

/// What was unusual in the life of a run.
///
/// # Errors
/// `Unavailable`.
pub async fn transitions(pool: &Pool, tenant: TenantId, run: RunId) -> Result<Vec<Transition>> {
    let ask = Transitions { run: run.uuid(), tenant: tenant.uuid(), created_at: run.created_at().to_utc() };
    let rows: Vec<TransitionRow> = pool.load(ask).await?;
    let transition = |r: TransitionRow| Transition {
        attempt: r.attempt,
        status: RunStatus::from_number(r.state),
        at: Timestamp::from(r.at),
        reason: r.reason,
    };
    Ok(rows.into_iter().map(transition).collect())
}

/// How a run lost its workers, if it ever did.
///
/// # Errors
/// `Unavailable`.
pub async fn losses(pool: &Pool, tenant: TenantId, run: RunId) -> Result<Option<Losses>> {
    let ask = Loss { run: run.uuid(), tenant: tenant.uuid(), created_at: run.created_at().to_utc() };
    let row = pool.load::<LossRow, _>(ask).await?.pop();
    Ok(row.map(|r| Losses {
        times: r.times,
        attempt: r.attempt,
        worker: r.worker.map(WorkerId::from_uuid),
        started_at: r.started_at.map(Timestamp::from),
        at: Timestamp::from(r.at),
        reason: r.reason,
    }))
}
