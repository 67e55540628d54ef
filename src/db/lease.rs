//! Who owns the shards: nodes with leases, their lanes, and taking over from a node that is gone.
//! Every time here is the database's.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Double, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::connect::connect;
use super::failure::map_error;
use super::lane::terminate_backend;
use super::statement::statement;
use crate::config::Database;
use crate::error::Result;
use crate::id::NodeId;

type SqlUuid = diesel::sql_types::Uuid;

statement! {
    /// The one statement of an idle engine: prepared once.
    Renew("sql/lease_renew.sql") {
        "1" => node: uuid::Uuid as SqlUuid,
        "2" => ttl: f64 as Double,
    }
}

/// Another node, as the database sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherNode {
    /// Which.
    pub id: NodeId,
    /// Its lease has run out.
    pub expired: bool,
    /// A lane of it has a living backend, or is not opened yet.
    pub connected: bool,
    /// The server runs longer than a lease: backends that are missing did not just fall with it.
    pub settled: bool,
}

#[derive(QueryableByName)]
struct NodeRow {
    #[diesel(sql_type = SqlUuid)]
    id: uuid::Uuid,
    #[diesel(sql_type = Bool)]
    expired: bool,
    #[diesel(sql_type = Bool)]
    connected: bool,
    #[diesel(sql_type = Bool)]
    settled: bool,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// The connection on which one node keeps its lease.
pub struct LeaseConnection {
    conn: AsyncPgConnection,
    node: NodeId,
    ttl: f64,
}

impl LeaseConnection {
    /// Connects for `node`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn open(database: &Database, node: NodeId, ttl: Duration) -> Result<Self> {
        Ok(Self { conn: connect(database, "lease").await?, node, ttl: ttl.as_secs_f64() })
    }

    /// Makes the node known, with lanes that are not open yet.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn register(&mut self, name: &str) -> Result<()> {
        let sql = "with node_in as ( \
                insert into node (id, name, started_at, expires_at) \
                values ($1, $2, clock_timestamp(), clock_timestamp() + make_interval(secs => $3)) \
                on conflict (id) do update set expires_at = excluded.expires_at returning id \
            ) \
            insert into lane (node, name, epoch, pid, backend_start) \
            select id, l.name, 0, 0, 'epoch' from node_in, (values ('create'), ('finish')) as l (name) \
            on conflict (node, name) do nothing";
        diesel::sql_query(sql)
            .bind::<SqlUuid, _>(self.node.uuid())
            .bind::<Text, _>(name.to_owned())
            .bind::<Double, _>(self.ttl)
            .execute(&mut self.conn)
            .await
            .map(drop)
            .map_err(map_error)
    }

    /// Prolongs the lease. False: the node has been taken over.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn renew(&mut self) -> Result<bool> {
        let renew = Renew { node: self.node.uuid(), ttl: self.ttl };
        let renewed = renew.execute(&mut self.conn).await.map_err(map_error)?;
        Ok(renewed == 1)
    }

    /// Every other node.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn others(&mut self) -> Result<Vec<OtherNode>> {
        let sql = "select n.id, n.expires_at < clock_timestamp() as expired, \
                exists ( \
                    select from lane l join pg_stat_activity a on a.pid = l.pid and a.backend_start = l.backend_start \
                    where l.node = n.id \
                ) or exists (select from lane l where l.node = n.id and l.pid = 0) as connected, \
                clock_timestamp() - pg_postmaster_start_time() > make_interval(secs => $2) as settled \
            from node n where n.id <> $1";
        let rows: Vec<NodeRow> = diesel::sql_query(sql)
            .bind::<SqlUuid, _>(self.node.uuid())
            .bind::<Double, _>(self.ttl)
            .load(&mut self.conn)
            .await
            .map_err(map_error)?;
        let node = |r: NodeRow| OtherNode {
            id: NodeId::from_uuid(r.id),
            expired: r.expired,
            connected: r.connected,
            settled: r.settled,
        };
        Ok(rows.into_iter().map(node).collect())
    }

    /// Makes sure that another node writes nothing any more: its backends end, its lanes are closed
    /// (which waits for a statement that is still executing), and it is forgotten. Committed on return:
    /// only later statements see all that it wrote.
    ///
    /// # Errors
    /// `Unavailable`; then nothing is decided.
    pub async fn fence(&mut self, other: NodeId) -> Result<()> {
        for lane in ["create", "finish"] {
            terminate_backend(&mut self.conn, other, lane).await.map_err(map_error)?;
        }
        let fence = async |conn: &mut AsyncPgConnection| {
            // In the order of their names: two that fence at once must not wait for each other.
            for sql in [
                "update lane set fenced = true where node = $1 and name = 'create'",
                "update lane set fenced = true where node = $1 and name = 'finish'",
                "delete from node where id = $1",
            ] {
                diesel::sql_query(sql).bind::<SqlUuid, _>(other.uuid()).execute(conn).await?;
            }
            Ok::<_, diesel::result::Error>(())
        };
        self.conn.transaction(fence).await.map_err(map_error)
    }

    /// Takes every shard that no known node owns. Gives how many this node owns now.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn take_shards(&mut self) -> Result<i64> {
        let take = "update shard set owner = $1, epoch = epoch + 1 \
            where owner is null or owner not in (select id from node)";
        diesel::sql_query(take)
            .bind::<SqlUuid, _>(self.node.uuid())
            .execute(&mut self.conn)
            .await
            .map_err(map_error)?;
        let count: Vec<Count> = diesel::sql_query("select count(*) as n from shard where owner = $1")
            .bind::<SqlUuid, _>(self.node.uuid())
            .load(&mut self.conn)
            .await
            .map_err(map_error)?;
        Ok(count.into_iter().next().map_or(0, |c| c.n))
    }

    /// Gives everything up, at a clean stop: a successor need not wait.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn resign(&mut self) -> Result<()> {
        for sql in [
            "update shard set owner = null where owner = $1",
            "delete from node where id = $1",
            "delete from lane l where l.node = $1 or not exists (select from node n where n.id = l.node)",
        ] {
            diesel::sql_query(sql)
                .bind::<SqlUuid, _>(self.node.uuid())
                .execute(&mut self.conn)
                .await
                .map_err(map_error)?;
        }
        Ok(())
    }
}
