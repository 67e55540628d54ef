//! Tenants.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{OptionalExtension, QueryableByName};
use diesel_async::RunQueryDsl;
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::id::TenantId;
use uuid::Uuid;

use super::Pool;
use super::failure::map_write_error;
use super::statement::statement;

/// The isolation unit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// For people; unique.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// How long its finished runs are kept where a workflow says nothing else; `None`: as long as the engine keeps them.
    #[serde(skip)]
    pub retention: Option<Duration>,
}

statement! {
    /// Creates a tenant.
    Insert("sql/tenant_insert.sql") {
        "1" => id: Uuid as SqlUuid,
        "2" => name: String as Text,
        "3" => shard: i16 as SmallInt,
        "4" => created_at: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// Tenants.
    List("sql/tenant_list.sql") {
        "1" => name: Option<String> as Nullable<Text>,
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<BigInt>)]
    retention: Option<i64>,
}

impl From<Row> for Tenant {
    fn from(row: Row) -> Self {
        let retention = row.retention.map(super::retention::span);
        Self { id: TenantId::from_uuid(row.id), name: row.name, created_at: row.created_at.into(), retention }
    }
}

/// Creates a tenant; `None` when the name is taken.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost.
pub async fn insert(pool: &Pool, id: TenantId, name: &str, now: Timestamp) -> Result<Option<Tenant>> {
    let insert = Insert { id: id.uuid(), name: name.to_owned(), shard: id.shard(), created_at: now.to_utc() };
    let mut conn = pool.get().await?;
    let row = insert.get_result::<Row>(&mut *conn).await.optional().map_err(map_write_error)?;
    Ok(row.map(Tenant::from))
}

/// Every tenant by name, or the one called `name`.
///
/// # Errors
/// `Unavailable`.
pub async fn list(pool: &Pool, name: Option<&str>) -> Result<Vec<Tenant>> {
    let list = List { name: name.map(str::to_owned) };
    let rows: Vec<Row> = pool.load(list).await?;
    Ok(rows.into_iter().map(Tenant::from).collect())
}
