//! Queues as the database has them: which actions have queued runs, and how many.

use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::id::TenantId;
use helve_domain::run::Priority;
use uuid::Uuid;

use super::Pool;
use super::statement::statement;

type SqlUuid = diesel::sql_types::Uuid;

statement! {
    /// Actions with queued runs.
    Waiting("sql/queue/waiting.sql") {
        "1" => from: Uuid as SqlUuid,
        "2" => to: Uuid as SqlUuid,
        "3" => limit: i64 as BigInt,
    }
}

statement! {
    /// How much waits for each of these actions.
    Depths("sql/queue/depths.sql") {
        "1" => tenants: Vec<Uuid> as Array<SqlUuid>,
        "2" => actions: Vec<String> as Array<Text>,
        "3" => class: i64 as BigInt,
        "4" => limit: i64 as BigInt,
    }
}

#[derive(QueryableByName)]
struct WaitingRow {
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = Text)]
    action: String,
}

#[derive(QueryableByName)]
struct DepthRow {
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = Text)]
    action: String,
    #[diesel(sql_type = BigInt)]
    queued: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    oldest: Option<i64>,
}

/// What waits for one action of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// Whose.
    pub tenant: TenantId,
    /// The action.
    pub action: String,
    /// Queued runs, counted up to a limit.
    pub queued: usize,
    /// Since when the one that waits longest of those could have started.
    pub oldest: Option<Timestamp>,
}

/// Actions with queued runs, of one tenant or of all, at most `limit` of them, by tenant and name.
///
/// # Errors
/// `Unavailable`.
pub async fn waiting(pool: &Pool, tenant: Option<TenantId>, limit: i64) -> Result<Vec<(TenantId, String)>> {
    let (from, to) = tenant.map_or((Uuid::nil(), Uuid::max()), |t| (t.uuid(), t.uuid()));
    let rows = pool.long().load::<WaitingRow, _>(Waiting { from, to, limit }).await?;
    Ok(rows.into_iter().map(|row| (TenantId::from_uuid(row.tenant), row.action)).collect())
}

/// How much waits for these actions, each counted up to `limit`.
///
/// # Errors
/// `Unavailable`.
pub async fn depths(pool: &Pool, of: &[(TenantId, String)], limit: i64) -> Result<Vec<Depth>> {
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let (tenants, actions) = of.iter().map(|(tenant, action)| (tenant.uuid(), action.clone())).unzip();
    let statement = Depths { tenants, actions, class: Priority::CLASS_MICROS, limit };
    let rows = pool.long().load::<DepthRow, _>(statement).await?;
    let depth = |row: DepthRow| Depth {
        tenant: TenantId::from_uuid(row.tenant),
        action: row.action,
        queued: usize::try_from(row.queued).unwrap_or(0),
        oldest: row.oldest.map(Timestamp::from_micros),
    };
    Ok(rows.into_iter().map(depth).collect())
}
