//! What the scheduler reads: windows of queues, timers, single runs, and what a former owner left.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Nullable, SmallInt, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use helve_domain::change::{CreateKey, Unusual, WorkerRow};
use helve_domain::clock::Timestamp;
use helve_domain::delivery::WorkerInfo;
use helve_domain::error::{Error, Result};
use helve_domain::id::{EventId, RunId, SessionId, TenantId, WorkerId};
use helve_domain::status::RunStatus;
use helve_domain::stored::{EndedRun, RunFacts, Stored, StoredRun};
use helve_postgres::Database;
use uuid::Uuid;

use super::connect::connect;
use super::failure::map_error;
use super::statement::statement;

type SqlUuid = diesel::sql_types::Uuid;

statement! {
    /// A window of a queue.
    QueueRows("sql/scan/columns.sql", "sql/scan/queue.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => action: String as Text,
        "3" => rank: i64 as BigInt,
        "4" => id: Uuid as SqlUuid,
        "5" => limit: i64 as BigInt,
        "6" => part: Option<String> as Nullable<Text>,
        "7" => apart: Vec<String> as Array<Text>,
    }
}

statement! {
    /// Timers of the near future.
    TimerRows("sql/scan/columns.sql", "sql/scan/timers.sql") {
        "1" => shards: Vec<i16> as Array<SmallInt>,
        "2" => until: DateTime<Utc> as Timestamptz,
        "3" => limit: i64 as BigInt,
    }
}

statement! {
    /// Runs that workers hold.
    HeldRows("sql/scan/columns.sql", "sql/scan/held.sql") {
        "1" => shards: Vec<i16> as Array<SmallInt>,
    }
}

statement! {
    /// Open runs by id.
    OpenRows("sql/scan/columns.sql", "sql/scan/open.sql") {
        "1" => ids: Vec<Uuid> as Array<SqlUuid>,
    }
}

statement! {
    /// Ended runs by id.
    EndedRows("sql/scan/ended.sql") {
        "1" => ids: Vec<Uuid> as Array<SqlUuid>,
        "2" => since: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// Workers of shards.
    WorkerRows("sql/scan/workers.sql") {
        "1" => shards: Vec<i16> as Array<SmallInt>,
    }
}

statement! {
    /// Who holds a create key.
    KeyRow("sql/scan/key.sql") {
        "1" => tenant: Uuid as SqlUuid,
        "2" => scope: String as Text,
        "3" => key: String as Text,
    }
}

#[derive(QueryableByName)]
struct StoredRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = Text)]
    workflow: String,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Integer)]
    retries: i32,
    #[diesel(sql_type = SmallInt)]
    priority: i16,
    #[diesel(sql_type = BigInt)]
    rank: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    due: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    worker: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    session: Option<Uuid>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    event: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    replay_of: Option<Uuid>,
    #[diesel(sql_type = Nullable<Integer>)]
    unparked: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    freed: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    labels: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    traceparent: Option<String>,
}

#[derive(QueryableByName)]
struct EndedRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    session: Option<Uuid>,
}

#[derive(QueryableByName)]
struct WorkerDbRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = SqlUuid)]
    session: Uuid,
    #[diesel(sql_type = Binary)]
    secret: Vec<u8>,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    sdk: String,
    #[diesel(sql_type = Array<Text>)]
    actions: Vec<String>,
    #[diesel(sql_type = Text)]
    slots: String,
    #[diesel(sql_type = Text)]
    labels: String,
}

#[derive(QueryableByName)]
struct KeyDbRow {
    #[diesel(sql_type = SqlUuid)]
    target: Uuid,
    #[diesel(sql_type = Binary)]
    body_hash: Vec<u8>,
}

/// A connection of its own for the scheduler's reads, so that no other reader can delay them.
pub struct Reader {
    conn: AsyncPgConnection,
}

impl Reader {
    /// Connects. Plans are pinned as in the lanes: `open_run` is nearly empty yet churns. A window of a queue is read
    /// in the order of its index: sorting all of a deep queue for its head takes half a second for a million runs.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn open(database: &Database) -> Result<Self> {
        let mut conn = connect(database, "scan").await?;
        let pin = "set enable_seqscan = off; set enable_mergejoin = off; set enable_hashjoin = off; \
            set enable_sort = off; \
            set plan_cache_mode = force_generic_plan; set jit = off";
        conn.batch_execute(pin).await.map_err(map_error)?;
        Ok(Self { conn })
    }

    async fn load<R, S>(&mut self, statement: S) -> Result<Vec<R>>
    where
        R: QueryableByName<diesel::pg::Pg> + Send + 'static,
        S: diesel_async::methods::LoadQuery<'static, AsyncPgConnection, R> + Send + 'static,
    {
        statement.load::<R>(&mut self.conn).await.map_err(map_error)
    }

    /// Queued runs of one action, at most `limit`, from `from` on: those of one workflow, or without those of some.
    ///
    /// # Errors
    /// `Unavailable`, and the connection should be replaced.
    pub async fn queue(
        &mut self,
        tenant: TenantId,
        (action, part, apart): (&str, Option<&str>, &[Arc<str>]),
        from: Option<(i64, RunId)>,
        limit: usize,
    ) -> Result<Vec<StoredRun>> {
        let (rank, id) = from.map_or((i64::MIN, Uuid::nil()), |(rank, run)| (rank, run.uuid()));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (part, apart) = (part.map(str::to_owned), apart.iter().map(|w| w.to_string()).collect());
        let query = QueueRows { tenant: tenant.uuid(), action: action.to_owned(), rank, id, limit, part, apart };
        self.load::<StoredRow, _>(query).await?.into_iter().map(stored).collect()
    }

    /// Rows of these shards with a timer up to `until`, at most `limit` a shard, by shard and time.
    ///
    /// # Errors
    /// As [`Reader::queue`].
    pub async fn timers(&mut self, shards: &[i16], until: Timestamp, limit: usize) -> Result<Vec<StoredRun>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = TimerRows { shards: shards.to_vec(), until: until.to_utc(), limit };
        self.load::<StoredRow, _>(query).await?.into_iter().map(stored).collect()
    }

    /// Runs of these shards that workers hold.
    ///
    /// # Errors
    /// As [`Reader::queue`].
    pub async fn held(&mut self, shards: &[i16]) -> Result<Vec<StoredRun>> {
        let query = HeldRows { shards: shards.to_vec() };
        self.load::<StoredRow, _>(query).await?.into_iter().map(stored).collect()
    }

    /// What the rows know of these runs. Open ones are read first: one that ends between the two reads
    /// is found by the second.
    ///
    /// # Errors
    /// As [`Reader::queue`].
    pub async fn runs(&mut self, runs: &[RunId]) -> Result<HashMap<RunId, Stored>> {
        let ids: Vec<Uuid> = runs.iter().map(|r| r.uuid()).collect();
        let since = runs.iter().min().map_or(DateTime::UNIX_EPOCH, |r| r.created_at().to_utc());
        let mut found = HashMap::with_capacity(runs.len());
        for row in self.load::<StoredRow, _>(OpenRows { ids: ids.clone() }).await? {
            let run = stored(row)?;
            found.insert(run.facts.run, Stored::Open(run));
        }
        for row in self.load::<EndedRow, _>(EndedRows { ids, since }).await? {
            let run = RunId::from_uuid(row.id);
            let ended = EndedRun {
                run,
                tenant: TenantId::from_uuid(row.tenant),
                state: state(row.state, run)?,
                attempt: row.attempt,
                session: row.session.map(SessionId::from_uuid),
            };
            found.insert(run, Stored::Ended(ended));
        }
        Ok(found)
    }

    /// Workers of these shards.
    ///
    /// # Errors
    /// As [`Reader::queue`].
    pub async fn workers(&mut self, shards: &[i16]) -> Result<Vec<WorkerRow>> {
        let rows = self.load::<WorkerDbRow, _>(WorkerRows { shards: shards.to_vec() }).await?;
        rows.into_iter().map(worker).collect()
    }

    /// Everything that is paused in these shards.
    ///
    /// # Errors
    /// As [`Reader::queue`].
    pub async fn pauses(&mut self, shards: &[i16]) -> Result<Vec<helve_domain::pause::Paused>> {
        let rows = self.load(super::pauses::OfShards { shards: shards.to_vec() }).await?;
        rows.into_iter().map(super::pauses::read).collect()
    }

    /// The target and the body hash of a create key.
    ///
    /// # Errors
    /// As [`Reader::queue`].
    pub async fn key(&mut self, key: &CreateKey) -> Result<Option<(Uuid, Vec<u8>)>> {
        let query = KeyRow { tenant: key.tenant.uuid(), scope: key.scope.to_string(), key: key.key.to_string() };
        Ok(self.load::<KeyDbRow, _>(query).await?.pop().map(|row| (row.target, row.body_hash)))
    }
}

fn state(number: i16, run: RunId) -> Result<RunStatus> {
    RunStatus::from_number(number).ok_or_else(|| Error::Internal(format!("{run} has the unknown state {number}")))
}

fn stored(row: StoredRow) -> Result<StoredRun> {
    let run = RunId::from_uuid(row.id);
    let facts = RunFacts {
        run,
        tenant: TenantId::from_uuid(row.tenant),
        state: state(row.state, run)?,
        attempt: row.attempt,
        retries: row.retries,
        unparked: row.unparked.unwrap_or(0),
        freed: row.freed == Some(row.attempt),
        priority: row.priority,
        rank: row.rank,
        due: row.due.map(Timestamp::from),
        holder: row.worker.zip(row.session).map(|(w, s)| (WorkerId::from_uuid(w), SessionId::from_uuid(s))),
        started_at: row.started_at.map(Timestamp::from),
        extra: Unusual {
            event: row.event.map(EventId::from_uuid),
            replay_of: row.replay_of.map(RunId::from_uuid),
            trace: None,
        }
        .into(),
    };
    let StoredRow { workflow, version, labels, traceparent, .. } = row;
    Ok(StoredRun { facts, workflow, version, labels, traceparent })
}

fn worker(row: WorkerDbRow) -> Result<WorkerRow> {
    let unreadable = |e: serde_json::Error| Error::Internal(format!("a worker's row cannot be read: {e}"));
    let secret: [u8; 32] =
        row.secret.try_into().map_err(|_| Error::Internal("a worker's secret has a wrong length".to_owned()))?;
    Ok(WorkerRow {
        worker: WorkerId::from_uuid(row.id),
        session: SessionId::from_uuid(row.session),
        tenant: TenantId::from_uuid(row.tenant),
        secret,
        info: WorkerInfo {
            name: row.name.into(),
            sdk: row.sdk.into(),
            actions: row.actions.into_iter().map(Arc::from).collect(),
            slots: serde_json::from_str(&row.slots).map_err(unreadable)?,
            labels: serde_json::from_str(&row.labels).map_err(unreadable)?,
        },
    })
}
