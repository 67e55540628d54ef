//! Weeks of history: made ahead, dropped whole when they are older than the retention. Only partitions of Helve's own
//! tables are looked at, made or dropped, whatever else in the database has such a name.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::Pool;
use super::failure::map_error;
use super::statement::statement;
use super::weeks::{By, Week, first_id, time_of};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How far ahead weeks are made.
const AHEAD: Duration = Duration::from_secs(14 * 24 * 3_600);
/// How often a lock is asked for, where the partition is needed: 20 s in all.
const PATIENT: u64 = 40;
/// As [`PATIENT`], where a later pass will do: a moment.
const BRIEF: u64 = 3;

const TABLES: [(&str, By); 6] = [
    ("run_history", By::Time),
    ("run_transition", By::Time),
    ("event", By::Id),
    ("payload", By::Id),
    ("run_live", By::Id),
    ("run_log", By::Id),
];

statement! {
    /// Which partitions there are.
    List("sql/partition/list.sql") {
        "1" => tables: Vec<String> as Array<Text>,
    }
}

statement! {
    /// Where one belongs.
    PlaceOf("sql/partition/place.sql") {
        "1" => table: String as Text,
        "2" => names: Vec<String> as Array<Text>,
    }
}

statement! {
    /// Whether runs need a week.
    Referred("sql/partition/referred.sql") {
        "1" => first: Uuid as SqlUuid,
        "2" => end: Uuid as SqlUuid,
        "3" => before: Uuid as SqlUuid,
        "4" => after: Uuid as SqlUuid,
    }
}

#[derive(QueryableByName)]
struct PartitionRow {
    #[diesel(sql_type = Text)]
    parent: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    plain: bool,
    #[diesel(sql_type = Bool)]
    keyless: bool,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    from_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    to_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    from_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    to_id: Option<Uuid>,
}

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = Text)]
    parent: String,
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
}

#[derive(QueryableByName)]
struct ReferredRow {
    #[diesel(sql_type = Bool)]
    referred: bool,
}

/// A piece of one of Helve's tables.
struct Partition {
    table: &'static str,
    by: By,
    /// With its schema, in quotes where they are needed.
    name: String,
    /// A table, not somebody's foreign one.
    plain: bool,
    /// Nothing says by what a subscriber would know its rows.
    keyless: bool,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Partition {
    fn read(row: PartitionRow) -> Option<Self> {
        let (table, by) = TABLES.into_iter().find(|(table, _)| *table == row.parent)?;
        let from = row.from_time.or_else(|| time_of(row.from_id?))?;
        let to = row.to_time.or_else(|| time_of(row.to_id?))?;
        Some(Self { table, by, name: row.name, plain: row.plain, keyless: row.keyless, from, to })
    }

    fn has(&self, table: &str, week: Week) -> bool {
        self.table == table && self.from <= week.start() && self.to >= week.end()
    }
}

/// Makes the weeks around `now` that are missing. Must have succeeded once before a lane opens. This week and the next
/// are needed; the others are made when that can be done without waiting.
///
/// # Errors
/// `Unavailable` when a table is locked all the time; `Internal` when the database refuses.
pub async fn make_ahead(pool: &Pool, now: Timestamp) -> Result<()> {
    let mut conn = pool.get().await?;
    let have = list(&mut conn).await?;
    let this = Week::of(now.to_utc());
    for week in [this, this.next()] {
        make(&mut conn, &have, week, PATIENT).await?;
    }
    let last = Week::of(now.plus(AHEAD).to_utc());
    let later = std::iter::successors(Some(this.next().next()), |week| Some(week.next()));
    let others = later.take_while(|week| *week <= last).chain([this.last()]);
    for week in others {
        if let Err(e) = make(&mut conn, &have, week, BRIEF).await {
            warn!(error = %e, week = %week.start().date_naive(), "a week that is not needed yet cannot be made, a later pass will try");
            break;
        }
    }
    identify(&mut conn, &have).await;
    Ok(())
}

/// Gives the weeks of an earlier release what [`creation`] gives to new ones. Nothing waits for it: a later pass will do.
async fn identify(conn: &mut AsyncPgConnection, have: &[Partition]) {
    for Partition { name, .. } in have.iter().filter(|partition| partition.keyless) {
        if let Err(e) = guarded(conn, &identity(name)).await {
            warn!(error = %e, partition = name, "a partition has no replica identity yet, a later pass will try");
            break;
        }
    }
}

/// By what a subscriber would know a row that is deleted. Without one, where another application publishes all tables of
/// the database, a delete is refused. It costs nothing where nobody decodes the log.
fn identity(name: &str) -> String {
    format!("alter table {name} replica identity full")
}

/// Makes the weeks of these times, where one is missing: for a row that has met no partition, before it is written
/// again.
///
/// # Errors
/// As [`make_ahead`].
pub async fn make_for(pool: &Pool, times: impl IntoIterator<Item = Timestamp> + Send) -> Result<()> {
    let weeks: std::collections::BTreeSet<Week> = times.into_iter().map(|at| Week::of(at.to_utc())).collect();
    let mut conn = pool.get().await?;
    let have = list(&mut conn).await?;
    for week in weeks {
        make(&mut conn, &have, week, PATIENT).await?;
    }
    Ok(())
}

async fn list(conn: &mut AsyncPgConnection) -> Result<Vec<Partition>> {
    let tables = TABLES.iter().map(|t| t.0.to_owned()).collect();
    let rows: QueryResult<Vec<PartitionRow>> = List { tables }.load(conn).await;
    Ok(rows.map_err(map_error)?.into_iter().filter_map(Partition::read).collect())
}

/// Makes one week of each table that lacks it.
async fn make(conn: &mut AsyncPgConnection, have: &[Partition], week: Week, tries: u64) -> Result<()> {
    for (table, by) in TABLES {
        if !have.iter().any(|partition| partition.has(table, week)) {
            make_one(conn, table, by, week, tries).await?;
        }
    }
    Ok(())
}

async fn make_one(conn: &mut AsyncPgConnection, table: &'static str, by: By, week: Week, tries: u64) -> Result<()> {
    for attempt in 1..=tries {
        let sql = creation(conn, table, by, week).await?;
        let refused = match guarded(conn, &sql).await {
            Ok(()) => {
                debug!(table, week = %week.start().date_naive(), "made a partition");
                return Ok(());
            }
            Err(e) => e,
        };
        // Another engine may have been quicker, or somebody has taken the name meanwhile.
        if list(conn).await?.iter().any(|partition| partition.has(table, week)) {
            return Ok(());
        }
        let again = is_locked(&refused) || refused.to_string().contains("already exists");
        if !again {
            return Err(map_error(refused));
        }
        pause(attempt).await;
    }
    Err(locked())
}

/// What makes a partition. It is a table first and then attached, since that waits for nobody who reads or writes the
/// parent, where `create table .. partition of` would wait for a backup and stop the lanes meanwhile.
async fn creation(conn: &mut AsyncPgConnection, table: &str, by: By, week: Week) -> Result<String> {
    let place = PlaceOf { table: table.to_owned(), names: week.names(table) };
    let rows: QueryResult<Vec<PlaceRow>> = place.load(conn).await;
    let place = rows.map_err(map_error)?.into_iter().next();
    let Some(PlaceRow { parent, name: Some(name), owner }) = place else {
        let names = week.names(table).join(", ");
        return Err(Error::Internal(format!("no name is left for a partition of {table}: {names} are taken")));
    };
    let (from, to) = (week.bound(by), week.next().bound(by));
    let given = owner.map_or(String::new(), |owner| format!("alter table {name} owner to {owner}; "));
    let identity = match by {
        By::Time => format!("{}; ", identity(&name)),
        // These have a primary key.
        By::Id => String::new(),
    };
    Ok(format!(
        "create table {name} (like {parent} including all); {identity}{given}\
         alter table {parent} attach partition {name} for values from ('{from}') to ('{to}')"
    ))
}

/// Runs DDL, all or nothing. Its lock must not queue up in front of the lanes: it waits 50 ms at most.
async fn guarded(conn: &mut AsyncPgConnection, sql: &str) -> QueryResult<()> {
    conn.batch_execute(&format!("set lock_timeout = '50ms'; {sql}; set lock_timeout = 0")).await
}

fn is_locked(e: &diesel::result::Error) -> bool {
    e.to_string().contains("lock timeout")
}

fn locked() -> Error {
    Error::unavailable("a partition could not be changed: its table is locked")
}

async fn pause(attempt: u64) {
    tokio::time::sleep(Duration::from_millis(25 * attempt)).await;
}

/// Drops what is older than `keep`: whole weeks of history and traces, then events and payloads of weeks
/// that no run, open or kept, refers to. Also expired create keys.
///
/// # Errors
/// `Unavailable`; what is left is dropped by the next pass.
pub async fn drop_old(pool: &Pool, now: Timestamp, keep: Duration) -> Result<()> {
    let mut conn = pool.get().await?;
    let cutoff = now.minus(keep).to_utc();
    for old in list(&mut conn).await?.iter().filter(|partition| partition.plain && partition.to <= cutoff) {
        let dropped = match old.by {
            By::Id => drop_unless_referred(&mut conn, old).await,
            By::Time => drop_one(&mut conn, old).await,
        };
        if let Err(e) = dropped {
            // Such as a view of somebody else on it: the others go all the same.
            warn!(error = %e, partition = old.name, "a partition past its retention cannot be dropped, a later pass will try");
        }
    }
    expire_keys(&mut conn, now).await
}

async fn drop_unless_referred(conn: &mut AsyncPgConnection, old: &Partition) -> Result<()> {
    if is_referred(conn, old).await? { Ok(()) } else { drop_one(conn, old).await }
}

/// The parent is locked only as long as the detaching takes. Where it is read for long, as by a backup, a later pass
/// drops it: each try keeps the lanes waiting.
async fn drop_one(conn: &mut AsyncPgConnection, old: &Partition) -> Result<()> {
    for attempt in 1..=BRIEF {
        match guarded(conn, &format!("drop table if exists {}", old.name)).await {
            Ok(()) => {
                info!(partition = old.name, "dropped a partition past its retention");
                return Ok(());
            }
            Err(e) if is_locked(&e) => pause(attempt).await,
            Err(e) => return Err(map_error(e)),
        }
    }
    Err(locked())
}

/// Whether a run that is open or kept may need what is in it.
async fn is_referred(conn: &mut AsyncPgConnection, old: &Partition) -> Result<bool> {
    let referred = Referred {
        first: first_id(old.from),
        end: first_id(old.to),
        before: first_id(old.from - DAY),
        after: first_id(old.to + DAY),
    };
    let rows: QueryResult<Vec<ReferredRow>> = referred.load(conn).await;
    Ok(rows.map_err(map_error)?.into_iter().next().is_none_or(|row| row.referred))
}

async fn expire_keys(conn: &mut AsyncPgConnection, now: Timestamp) -> Result<()> {
    let sql = "delete from idempotency where (tenant, scope, key) in ( \
        select tenant, scope, key from idempotency where expires_at <= $1 limit 5000 for update skip locked)";
    for _ in 0..200 {
        let gone =
            diesel::sql_query(sql).bind::<Timestamptz, _>(now.to_utc()).execute(&mut *conn).await.map_err(map_error)?;
        if gone < 5_000 {
            return Ok(());
        }
    }
    warn!("more create keys expire than one pass can delete");
    Ok(())
}
