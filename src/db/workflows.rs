//! Workflows and their versions.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{OptionalExtension, QueryableByName};
use diesel_async::RunQueryDsl;
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::id::{RunId, TenantId};
use helve_domain::json::Payload;
use uuid::Uuid;

use super::Pool;
use super::failure::map_write_error;
use super::statement::statement;

/// A workflow as a trigger finds it.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// The current version.
    pub version: i32,
    /// When the name was first registered.
    pub created_at: Timestamp,
    /// When the current version became current.
    pub updated_at: Timestamp,
    /// SHA-256 of the definition's canonical text.
    pub checksum: Vec<u8>,
    /// The definition's canonical text.
    pub definition: Payload,
}

/// One version of a workflow.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its number, from 1.
    pub version: i32,
    /// When it was registered.
    pub created_at: Timestamp,
    /// The definition's canonical text.
    pub definition: Payload,
}

/// A definition to register.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Whose it is.
    pub tenant: TenantId,
    /// The workflow's name.
    pub name: String,
    /// SHA-256 of the text.
    pub checksum: [u8; 32],
    /// The canonical text.
    pub definition: Vec<u8>,
    /// Make a version current also where it is known from earlier.
    pub known_becomes_current: bool,
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The version of this text.
    pub version: i32,
    /// Whether it is new.
    pub created: bool,
    /// Whether what is current has changed.
    pub moved: bool,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Yes,
    /// This run of it is open.
    InUse(RunId),
    /// There is no such workflow.
    NotFound,
}

statement! {
    /// Registers a definition.
    Put("sql/workflow_put.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => name: String as Text,
        "3" => checksum: Vec<u8> as Binary,
        "4" => definition: Vec<u8> as Binary,
        "5" => now: DateTime<Utc> as Timestamptz,
        "6" => known_becomes_current: bool as Bool,
    }
}

statement! {
    /// Current versions.
    Get("sql/workflow_get.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => name: Option<String> as Nullable<Text>,
    }
}

statement! {
    /// A page of workflows.
    List("sql/workflow_list.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => after: String as Text,
        "3" => limit: i64 as BigInt,
    }
}

statement! {
    /// One version.
    GetVersion("sql/workflow_version.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => name: String as Text,
        "3" => version: i32 as Integer,
    }
}

statement! {
    /// A page of versions.
    Versions("sql/workflow_versions.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => name: String as Text,
        "3" => before: i32 as Integer,
        "4" => limit: i64 as BigInt,
    }
}

statement! {
    /// Marks a workflow as deleted.
    Delete("sql/workflow_delete.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => name: String as Text,
        "3" => now: DateTime<Utc> as Timestamptz,
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    updated_at: DateTime<Utc>,
    #[diesel(sql_type = Binary)]
    checksum: Vec<u8>,
    #[diesel(sql_type = Binary)]
    definition: Vec<u8>,
}

#[derive(QueryableByName)]
struct VersionRow {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Binary)]
    definition: Vec<u8>,
}

#[derive(QueryableByName)]
struct RegisteredRow {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Bool)]
    created: bool,
    #[diesel(sql_type = Bool)]
    moved: bool,
}

#[derive(QueryableByName)]
struct DeletedRow {
    #[diesel(sql_type = Bool)]
    found: bool,
    #[diesel(sql_type = Bool)]
    deleted: bool,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    used: Option<Uuid>,
}

impl From<Row> for Workflow {
    fn from(row: Row) -> Self {
        Self {
            name: row.name,
            version: row.version,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            checksum: row.checksum,
            definition: Payload::trusted(Bytes::from(row.definition)),
        }
    }
}

impl From<VersionRow> for Version {
    fn from(row: VersionRow) -> Self {
        Self {
            version: row.version,
            created_at: row.created_at.into(),
            definition: Payload::trusted(Bytes::from(row.definition)),
        }
    }
}

/// Registers a definition. `None`: another engine registered one at the same time; ask again.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost; it is safe to send it again.
pub async fn put(pool: &Pool, registration: &Registration, now: Timestamp) -> Result<Option<Registered>> {
    let put = Put {
        tenant: registration.tenant.uuid(),
        name: registration.name.clone(),
        checksum: registration.checksum.to_vec(),
        definition: registration.definition.clone(),
        now: now.to_utc(),
        known_becomes_current: registration.known_becomes_current,
    };
    let mut conn = pool.get().await?;
    let row: Option<RegisteredRow> = put.get_result(&mut *conn).await.optional().map_err(map_write_error)?;
    Ok(row.map(|row| Registered { version: row.version, created: row.created, moved: row.moved }))
}

/// The current versions of a tenant's workflows: the one called `name`, or all.
///
/// # Errors
/// `Unavailable`.
pub async fn current(pool: &Pool, tenant: TenantId, name: Option<&str>) -> Result<Vec<Workflow>> {
    let get = Get { tenant: tenant.uuid(), name: name.map(str::to_owned) };
    let rows: Vec<Row> = pool.load(get).await?;
    Ok(rows.into_iter().map(Workflow::from).collect())
}

/// At most `limit` workflows whose name comes after `after`, by name.
///
/// # Errors
/// `Unavailable`.
pub async fn list(pool: &Pool, tenant: TenantId, after: &str, limit: i64) -> Result<Vec<Workflow>> {
    let list = List { tenant: tenant.uuid(), after: after.to_owned(), limit };
    let rows: Vec<Row> = pool.load(list).await?;
    Ok(rows.into_iter().map(Workflow::from).collect())
}

/// One version, also of a deleted workflow.
///
/// # Errors
/// `Unavailable`.
pub async fn version(pool: &Pool, tenant: TenantId, name: &str, version: i32) -> Result<Option<Version>> {
    let get = GetVersion { tenant: tenant.uuid(), name: name.to_owned(), version };
    let row = pool.load::<VersionRow, _>(get).await?.pop();
    Ok(row.map(Version::from))
}

/// At most `limit` versions with a number below `before`, newest first.
///
/// # Errors
/// `Unavailable`.
pub async fn versions(pool: &Pool, tenant: TenantId, name: &str, before: i32, limit: i64) -> Result<Vec<Version>> {
    let list = Versions { tenant: tenant.uuid(), name: name.to_owned(), before, limit };
    let rows: Vec<VersionRow> = pool.load(list).await?;
    Ok(rows.into_iter().map(Version::from).collect())
}

/// Marks a workflow as deleted unless a run of it is open.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost.
pub async fn delete(pool: &Pool, tenant: TenantId, name: &str, now: Timestamp) -> Result<Deleted> {
    let delete = Delete { tenant: tenant.uuid(), name: name.to_owned(), now: now.to_utc() };
    let mut conn = pool.get().await?;
    let row: DeletedRow = delete.get_result(&mut *conn).await.map_err(map_write_error)?;
    Ok(match (row.deleted, row.found, row.used) {
        (true, ..) => Deleted::Yes,
        (false, true, Some(run)) => Deleted::InUse(RunId::from_uuid(run)),
        (false, ..) => Deleted::NotFound,
    })
}
