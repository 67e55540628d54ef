//! What the readers of a tenant's stream missed while nobody kept it for them.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bool, Integer, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::id::{EventId, RunId, TenantId};
use helve_domain::live::{Change, Changed};
use helve_domain::status::RunStatus;
use uuid::Uuid;

use super::Pool;
use super::statement::statement;

statement! {
    /// What was made since a time.
    Since("sql/live/since.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => since: DateTime<Utc> as Timestamptz,
        "3" => limit: i64 as BigInt,
    }
}

statement! {
    /// What was made shortly before a time, and may have been committed after it.
    Late("sql/live/late.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => from: DateTime<Utc> as Timestamptz,
        "3" => until: DateTime<Utc> as Timestamptz,
        "4" => limit: i64 as BigInt,
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Bool)]
    is_event: bool,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Array<SqlUuid>)]
    runs: Vec<Uuid>,
}

/// At most `limit` events and runs of a tenant that were made at this time or later, oldest first. The time of each is
/// that of its creation; a run has the state that it has now.
///
/// # Errors
/// `Unavailable`.
pub async fn since(pool: &Pool, tenant: TenantId, since: Timestamp, limit: usize) -> Result<Vec<Change>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<Row> = pool.load(Since { tenant: tenant.uuid(), since: since.to_utc(), limit }).await?;
    Ok(changes(tenant, rows))
}

/// At most `limit` events and runs of a tenant that were made from one time on and before another, the last of them,
/// oldest first.
///
/// # Errors
/// `Unavailable`.
pub async fn late(
    pool: &Pool,
    tenant: TenantId,
    from: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Change>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ask = Late { tenant: tenant.uuid(), from: from.to_utc(), until: until.to_utc(), limit };
    let mut rows: Vec<Row> = pool.load(ask).await?;
    rows.reverse();
    Ok(changes(tenant, rows))
}

fn changes(tenant: TenantId, rows: Vec<Row>) -> Vec<Change> {
    let change = |row: Row| {
        let what = if row.is_event {
            let runs = row.runs.into_iter().map(RunId::from_uuid).collect();
            Changed::Event { event: EventId::from_uuid(row.id), key: row.name.into(), runs }
        } else {
            let (run, status) = (RunId::from_uuid(row.id), RunStatus::from_number(row.state)?);
            Changed::Run { run, workflow: row.name.into(), status, attempt: row.attempt, reason: None }
        };
        Some(Change { tenant, at: row.created_at.into(), what })
    };
    rows.into_iter().filter_map(change).collect()
}
