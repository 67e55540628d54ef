//! Statements that race on a real PostgreSQL, in every order: one is held where it has done everything but
//! commit, the other is seen to wait for its locks, and only then does the first commit or die.
//!
//! Each of the two runs in a lane of a node of its own. That is worse than the product allows: there, one
//! statement of one owner is in flight. What holds here does not depend on who believes to be the owner.

mod contents;
mod guards;
mod keys;
mod rows;
mod takeover;

use std::time::Duration;

use helve::db::lane::{LaneConnection, LaneName};
use helve::db::lease::LeaseConnection;
use helve::db::{Pool, partitions};
use helve_domain::clock::Clock;
use helve_domain::id::{NodeId, RunId};
use helve_postgres::Database;
use tokio::sync::oneshot;
use tokio_postgres::Client;

use crate::support::{fresh_database, sql, until};

/// AFTER triggers fire when a statement has done all its work, and before its commit: whoever gets there holds
/// every lock that it will ever hold.
const GATE: &str = "create function gate() returns trigger language plpgsql as \
    $$ begin perform pg_advisory_xact_lock_shared(7); return null; end $$; \
    create trigger gate after insert or update or delete on open_run for each row execute function gate(); \
    create trigger gate after delete on node for each row execute function gate()";

/// What becomes of the statement that is held at the gate.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// It commits.
    Commits,
    /// Its backend ends just before its commit.
    Dies,
}

/// A migrated database with a gate in front of every commit.
struct World {
    database: Database,
    control: Client,
    gate: Client,
}

/// A node with its lease; its lanes are opened when needed.
struct Node {
    id: NodeId,
    lease: LeaseConnection,
}

/// What a run left in the tables.
#[derive(Debug, Clone, PartialEq, Default)]
struct Standing {
    /// State, attempt, retries, session, while it is open.
    open: Option<(i16, i32, i32, Option<String>)>,
    /// State and attempt of each row of the history.
    ended: Vec<(i16, i32)>,
    /// Outputs and inputs that stand apart.
    payloads: i64,
    /// Why it moved, where that was unusual.
    traces: Vec<String>,
}

impl World {
    async fn new() -> Self {
        let url = fresh_database().await;
        let database = Database::at(&url);
        let pool = Pool::new(&Database { pool_size: 1, ..database.clone() }).unwrap();
        partitions::make_ahead(&pool, Clock::system().now()).await.unwrap();
        let (control, gate) = (sql(&url).await, sql(&url).await);
        control.batch_execute(GATE).await.unwrap();
        Self { database, control, gate }
    }

    /// A node that is known, with a lease that does not run out during the test.
    async fn node(&self) -> Node {
        Self::node_at(&self.database).await
    }

    async fn node_at(database: &Database) -> Node {
        let id = NodeId::generate(Clock::system().now());
        let mut lease = LeaseConnection::open(database, id, Duration::from_secs(600)).await.unwrap();
        lease.register("test", "", &helve_domain::secret::Secret::new("")).await.unwrap();
        Node { id, lease }
    }

    async fn lane(&self, node: NodeId, name: LaneName) -> LaneConnection {
        match LaneConnection::open(&self.database, node, name).await {
            Ok(lane) => lane,
            Err(e) => panic!("the lane of a living node: {e:?}"),
        }
    }

    /// The same database by a role that may not end the backends of the others: then the fence alone must do.
    async fn by_a_stranger(&self) -> Database {
        let url = self.database.url.reveal();
        let name = url.split(['/', '?']).nth(3).unwrap();
        let role = format!("{name}_stranger");
        let create = format!("create role {role} login; grant all on all tables in schema public to {role}");
        self.control.batch_execute(&create).await.unwrap();
        Database::at(url.replacen("postgres://postgres@", &format!("postgres://{role}@"), 1))
    }

    async fn close_gate(&self) {
        self.gate.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    }

    async fn open_gate(&self) {
        self.gate.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
    }

    /// The backend that has done everything but commit.
    async fn held(&self) -> i32 {
        let at_gate = "select pid from pg_stat_activity \
            where datname = current_database() and wait_event_type = 'Lock' and wait_event = 'advisory'";
        let ask = || async { self.control.query_opt(at_gate, &[]).await.unwrap().map(|row| row.get(0)) };
        until("the first statement is held before its commit", ask).await
    }

    async fn somebody_waits_for(&self, pid: i32) {
        let behind = "select pid from pg_stat_activity \
            where datname = current_database() and $1 = any(pg_blocking_pids(pid))";
        let ask = || async { self.control.query_opt(behind, &[&pid]).await.unwrap().map(drop) };
        until("the second statement waits for the first", ask).await;
    }

    /// Waits until a backend is gone.
    async fn ends(&self, pid: i32) {
        let alive = "select pid from pg_stat_activity where pid = $1";
        let ask = || async { self.control.query_opt(alive, &[&pid]).await.unwrap().is_none().then_some(()) };
        until("the backend has ended", ask).await;
    }

    /// Runs `first` up to its commit, then `second` until it waits for it, then lets `fate` happen.
    async fn race<A, B>(&self, fate: Fate, first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
        self.close_gate().await;
        let (held, go) = oneshot::channel();
        let second = async {
            go.await.unwrap();
            second.await
        };
        let referee = async {
            let pid = self.held().await;
            held.send(()).unwrap();
            self.somebody_waits_for(pid).await;
            if fate == Fate::Dies {
                self.control.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
            }
            self.open_gate().await;
        };
        let (first, second, ()) = tokio::join!(first, second, referee);
        (first, second)
    }

    /// How a run stands in all tables.
    async fn standing(&self, run: RunId) -> Standing {
        let run = run.uuid().to_string();
        let open = "select state, attempt, retries, session::text from open_run where id = $1::text::uuid";
        let open = self.control.query_opt(open, &[&run]).await.unwrap();
        let ended = "select state, attempt from run_history where id = $1::text::uuid";
        let ended = self.control.query(ended, &[&run]).await.unwrap();
        let payloads = "select count(*) from payload where id = $1::text::uuid";
        let payloads = self.control.query_one(payloads, &[&run]).await.unwrap();
        let traces = "select reason from run_transition where run = $1::text::uuid";
        let traces = self.control.query(traces, &[&run]).await.unwrap();
        Standing {
            open: open.map(|r| (r.get(0), r.get(1), r.get(2), r.get(3))),
            ended: ended.iter().map(|r| (r.get(0), r.get(1))).collect(),
            payloads: payloads.get(0),
            traces: traces.iter().map(|r| r.get(0)).collect(),
        }
    }
}
