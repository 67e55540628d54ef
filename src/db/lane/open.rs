//! Opening a lane: whatever its former connection may still be executing is waited for or made harmless.

use std::task::{Context, Poll};
use std::time::Duration;

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::sql_types::{Array, BigInt, Text as SqlText, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use helve_domain::id::NodeId;
use helve_postgres::Database;
use tracing::info;
use uuid::Uuid;

use super::{LaneConnection, LaneError, LaneName, Refusal, classify};
use crate::db::connect::connect_driven;
use crate::db::driven::Driven;
use crate::db::failure;

/// Plans of a table that is nearly empty yet churns must not change with its statistics: see
/// docs/decisions/0002. The rest keeps a statement from hanging for ever on either side.
const PIN: &str = "set enable_seqscan = off; set enable_mergejoin = off; set enable_nestloop = off; \
    set plan_cache_mode = force_generic_plan; \
    set jit = off; set statement_timeout = '15s'; set synchronous_commit = on";

/// How long a batch waits for a lock that somebody else holds, before those that it holds up are looked for. Everybody
/// waits meanwhile.
pub const LOCK: Duration = Duration::from_millis(300);

/// Shows that the lane is open, to every role, for as long as its backend lives: `lease_look.sql` looks for it. Its
/// number is a new one each time, in the lane's row: everybody who may connect sees the locks that are held, and could
/// wait for a lock whose number stays the same, so that the next connection waits behind that.
const HOLD: &str = "select pg_advisory_lock_shared($1)";

/// Ends the backends of a lane: who holds it, and who was recorded, which is all that is known of an engine of an
/// earlier release.
const TERMINATE: &str = "select count(pg_terminate_backend(b.pid)) from ( \
        select k.pid from pg_locks k \
        where k.locktype = 'advisory' and k.objsubid = 1 and k.granted \
            and k.database = (select oid from pg_database where datname = current_database()) \
            and (k.classid::bigint << 32) | k.objid::bigint = ( \
                select coalesce(l.sign, hashtextextended('helve lane ' || $1::uuid || ' ' || $2, 0)) \
                from lane l where l.node = $1 and l.name = $2) \
        union \
        select a.pid from lane l join pg_stat_activity a on a.pid = l.pid and a.backend_start = l.backend_start \
        where l.node = $1 and l.name = $2 \
    ) b where b.pid <> pg_backend_pid()";

/// The new epoch waits for a statement that still holds the row, and stops every later one. When the backend began
/// is for engines of an earlier release; a session whose role was set may not even see that of its own.
const RAISE: &str = "update lane set epoch = epoch + 1, sign = $3, pid = pg_backend_pid(), backend_start = coalesce( \
        (select backend_start from pg_stat_activity where pid = pg_backend_pid()), 'epoch') \
    where node = $1 and name = $2 and not fenced returning epoch";

/// Rows that somebody else holds. It takes the locks of all others, and gives them back at its end.
const LOCKED: &str = "with free as materialized (select id from open_run where id = any($1) for update skip locked) \
    select id from open_run where id = any($1) and id not in (select id from free)";

#[derive(diesel::QueryableByName)]
struct OpenId {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

#[derive(diesel::QueryableByName)]
struct Epoch {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

impl LaneConnection {
    /// Connects a lane of `node`. When this returns, nothing that an earlier connection of the lane sent
    /// can be written any more.
    ///
    /// # Errors
    /// `Fenced` when another process has taken over; else `Aborted`, and the call may be repeated.
    pub async fn open(database: &Database, node: NodeId, lane: LaneName) -> Result<Self, LaneError> {
        let driven = connect_driven(database, lane.as_str()).await;
        let mut driven = driven.map_err(|e| LaneError::Aborted(Refusal::unsent(e.to_string())))?;
        let Driven { conn, driver, .. } = &mut driven;
        let raised = driver.drive(raise(conn, node, lane)).await;
        match raised.map_err(|e| LaneError::Aborted(Refusal::unsent(e.to_string())))? {
            Some(epoch) => Ok(Self { driven, node: node.uuid(), epoch }),
            None => Err(LaneError::Fenced),
        }
    }

    /// Of which of these runs somebody has locked the row.
    ///
    /// # Errors
    /// See [`LaneError`]: also somebody may have locked the table.
    pub async fn locked(&mut self, runs: Vec<Uuid>) -> Result<Vec<Uuid>, LaneError> {
        let Driven { conn, driver, last_error } = &mut self.driven;
        let look = diesel::sql_query(LOCKED).bind::<Array<SqlUuid>, _>(runs);
        let found: Vec<OpenId> = driver.drive(look.load(conn)).await.map_err(|e| classify(e, last_error))?;
        Ok(found.into_iter().map(|found| found.id).collect())
    }

    /// From now on a statement waits so long for a lock.
    ///
    /// # Errors
    /// Any: the connection should be replaced.
    pub async fn wait_for_locks(&mut self, patience: Duration) -> Result<(), LaneError> {
        let Driven { conn, driver, last_error } = &mut self.driven;
        let text = lock_timeout(patience);
        driver.drive(conn.batch_execute(&text)).await.map_err(|e| classify(e, last_error))
    }
}

fn lock_timeout(patience: Duration) -> String {
    format!("set lock_timeout = {}", patience.as_millis())
}

impl LaneConnection {
    /// The end of the connection while no statement is underway: see `db/driven.rs`. `look`: also one that
    /// nothing has told of.
    pub fn poll_ended(&mut self, cx: &Context<'_>, look: bool) -> Poll<()> {
        if look { self.driven.driver.look(cx) } else { self.driven.driver.poll_ended(cx) }
    }
}

/// Makes sure of the former connection, and begins a new epoch; `None`: the lane is not ours any more.
async fn raise(conn: &mut AsyncPgConnection, node: NodeId, lane: LaneName) -> QueryResult<Option<i64>> {
    conn.batch_execute(PIN).await?;
    conn.batch_execute(&lock_timeout(LOCK)).await?;
    terminate_backend(conn, node, lane.as_str()).await?;
    let sign = i64::from_ne_bytes(random()?);
    diesel::sql_query(HOLD).bind::<BigInt, _>(sign).execute(conn).await?;
    let raised: Vec<Epoch> = of_lane(RAISE, node, lane.as_str()).bind::<BigInt, _>(sign).load(conn).await?;
    Ok(raised.into_iter().next().map(|e| e.epoch))
}

/// Ends what is left of a lane's backends, to save the wait for them. Not every role may do that to another's: then
/// the lane's row does it, which waits for the statement that still runs and stops every later one.
///
/// # Errors
/// The connection was lost.
pub async fn terminate_backend(conn: &mut AsyncPgConnection, node: NodeId, lane: &str) -> QueryResult<()> {
    match of_lane(TERMINATE, node, lane).execute(conn).await {
        Err(e) if failure::is_disconnected(&e) => Err(e),
        Err(e) => {
            info!(error = %e, lane, "the former backend of a lane is left to its row");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

fn random<const N: usize>() -> QueryResult<[u8; N]> {
    let mut bytes = [0; N];
    let none = |e: getrandom::Error| diesel::result::Error::QueryBuilderError(e.to_string().into());
    getrandom::fill(&mut bytes).map_err(none)?;
    Ok(bytes)
}

fn of_lane(sql: &str, node: NodeId, lane: &str) -> BoxedSqlQuery<'static, Pg, SqlQuery> {
    diesel::sql_query(sql).into_boxed().bind::<SqlUuid, _>(node.uuid()).bind::<SqlText, _>(lane.to_owned())
}
