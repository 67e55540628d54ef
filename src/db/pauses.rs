//! Pauses: read for the scheduler and for people. Only the finish lane writes them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Double, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use helve_domain::change::PauseRow;
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use helve_domain::id::{TenantId, TokenId};
use helve_domain::pause::{Pause, Paused, Resumed, Target};
use uuid::Uuid;

use super::Pool;
use super::statement::statement;

statement! {
    /// Everything that is paused in these shards.
    OfShards("sql/scan/pauses.sql") {
        "1" => shards: Vec<i16> as Array<SmallInt>,
    }
}

statement! {
    /// What a tenant has paused.
    List("sql/pause_list.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => now: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// The actions of a workflow.
    Actions("sql/pause_actions.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => workflow: String as Text,
    }
}

statement! {
    /// A token's name.
    Name("sql/token_name.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => id: Uuid as SqlUuid,
    }
}

statement! {
    /// Writes a pause.
    Put("sql/lane/pause_put.sql") {
        "1" => node: Uuid as SqlUuid,
        "2" => epoch: i64 as BigInt,
        "3" => tenant: Uuid as SqlUuid,
        "4" => shard: i16 as SmallInt,
        "5" => kind: i16 as SmallInt,
        "6" => target: String as Text,
        "7" => reason: String as Text,
        "8" => by_token: Uuid as SqlUuid,
        "9" => by_name: String as Text,
        "10" => since: DateTime<Utc> as Timestamptz,
        "11" => expires_at: Option<DateTime<Utc>> as Nullable<Timestamptz>,
        "12" => rate: Option<f64> as Nullable<Double>,
        "13" => resumed_at: Option<DateTime<Utc>> as Nullable<Timestamptz>,
        "14" => actions: Vec<String> as Array<Text>,
    }
}

statement! {
    /// Removes a pause.
    Drop("sql/lane/pause_drop.sql") {
        "1" => node: Uuid as SqlUuid,
        "2" => epoch: i64 as BigInt,
        "3" => tenant: Uuid as SqlUuid,
        "4" => kind: i16 as SmallInt,
        "5" => target: String as Text,
    }
}

/// A pause as the reading statements return it.
#[derive(QueryableByName)]
pub(in crate::db) struct Row {
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = SmallInt)]
    kind: i16,
    #[diesel(sql_type = Text)]
    target: String,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = SqlUuid)]
    by_token: Uuid,
    #[diesel(sql_type = Text)]
    by_name: String,
    #[diesel(sql_type = Timestamptz)]
    since: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Double>)]
    rate: Option<f64>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    resumed_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Array<Text>)]
    actions: Vec<String>,
}

#[derive(QueryableByName)]
struct ActionRow {
    #[diesel(sql_type = Text)]
    action: String,
}

#[derive(QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Text)]
    name: String,
}

/// The epoch of the lane that wrote; no row: it may not.
#[derive(QueryableByName)]
pub(in crate::db) struct Fence {
    #[diesel(sql_type = BigInt)]
    #[expect(dead_code, reason = "that there is one is what counts")]
    epoch: i64,
}

pub(in crate::db) fn read(row: Row) -> Result<Paused> {
    let target = Target::from_row(row.kind, &row.target)
        .ok_or_else(|| Error::Internal(format!("a pause of the unknown kind {}: {}", row.kind, row.target)))?;
    let actions = row.actions.into_iter().map(Arc::from).collect();
    let resumed = row.rate.zip(row.resumed_at).map(|(rate, at)| Resumed { rate, at: at.into(), actions });
    let pause = Pause {
        reason: row.reason.into(),
        by: TokenId::from_uuid(row.by_token),
        by_name: row.by_name.into(),
        since: row.since.into(),
        expires_at: row.expires_at.map(Timestamp::from),
        resumed,
    };
    Ok(Paused { tenant: TenantId::from_uuid(row.tenant), target, pause })
}

impl Put {
    /// The statement that writes this pause.
    pub(in crate::db) fn of(node: Uuid, epoch: i64, row: &PauseRow, pause: &Pause) -> Self {
        let resumed = pause.resumed.as_ref();
        Self {
            node,
            epoch,
            tenant: row.tenant.uuid(),
            shard: row.tenant.shard(),
            kind: row.target.number(),
            target: row.target.name(),
            reason: pause.reason.to_string(),
            by_token: pause.by.uuid(),
            by_name: pause.by_name.to_string(),
            since: pause.since.to_utc(),
            expires_at: pause.expires_at.map(Timestamp::to_utc),
            rate: resumed.map(|r| r.rate),
            resumed_at: resumed.map(|r| r.at.to_utc()),
            actions: resumed.map(|r| r.actions.iter().map(|a| a.to_string()).collect()).unwrap_or_default(),
        }
    }
}

impl Drop {
    /// The statement that removes a pause.
    pub(in crate::db) fn of(node: Uuid, epoch: i64, row: &PauseRow) -> Self {
        let (kind, target) = (row.target.number(), row.target.name());
        Self { node, epoch, tenant: row.tenant.uuid(), kind, target }
    }
}

/// What a tenant has paused, by kind and name.
///
/// # Errors
/// `Unavailable`.
pub async fn list(pool: &Pool, tenant: TenantId, now: Timestamp) -> Result<Vec<Paused>> {
    let rows: Vec<Row> = pool.load(List { tenant: tenant.uuid(), now: now.to_utc() }).await?;
    rows.into_iter().map(read).collect()
}

/// The actions that runs of a workflow may need, over all its versions.
///
/// # Errors
/// `Unavailable`.
pub async fn actions(pool: &Pool, tenant: TenantId, workflow: &str) -> Result<Vec<Arc<str>>> {
    let rows: Vec<ActionRow> = pool.load(Actions { tenant: tenant.uuid(), workflow: workflow.to_owned() }).await?;
    Ok(rows.into_iter().map(|row| row.action.into()).collect())
}

/// What a token is called; its id if nobody knows it any more.
///
/// # Errors
/// `Unavailable`.
pub async fn token_name(pool: &Pool, tenant: TenantId, token: TokenId) -> Result<String> {
    let row = pool.load::<NameRow, _>(Name { tenant: tenant.uuid(), id: token.uuid() }).await?.pop();
    Ok(row.map_or_else(|| token.to_string(), |row| row.name))
}
