//! Opening a lane: whatever its former connection may still be executing is waited for or made harmless.

use std::time::Duration;

use diesel::sql_types::{BigInt, Text as SqlText};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{LaneConnection, LaneError, LaneName, Refusal, classify};
use crate::config::Database;
use crate::db::connect::connect_driven;
use crate::db::driven::Driven;
use crate::id::NodeId;

/// Plans of a table that is nearly empty yet churns must not change with its statistics: see
/// docs/decisions/0002. The rest keeps a statement from hanging for ever on either side.
const PIN: &str = "set enable_seqscan = off; set enable_mergejoin = off; set enable_nestloop = off; \
    set plan_cache_mode = force_generic_plan; \
    set jit = off; set statement_timeout = '15s'; set synchronous_commit = on";

/// How long a batch waits for a lock that somebody else holds, before its transitions are tried singly.
pub const LOCK: Duration = Duration::from_secs(2);

/// Ends a backend of a lane, if it still is the one that was recorded.
const TERMINATE: &str = "select count(pg_terminate_backend(a.pid)) from lane l join pg_stat_activity a \
    on a.pid = l.pid and a.backend_start = l.backend_start \
    where l.node = $1 and l.name = $2 and a.pid <> pg_backend_pid()";

/// The new epoch waits for a statement that still holds the row, and stops every later one.
const RAISE: &str = "update lane set epoch = epoch + 1, pid = pg_backend_pid(), \
    backend_start = (select backend_start from pg_stat_activity where pid = pg_backend_pid()) \
    where node = $1 and name = $2 and not fenced returning epoch";

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

/// Makes sure of the former connection, and begins a new epoch; `None`: the lane is not ours any more.
async fn raise(conn: &mut AsyncPgConnection, node: NodeId, lane: LaneName) -> diesel::QueryResult<Option<i64>> {
    conn.batch_execute(PIN).await?;
    conn.batch_execute(&lock_timeout(LOCK)).await?;
    terminate_backend(conn, node, lane.as_str()).await?;
    let raised: Vec<Epoch> = diesel::sql_query(RAISE)
        .bind::<diesel::sql_types::Uuid, _>(node.uuid())
        .bind::<SqlText, _>(lane.as_str())
        .load(conn)
        .await?;
    Ok(raised.into_iter().next().map(|e| e.epoch))
}

/// Ends the recorded backend of a lane if it is alive.
///
/// # Errors
/// Those of the query.
pub async fn terminate_backend(conn: &mut AsyncPgConnection, node: NodeId, lane: &str) -> diesel::QueryResult<()> {
    diesel::sql_query(TERMINATE)
        .bind::<diesel::sql_types::Uuid, _>(node.uuid())
        .bind::<SqlText, _>(lane)
        .execute(conn)
        .await
        .map(drop)
}
