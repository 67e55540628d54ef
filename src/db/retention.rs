//! How long finished runs are kept by tenant and workflow, and deleting those that are older.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::id::{RunId, TenantId};
use helve_domain::json::Payload;
use uuid::Uuid;

use super::Pool;
use super::failure::{map_error, map_write_error};
use super::statement::statement;

/// What a tenant or one of its workflows says.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Whose runs.
    pub tenant: TenantId,
    /// For workflows that say nothing.
    pub default: Option<Duration>,
    /// A workflow that may say something, with its definition.
    pub workflow: Option<(String, Payload)>,
}

/// A finished run, as far as its age needs it.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its id.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

statement! {
    /// What tenants and workflows say.
    Rules("sql/retention/rules.sql") {
        "1" => shards: Vec<i16> as Array<SmallInt>,
    }
}

statement! {
    /// A piece of a tenant's history.
    PageOf("sql/retention/page.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => after: DateTime<Utc> as Timestamptz,
        "3" => run: Uuid as SqlUuid,
        "4" => before: DateTime<Utc> as Timestamptz,
        "5" => limit: i64 as BigInt,
    }
}

statement! {
    /// Deletes runs.
    Delete("sql/retention/delete.sql") {
        "1" => runs: Vec<Uuid> as Array<SqlUuid>,
        "2" => tenant: Uuid as SqlUuid,
        "3" => first_end: DateTime<Utc> as Timestamptz,
        "4" => last_end: DateTime<Utc> as Timestamptz,
        "5" => first: Uuid as SqlUuid,
        "6" => last: Uuid as SqlUuid,
        "7" => first_start: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// What a tenant says.
    OfTenant("sql/retention/of_tenant.sql") {
        "1" => tenant: Uuid as SqlUuid,
    }
}

statement! {
    /// Changes what a tenant says.
    Set("sql/retention/set.sql") {
        "1" => name: String as Text,
        "2" => retention: Option<i64> as Nullable<BigInt>,
    }
}

#[derive(QueryableByName)]
struct RuleRow {
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = Nullable<BigInt>)]
    retention: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    workflow: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    definition: Option<Vec<u8>>,
}

#[derive(QueryableByName)]
struct FinishedRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    workflow: String,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    finished_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct TenantRow {
    #[diesel(sql_type = Nullable<BigInt>)]
    retention: Option<i64>,
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

pub(in crate::db) fn span(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// What the tenants of these shards and their workflows say; nothing for those that say nothing.
///
/// # Errors
/// `Unavailable`.
pub async fn rules(pool: &Pool, shards: Vec<i16>) -> Result<Vec<Rule>> {
    let rule = |row: RuleRow| Rule {
        tenant: TenantId::from_uuid(row.tenant),
        default: row.retention.map(span),
        workflow: row.workflow.zip(row.definition.map(|bytes| Payload::trusted(Bytes::from(bytes)))),
    };
    Ok(pool.load::<RuleRow, _>(Rules { shards }).await?.into_iter().map(rule).collect())
}

/// Finished runs of a tenant that were created before a time, in the order of their creation, behind a place.
///
/// # Errors
/// `Unavailable`.
pub async fn page(
    pool: &Pool,
    tenant: TenantId,
    after: (Timestamp, RunId),
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Finished>> {
    let page = PageOf {
        tenant: tenant.uuid(),
        after: after.0.to_utc(),
        run: after.1.uuid(),
        before: before.to_utc(),
        limit: i64::try_from(limit).unwrap_or(i64::MAX),
    };
    let finished = |row: FinishedRow| Finished {
        run: RunId::from_uuid(row.id),
        workflow: row.workflow,
        created_at: row.created_at.into(),
        finished_at: row.finished_at.into(),
    };
    Ok(pool.load::<FinishedRow, _>(page).await?.into_iter().map(finished).collect())
}

/// Deletes finished runs with their payloads and transitions. Gives how many there still were. It waits for a lock no
/// longer than a moment: whoever drops a whole week goes first.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost. Safe to repeat.
pub async fn delete(pool: &Pool, tenant: TenantId, runs: &[&Finished]) -> Result<i64> {
    let ids = || runs.iter().map(|run| run.run.uuid());
    let ends = || runs.iter().map(|run| run.finished_at);
    let (Some(first), Some(last), Some(first_end), Some(last_end)) =
        (ids().min(), ids().max(), ends().min(), ends().max())
    else {
        return Ok(0);
    };
    let delete = Delete {
        runs: ids().collect(),
        tenant: tenant.uuid(),
        first_end: first_end.to_utc(),
        last_end: last_end.to_utc(),
        first,
        last,
        first_start: RunId::from_uuid(first).created_at().to_utc(),
    };
    let mut conn = pool.get().await?;
    conn.batch_execute("set lock_timeout = '500ms'").await.map_err(map_error)?;
    let gone: QueryResult<Vec<Count>> = delete.load(&mut *conn).await;
    // Others of the pool wait as they did.
    let reset = conn.batch_execute("set lock_timeout = 0").await;
    let gone = gone.map_err(map_write_error)?;
    reset.map_err(map_error)?;
    Ok(gone.into_iter().next().map_or(0, |row| row.n))
}

/// What a tenant says.
///
/// # Errors
/// `Unavailable`.
pub async fn of_tenant(pool: &Pool, tenant: TenantId) -> Result<Option<Duration>> {
    let rows: Vec<TenantRow> = pool.load(OfTenant { tenant: tenant.uuid() }).await?;
    Ok(rows.into_iter().next().and_then(|row| row.retention).map(span))
}

/// Changes what the tenant called `name` says; `None` when there is none.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost. Safe to repeat.
pub async fn set(pool: &Pool, name: &str, keep: Option<Duration>) -> Result<Option<TenantId>> {
    let retention = keep.map(|keep| i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
    let mut conn = pool.get().await?;
    let rows: Vec<IdRow> = Set { name: name.to_owned(), retention }.load(&mut *conn).await.map_err(map_write_error)?;
    Ok(rows.into_iter().next().map(|row| TenantId::from_uuid(row.id)))
}
