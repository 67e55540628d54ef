//! Reading runs: one by id. What writes them are the lanes.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Binary, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use helve_domain::id::{EventId, RunId, TenantId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::run::{Run, RunError};
use helve_domain::status::RunStatus;
use uuid::Uuid;

use super::Pool;
use super::statement::statement;

pub use super::run_list::{RunFilter, list};

statement! {
    /// One run wherever it stands.
    Get("sql/run_get.sql") {
        "1" => id: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
        "3" => created_at: DateTime<Utc> as Timestamptz,
    }
}

/// A run as the reading statements return it.
#[derive(QueryableByName)]
pub(in crate::db) struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Integer)]
    retries: i32,
    #[diesel(sql_type = SmallInt)]
    priority: i16,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    worker: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    event: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    replay_of: Option<Uuid>,
    #[diesel(sql_type = Text)]
    workflow: String,
    #[diesel(sql_type = Nullable<Text>)]
    traceparent: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    input: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    metadata: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    output: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    error: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    due: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    finished_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Binary>)]
    progress: Option<Vec<u8>>,
}

impl TryFrom<Row> for Run {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let id = RunId::from_uuid(row.id);
        let status = RunStatus::from_number(row.state)
            .ok_or_else(|| Error::Internal(format!("{id} has the unknown state {}", row.state)))?;
        let error = row.error.as_deref().map(|bytes| read_error(id, bytes)).transpose()?;
        Ok(Self {
            id,
            tenant: TenantId::from_uuid(row.tenant),
            workflow: row.workflow.into(),
            version: row.version,
            status,
            attempt: row.attempt,
            retries: row.retries,
            priority: row.priority,
            input: payload(row.input).unwrap_or_else(Payload::null),
            output: payload(row.output),
            error,
            metadata: metadata(row.metadata),
            worker: row.worker.map(WorkerId::from_uuid),
            event: row.event.map(EventId::from_uuid),
            replay_of: row.replay_of.map(RunId::from_uuid),
            due: row.due.map(Timestamp::from),
            started_at: row.started_at.map(Timestamp::from),
            finished_at: row.finished_at.map(Timestamp::from),
            traceparent: row.traceparent,
            progress: payload(row.progress),
        })
    }
}

fn read_error(id: RunId, bytes: &[u8]) -> Result<RunError> {
    serde_json::from_slice(bytes).map_err(|e| Error::Internal(format!("{id} has an error that cannot be read: {e}")))
}

fn payload(bytes: Option<Vec<u8>>) -> Option<Payload> {
    bytes.map(|bytes| Payload::trusted(Bytes::from(bytes)))
}

/// Stored metadata; none is the empty object.
pub(in crate::db) fn metadata(bytes: Option<Vec<u8>>) -> Payload {
    payload(bytes).unwrap_or_else(Payload::empty_object)
}

/// One run of the tenant, wherever it stands.
///
/// # Errors
/// `Unavailable`.
pub async fn get(pool: &Pool, tenant: TenantId, id: RunId) -> Result<Option<Run>> {
    let get = Get { id: id.uuid(), tenant: tenant.uuid(), created_at: id.created_at().to_utc() };
    let row = pool.load::<Row, _>(get).await?.pop();
    row.map(Run::try_from).transpose()
}
