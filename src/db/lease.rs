//! Who owns the shards: nodes with leases, their lanes, and taking over from a node that is gone.
//! Every time here is the database's.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bool, Double, SmallInt, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::StreamExt;
use helve_domain::error::Result;
use helve_domain::id::{NodeId, TenantId};
use helve_domain::secret::Secret;
use helve_postgres::Database;

use super::connect::connect;
use super::failure::map_error;
use super::lane::terminate_backend;
use super::statement::statement;

type SqlUuid = diesel::sql_types::Uuid;

/// What an engine says to all others on its database: a hint, they look anyway. Payload: empty, shards have changed
/// hands or are about to; the tenant whose workflows have changed; or [`DOUBT`] with a node.
pub(super) const CHANNEL: &str = "helve";
/// A node whose lanes are missing is asked to show that it lives, by a look. An engine of an earlier release takes
/// it for a change of shards, and looks as well.
const DOUBT: &str = "look ";

statement! {
    /// The one statement of an idle engine: prepared once.
    Look("sql/lease_look.sql") {
        "1" => node: uuid::Uuid as SqlUuid,
        "2" => ttl: f64 as Double,
    }
}

statement! {
    /// Shards without an owner.
    Take("sql/lease_take.sql") {
        "1" => node: uuid::Uuid as SqlUuid,
        "2" => limit: i64 as BigInt,
    }
}

/// A node, as the database sees it.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Which.
    pub id: NodeId,
    /// Host and port at which other engines reach it.
    pub address: String,
    /// What it wants to be shown by who passes a request on.
    pub secret: Secret,
    /// Its lanes are open.
    pub joined: bool,
    /// It stops.
    pub leaving: bool,
    /// When its lease ends, in microseconds of the database's clock: later with each renewal.
    pub lease: i64,
    /// Rest of its lease; `None`: it has run out.
    pub remaining: Option<Duration>,
    /// A lane of it has a living backend, or is not opened yet.
    pub connected: bool,
    /// The server runs longer than a lease: backends that are missing did not just fall with it.
    pub settled: bool,
    /// What it owns.
    pub shards: Vec<i16>,
}

/// Every node of the database.
#[derive(Debug)]
pub struct View {
    /// The lease of the node that looks was prolonged; false: it has been taken over.
    pub renewed: bool,
    /// By id.
    pub nodes: Vec<NodeView>,
}

/// What another engine said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Shards have changed hands, or are about to.
    Shards,
    /// The tenant's workflows have changed.
    Workflows(TenantId),
    /// Another engine misses this one's lanes: only a renewal shows it that somebody is there.
    Doubted,
    /// The connection has ended: nothing more is heard on it.
    Lost,
}

#[derive(QueryableByName)]
struct NodeRow {
    #[diesel(sql_type = SqlUuid)]
    id: uuid::Uuid,
    #[diesel(sql_type = Text)]
    address: String,
    #[diesel(sql_type = Text)]
    secret: String,
    #[diesel(sql_type = Bool)]
    joined: bool,
    #[diesel(sql_type = Bool)]
    leaving: bool,
    #[diesel(sql_type = Bool)]
    renewed: bool,
    #[diesel(sql_type = BigInt)]
    lease: i64,
    #[diesel(sql_type = Double)]
    remaining: f64,
    #[diesel(sql_type = Bool)]
    connected: bool,
    #[diesel(sql_type = Bool)]
    settled: bool,
    #[diesel(sql_type = Array<SmallInt>)]
    shards: Vec<i16>,
}

#[derive(QueryableByName)]
struct ShardRow {
    #[diesel(sql_type = SmallInt)]
    id: i16,
}

#[derive(QueryableByName)]
struct HostRow {
    #[diesel(sql_type = diesel::sql_types::Nullable<Text>)]
    host: Option<String>,
}

/// The connection on which one node keeps its lease.
pub struct LeaseConnection {
    conn: AsyncPgConnection,
    node: NodeId,
    ttl: f64,
}

impl LeaseConnection {
    /// Connects for `node`, and listens to what other engines say.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn open(database: &Database, node: NodeId, ttl: Duration) -> Result<Self> {
        let mut conn = connect(database, "lease").await?;
        conn.batch_execute(&format!("listen {CHANNEL}")).await.map_err(map_error)?;
        Ok(Self { conn, node, ttl: ttl.as_secs_f64() })
    }

    /// The address from which the database is reached, as it sees it; `None` over a local socket.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn own_host(&mut self) -> Result<Option<String>> {
        let sql = "select host(inet_client_addr()) as host";
        let rows: Vec<HostRow> = diesel::sql_query(sql).load(&mut self.conn).await.map_err(map_error)?;
        Ok(rows.into_iter().next().and_then(|row| row.host))
    }

    /// Makes the node known, with lanes that are not open yet.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn register(&mut self, name: &str, address: &str, secret: &Secret) -> Result<()> {
        let sql = "with node_in as ( \
                insert into node (id, name, address, secret, started_at, expires_at) \
                values ($1, $2, $3, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => $5)) \
                on conflict (id) do update set expires_at = excluded.expires_at returning id \
            ) \
            insert into lane (node, name, epoch, pid, backend_start) \
            select id, l.name, 0, 0, 'epoch' from node_in, (values ('create'), ('finish')) as l (name) \
            on conflict (node, name) do nothing";
        diesel::sql_query(sql)
            .bind::<SqlUuid, _>(self.node.uuid())
            .bind::<Text, _>(name.to_owned())
            .bind::<Text, _>(address.to_owned())
            .bind::<Text, _>(secret.reveal().to_owned())
            .bind::<Double, _>(self.ttl)
            .execute(&mut self.conn)
            .await
            .map(drop)
            .map_err(map_error)
    }

    /// Says that the lanes are open and shards are welcome.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn join(&mut self) -> Result<()> {
        self.mark("update node set joined = true where id = $1").await?;
        self.tell().await
    }

    /// Says that the node stops: others make room for its shards.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn leave(&mut self) -> Result<()> {
        self.mark("update node set leaving = true where id = $1").await?;
        self.tell().await
    }

    async fn mark(&mut self, sql: &str) -> Result<()> {
        let mark = diesel::sql_query(sql).bind::<SqlUuid, _>(self.node.uuid());
        mark.execute(&mut self.conn).await.map(drop).map_err(map_error)
    }

    /// Tells the other engines to look.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn tell(&mut self) -> Result<()> {
        let tell = diesel::sql_query("select pg_notify($1, '')").bind::<Text, _>(CHANNEL);
        tell.execute(&mut self.conn).await.map(drop).map_err(map_error)
    }

    /// Asks another engine for a sign of life: see [`News::Doubted`].
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn doubt(&mut self, other: NodeId) -> Result<()> {
        let ask = diesel::sql_query("select pg_notify($1, $2)")
            .bind::<Text, _>(CHANNEL)
            .bind::<Text, _>(format!("{DOUBT}{}", other.uuid()));
        ask.execute(&mut self.conn).await.map(drop).map_err(map_error)
    }

    /// The next word of another engine. Cancel-safe.
    pub async fn news(&mut self) -> News {
        let node = self.node;
        let mut stream = std::pin::pin!(self.conn.notifications_stream());
        loop {
            match stream.next().await {
                Some(Ok(said)) if said.channel == CHANNEL => match heard(&said.payload, node) {
                    Some(news) => return news,
                    None => continue,
                },
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return News::Lost,
            }
        }
    }

    /// Prolongs the lease and looks at every node.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn look(&mut self) -> Result<View> {
        let look = Look { node: self.node.uuid(), ttl: self.ttl };
        let rows: Vec<NodeRow> = look.load(&mut self.conn).await.map_err(map_error)?;
        let renewed = rows.iter().any(|row| row.renewed);
        let node = |r: NodeRow| NodeView {
            id: NodeId::from_uuid(r.id),
            address: r.address,
            secret: Secret::new(r.secret),
            joined: r.joined,
            leaving: r.leaving,
            lease: r.lease,
            remaining: Duration::try_from_secs_f64(r.remaining).ok().filter(|rest| !rest.is_zero()),
            connected: r.connected,
            settled: r.settled,
            shards: r.shards,
        };
        Ok(View { renewed, nodes: rows.into_iter().map(node).collect() })
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

    /// Takes at most `limit` shards that no known node owns; gives which. None if this node is no longer known.
    ///
    /// # Errors
    /// `Unavailable`; they may be taken all the same: the next look tells.
    pub async fn take_shards(&mut self, limit: usize) -> Result<Vec<i16>> {
        let take = Take { node: self.node.uuid(), limit: i64::try_from(limit).unwrap_or(i64::MAX) };
        let rows: Vec<ShardRow> = take.load(&mut self.conn).await.map_err(map_error)?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Gives shards up. This node must have nothing of them on its way.
    ///
    /// # Errors
    /// `Unavailable`; they may be given up all the same: the next look tells.
    pub async fn release(&mut self, shards: &[i16]) -> Result<()> {
        let sql = "update shard set owner = null where owner = $1 and id = any($2)";
        diesel::sql_query(sql)
            .bind::<SqlUuid, _>(self.node.uuid())
            .bind::<Array<SmallInt>, _>(shards.to_vec())
            .execute(&mut self.conn)
            .await
            .map(drop)
            .map_err(map_error)
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
        self.tell().await
    }
}

/// What a word on the channel means for `node`; `None`: it is for another one.
fn heard(payload: &str, node: NodeId) -> Option<News> {
    if let Some(doubted) = payload.strip_prefix(DOUBT) {
        return (doubted == node.uuid().to_string()).then_some(News::Doubted);
    }
    Some(payload.parse().ok().map(TenantId::from_uuid).map_or(News::Shards, News::Workflows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_is_heard_by_whom_it_is_about() {
        let [me, other] = [1, 2].map(|n| NodeId::from_uuid(uuid::Uuid::from_u128(n)));
        assert_eq!(heard("", me), Some(News::Shards));
        assert_eq!(heard(&format!("{DOUBT}{}", me.uuid()), me), Some(News::Doubted));
        assert_eq!(heard(&format!("{DOUBT}{}", other.uuid()), me), None);
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(3));
        assert_eq!(heard(&tenant.uuid().to_string(), me), Some(News::Workflows(tenant)));
    }
}
