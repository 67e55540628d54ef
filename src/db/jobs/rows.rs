//! Statements about jobs, and their rows.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Double, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use helve_domain::id::{JobId, RunId, TenantId};
use helve_domain::job::{JobKind, JobStatus};
use uuid::Uuid;

use super::Job;
use crate::db::statement::statement;

statement! {
    /// A new job.
    Insert("../sql/job/insert.sql") {
        "1" => id: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
        "3" => shard: i16 as SmallInt,
        "4" => kind: i16 as SmallInt,
        "5" => request: Vec<u8> as Binary,
        "6" => now: DateTime<Utc> as Timestamptz,
        "7" => total: i64 as BigInt,
        "8" => key: Option<String> as Nullable<Text>,
        "9" => body_hash: Option<Vec<u8>> as Nullable<Binary>,
        "10" => expires_at: Option<DateTime<Utc>> as Nullable<Timestamptz>,
        "11" => max: i64 as BigInt,
    }
}

statement! {
    /// The job of a key.
    ByKey("../sql/job/key.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => key: String as Text,
    }
}

statement! {
    /// One job.
    Get("../sql/job/get.sql") {
        "1" => id: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
    }
}

statement! {
    /// A page of jobs.
    List("../sql/job/list.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => after: Option<Uuid> as Nullable<SqlUuid>,
        "3" => kind: Option<i16> as Nullable<SmallInt>,
        "4" => state: Option<i16> as Nullable<SmallInt>,
        "5" => limit: i64 as BigInt,
    }
}

statement! {
    /// A page of a job's runs.
    Items("../sql/job/items.sql") {
        "1" => job: Uuid as SqlUuid,
        "2" => after: Uuid as SqlUuid,
        "3" => outcome: Option<i16> as Nullable<SmallInt>,
        "4" => limit: i64 as BigInt,
    }
}

statement! {
    /// Ends a job early.
    Cancel("../sql/job/cancel.sql") {
        "1" => id: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
        "3" => now: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// Takes a job.
    Claim("../sql/job/claim.sql") {
        "1" => node: Uuid as SqlUuid,
        "2" => shards: Vec<i16> as Array<SmallInt>,
        "3" => lease: f64 as Double,
        "4" => now: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// Undecided runs.
    Pending("../sql/job/pending.sql") {
        "1" => job: Uuid as SqlUuid,
        "2" => limit: i64 as BigInt,
    }
}

statement! {
    /// Outcomes of runs.
    Settle("../sql/job/settle.sql") {
        "1" => job: Uuid as SqlUuid,
        "2" => runs: Vec<Uuid> as Array<SqlUuid>,
        "3" => outcomes: Vec<i16> as Array<SmallInt>,
        "4" => replays: Vec<Option<Uuid>> as Array<Nullable<SqlUuid>>,
        "5" => codes: Vec<Option<String>> as Array<Nullable<Text>>,
        "6" => messages: Vec<Option<String>> as Array<Nullable<Text>>,
        "7" => node: Uuid as SqlUuid,
        "8" => rest: f64 as Double,
    }
}

statement! {
    /// The end of a job.
    Finish("../sql/job/finish.sql") {
        "1" => job: Uuid as SqlUuid,
        "2" => now: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// Deletes items of old jobs.
    ExpireItems("../sql/job/expire_items.sql") {
        "1" => before: DateTime<Utc> as Timestamptz,
        "2" => limit: i64 as BigInt,
    }
}

statement! {
    /// Deletes old jobs.
    Expire("../sql/job/expire.sql") {
        "1" => before: DateTime<Utc> as Timestamptz,
    }
}

#[derive(QueryableByName)]
pub(super) struct Row {
    #[diesel(sql_type = SqlUuid)]
    pub(super) id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub(super) tenant: Uuid,
    #[diesel(sql_type = SmallInt)]
    pub(super) kind: i16,
    #[diesel(sql_type = SmallInt)]
    pub(super) state: i16,
    #[diesel(sql_type = Binary)]
    pub(super) request: Vec<u8>,
    #[diesel(sql_type = Timestamptz)]
    pub(super) created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(super) started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(super) finished_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = BigInt)]
    pub(super) total: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) done: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) skipped: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) failed: i64,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub(super) place: Option<Uuid>,
}

#[derive(QueryableByName)]
pub(super) struct MadeRow {
    #[diesel(sql_type = Bool)]
    pub(super) made: bool,
    #[diesel(sql_type = Bool)]
    pub(super) room: bool,
}

#[derive(QueryableByName)]
pub(super) struct KeyRow {
    #[diesel(sql_type = SqlUuid)]
    pub(super) target: Uuid,
    #[diesel(sql_type = Binary)]
    pub(super) body_hash: Vec<u8>,
}

#[derive(QueryableByName)]
pub(super) struct RunRow {
    #[diesel(sql_type = SqlUuid)]
    pub(super) run: Uuid,
}

#[derive(QueryableByName)]
pub(super) struct ItemRow {
    #[diesel(sql_type = SqlUuid)]
    pub(super) run: Uuid,
    #[diesel(sql_type = Nullable<SmallInt>)]
    pub(super) outcome: Option<i16>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub(super) replay: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) code: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) message: Option<String>,
}

impl TryFrom<Row> for Job {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let id = JobId::from_uuid(row.id);
        let unreadable = |what: &str| Error::Internal(format!("{id} has {what} that cannot be read"));
        Ok(Self {
            id,
            tenant: TenantId::from_uuid(row.tenant),
            kind: JobKind::from_number(row.kind).ok_or_else(|| unreadable("a kind"))?,
            status: JobStatus::from_number(row.state).ok_or_else(|| unreadable("a state"))?,
            request: serde_json::from_slice(&row.request).map_err(|_| unreadable("a request"))?,
            created_at: row.created_at.into(),
            started_at: row.started_at.map(Timestamp::from),
            finished_at: row.finished_at.map(Timestamp::from),
            total: row.total,
            done: row.done,
            skipped: row.skipped,
            failed: row.failed,
            place: row.place.map(RunId::from_uuid),
        })
    }
}
