//! Bulk jobs: their rows and what became of each run.

mod rows;

use std::time::Duration;

use diesel_async::RunQueryDsl;
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use helve_domain::id::{JobId, NodeId, RunId, TenantId};
use helve_domain::job::{ItemOutcome, JobKind, JobRequest, JobStatus};
use uuid::Uuid;

use super::Pool;
use super::failure::map_write_error;
use super::page::Page;
use rows::{
    ByKey, Cancel, Claim, Expire, ExpireItems, Finish, Get, Insert, ItemRow, Items, KeyRow, List, MadeRow, Pending,
    Row, RunRow, Settle,
};

/// A job as it stands.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it does.
    pub kind: JobKind,
    /// Where it stands.
    pub status: JobStatus,
    /// What was asked for.
    pub request: JobRequest,
    /// When it was created: it finds only what was there by then.
    pub created_at: Timestamp,
    /// When the first engine took it.
    pub started_at: Option<Timestamp>,
    /// When nothing was left to do.
    pub finished_at: Option<Timestamp>,
    /// Runs that matched when it was created; in the end those that it decided.
    pub total: i64,
    /// Runs with this outcome.
    pub done: i64,
    /// Runs with this outcome.
    pub skipped: i64,
    /// Runs with this outcome.
    pub failed: i64,
    /// The last run that was picked.
    pub place: Option<RunId>,
}

/// What became of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub run: RunId,
    /// `None`: not decided yet.
    pub outcome: Option<ItemOutcome>,
    /// The run that a replay made.
    pub replay: Option<RunId>,
    /// Code and message of what stood in the way.
    pub error: Option<(String, String)>,
}

/// A key under which a job is created once.
#[derive(Debug, Clone)]
pub struct Key {
    /// The client's.
    pub key: String,
    /// SHA-256 of what it sent.
    pub body_hash: [u8; 32],
    /// Until when it holds.
    pub expires_at: Timestamp,
}

/// A job to create.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// What it does.
    pub kind: JobKind,
    /// To which runs.
    pub request: JobRequest,
    /// How many there are.
    pub total: i64,
    /// Now.
    pub created_at: Timestamp,
    /// Create once.
    pub key: Option<Key>,
}

/// What became of a new job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    New,
    /// Its key made this one before; whether of the same body.
    Existing(JobId, bool),
    /// The tenant has too many open ones.
    TooMany,
}

/// Which jobs a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobFilter {
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// In this state.
    pub status: Option<JobStatus>,
    /// Older than this one: the last of the page before.
    pub after: Option<JobId>,
}

/// Stores a job, unless its key was used or its tenant has `max` open ones.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost.
pub async fn insert(pool: &Pool, new: &NewJob, max: i64) -> Result<Inserted> {
    let request = serde_json::to_vec(&new.request).map_err(|e| Error::Internal(format!("a job's request: {e}")))?;
    let insert = Insert {
        id: new.id.uuid(),
        tenant: new.tenant.uuid(),
        shard: new.tenant.shard(),
        kind: new.kind.number(),
        request,
        now: new.created_at.to_utc(),
        total: new.total,
        key: new.key.as_ref().map(|key| key.key.clone()),
        body_hash: new.key.as_ref().map(|key| key.body_hash.to_vec()),
        expires_at: new.key.as_ref().map(|key| key.expires_at.to_utc()),
        max,
    };
    let rows: Vec<MadeRow> = pool.try_write(insert).await?.map_err(map_write_error)?;
    let MadeRow { made, room } = rows.into_iter().next().unwrap_or(MadeRow { made: false, room: false });
    let Some(key) = new.key.as_ref().filter(|_| !made) else {
        return Ok(if made { Inserted::New } else { Inserted::TooMany });
    };
    let by_key = ByKey { tenant: new.tenant.uuid(), key: key.key.clone() };
    match pool.load::<KeyRow, _>(by_key).await?.pop() {
        Some(row) => Ok(Inserted::Existing(JobId::from_uuid(row.target), row.body_hash == key.body_hash)),
        None if room => Err(Error::unavailable("the key of this job was changed meanwhile")),
        None => Ok(Inserted::TooMany),
    }
}

/// One job of the tenant.
///
/// # Errors
/// `Unavailable`.
pub async fn get(pool: &Pool, tenant: TenantId, id: JobId) -> Result<Option<Job>> {
    let row = pool.load::<Row, _>(Get { id: id.uuid(), tenant: tenant.uuid() }).await?.pop();
    row.map(Job::try_from).transpose()
}

/// At most `limit` jobs, newest first.
///
/// # Errors
/// `Unavailable`.
pub async fn list(pool: &Pool, tenant: TenantId, filter: JobFilter, limit: usize) -> Result<Page<Job>> {
    let list = List {
        tenant: tenant.uuid(),
        after: filter.after.map(JobId::uuid),
        kind: filter.kind.map(JobKind::number),
        state: filter.status.map(JobStatus::number),
        limit: i64::try_from(limit + 1).unwrap_or(i64::MAX),
    };
    let rows = pool.load::<Row, _>(list).await?;
    Ok(Page::cut(rows.into_iter().map(Job::try_from).collect::<Result<_>>()?, limit))
}

/// At most `limit` runs of a job behind `after`, in the order of their ids. The job must be the caller's.
///
/// # Errors
/// `Unavailable`.
pub async fn items(
    pool: &Pool,
    job: JobId,
    outcome: Option<ItemOutcome>,
    after: Option<RunId>,
    limit: usize,
) -> Result<Page<Item>> {
    let items = Items {
        job: job.uuid(),
        after: after.map_or(Uuid::nil(), RunId::uuid),
        outcome: outcome.map(ItemOutcome::number),
        limit: i64::try_from(limit + 1).unwrap_or(i64::MAX),
    };
    let item = |row: ItemRow| Item {
        run: RunId::from_uuid(row.run),
        outcome: row.outcome.and_then(ItemOutcome::from_number),
        replay: row.replay.map(RunId::from_uuid),
        error: row.code.zip(row.message),
    };
    Ok(Page::cut(pool.load::<ItemRow, _>(items).await?.into_iter().map(item).collect(), limit))
}

/// Ends an open job early; `None` when it is not open.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost. Safe to repeat.
pub async fn cancel(pool: &Pool, tenant: TenantId, id: JobId, now: Timestamp) -> Result<Option<Job>> {
    let cancel = Cancel { id: id.uuid(), tenant: tenant.uuid(), now: now.to_utc() };
    let rows: Vec<Row> = pool.try_write(cancel).await?.map_err(map_write_error)?;
    rows.into_iter().next().map(Job::try_from).transpose()
}

/// Takes the job of these shards that has waited longest, for `lease`.
///
/// # Errors
/// `Unavailable`; `OutcomeUnknown`: then the lease runs out.
pub async fn claim(
    pool: &Pool,
    node: NodeId,
    shards: Vec<i16>,
    lease: Duration,
    now: Timestamp,
) -> Result<Option<Job>> {
    let claim = Claim { node: node.uuid(), shards, lease: lease.as_secs_f64(), now: now.to_utc() };
    let mut conn = pool.get().await?;
    let rows: Vec<Row> = claim.load(&mut *conn).await.map_err(map_write_error)?;
    rows.into_iter().next().map(Job::try_from).transpose()
}

/// Runs that were picked and not decided.
///
/// # Errors
/// `Unavailable`.
pub async fn pending(pool: &Pool, job: JobId, limit: usize) -> Result<Vec<RunId>> {
    let pending = Pending { job: job.uuid(), limit: i64::try_from(limit).unwrap_or(i64::MAX) };
    let rows: Vec<RunRow> = pool.load(pending).await?;
    Ok(rows.into_iter().map(|row| RunId::from_uuid(row.run)).collect())
}

/// Stores outcomes, each once, and lets go of the job: nobody takes it before `rest` has passed.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost. Safe to repeat.
pub async fn settle(pool: &Pool, node: NodeId, job: JobId, items: &[Item], rest: Duration) -> Result<()> {
    let decided = || items.iter().filter_map(|item| item.outcome.map(|outcome| (item, outcome)));
    let settle = Settle {
        job: job.uuid(),
        runs: decided().map(|(item, _)| item.run.uuid()).collect(),
        outcomes: decided().map(|(_, outcome)| outcome.number()).collect(),
        replays: decided().map(|(item, _)| item.replay.map(RunId::uuid)).collect(),
        codes: decided().map(|(item, _)| item.error.as_ref().map(|e| e.0.clone())).collect(),
        messages: decided().map(|(item, _)| item.error.as_ref().map(|e| e.1.clone())).collect(),
        node: node.uuid(),
        rest: rest.as_secs_f64(),
    };
    let mut conn = pool.get().await?;
    settle.execute(&mut *conn).await.map(drop).map_err(map_write_error)
}

/// Ends a job of which nothing is left to do.
///
/// # Errors
/// As [`settle`].
pub async fn finish(pool: &Pool, job: JobId, now: Timestamp) -> Result<()> {
    let mut conn = pool.get().await?;
    let finish = Finish { job: job.uuid(), now: now.to_utc() };
    finish.execute(&mut *conn).await.map(drop).map_err(map_write_error)
}

/// Deletes some of what belongs to jobs that ended before a time. Gives whether there may be more.
///
/// # Errors
/// As [`settle`].
pub async fn expire(pool: &Pool, before: Timestamp) -> Result<bool> {
    const SOME: usize = 2_000;
    let mut conn = pool.get().await?;
    let limit = i64::try_from(SOME).unwrap_or(i64::MAX);
    let items = ExpireItems { before: before.to_utc(), limit };
    if items.execute(&mut *conn).await.map_err(map_write_error)? >= SOME {
        return Ok(true);
    }
    Expire { before: before.to_utc() }.execute(&mut *conn).await.map(|_| false).map_err(map_write_error)
}
