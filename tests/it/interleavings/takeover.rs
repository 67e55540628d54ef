//! A statement of a node and the fence of another that takes over from it: the statement is committed before the
//! fence returns, or it is never written.

use helve::db::lane::{LaneConnection, LaneError, LaneName};
use helve_domain::change::InsertRow;
use helve_domain::clock::Clock;
use helve_domain::id::TenantId;
use helve_domain::status::RunStatus;

use super::rows::{Known, create, holder, large, new_run, place, running};
use super::{Fate, Node, Standing, World};

/// The two lanes' statements, each seen as: not written, written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Statement {
    Create,
    Finish,
}

/// A node that owns a lane and is about to be taken over from.
struct Owner {
    world: World,
    node: Node,
    successor: Node,
    lane: LaneConnection,
    row: InsertRow,
    statement: Statement,
}

impl Owner {
    async fn about_to(statement: Statement) -> Self {
        let world = World::new().await;
        let (mut node, successor) = (world.node().await, world.node().await);
        assert_eq!(node.lease.take_shards(64).await.unwrap().len(), 64);
        let tenant = TenantId::generate(Clock::system().now());
        let row = match statement {
            Statement::Create => new_run(tenant, place(RunStatus::Queued, 0), None, large()),
            Statement::Finish => new_run(tenant, running(1, holder()), None, large()),
        };
        let mut creating = world.lane(node.id, LaneName::Create).await;
        let lane = match statement {
            Statement::Create => creating,
            Statement::Finish => {
                create(&mut creating, &row).await.unwrap();
                world.lane(node.id, LaneName::Finish).await
            }
        };
        Self { world, node, successor, lane, row, statement }
    }

    fn written(&self) -> Standing {
        match self.statement {
            Statement::Create => Standing { open: Some((1, 0, 0, None)), payloads: 1, ..Standing::default() },
            Statement::Finish => Standing { ended: vec![(10, 1)], payloads: 2, ..Standing::default() },
        }
    }

    fn not_written(&self) -> Standing {
        let session = self.row.place.worker.map(|w| w.1.uuid().to_string());
        match self.statement {
            Statement::Create => Standing::default(),
            Statement::Finish => Standing { open: Some((2, 1, 0, session)), payloads: 1, ..Standing::default() },
        }
    }

    async fn stands(&self) -> Standing {
        self.world.standing(self.row.run.id).await
    }
}

async fn execute(statement: Statement, lane: &mut LaneConnection, row: &InsertRow) -> Result<bool, LaneError> {
    match statement {
        Statement::Create => create(lane, row).await,
        Statement::Finish => Known::of(row).finish().apply(lane).await,
    }
}

/// The statement has done everything but commit when the fence comes: the fence waits for the commit, so what is
/// read after it has the statement's rows.
async fn statement_then_fence(statement: Statement) {
    let mut o = Owner::about_to(statement).await;
    o.successor = World::node_at(&o.world.by_a_stranger().await).await;
    let first = execute(statement, &mut o.lane, &o.row);
    let (executed, fenced) = o.world.race(Fate::Commits, first, o.successor.lease.fence(o.node.id)).await;
    assert_eq!((executed, fenced.is_ok()), (Ok(true), true), "committed, and only then fenced");
    assert_eq!(o.stands().await, o.written());
    assert_eq!(o.successor.lease.take_shards(64).await.unwrap().len(), 64);
    let next = new_run(o.row.run.tenant, place(RunStatus::Queued, 0), None, large());
    let known = Known::of(&next).cancel();
    let later = match statement {
        Statement::Create => create(&mut o.lane, &next).await,
        Statement::Finish => known.apply(&mut o.lane).await,
    };
    assert_eq!(later, Err(LaneError::Fenced), "nothing more from this lane");
    assert_eq!(o.world.standing(next.run.id).await, Standing::default());
}

/// The fence has done everything but commit when the statement comes: the statement waits, and then writes
/// nothing.
async fn fence_then_statement(statement: Statement) {
    let mut o = Owner::about_to(statement).await;
    o.successor = World::node_at(&o.world.by_a_stranger().await).await;
    let second = execute(statement, &mut o.lane, &o.row);
    let (fenced, executed) = o.world.race(Fate::Commits, o.successor.lease.fence(o.node.id), second).await;
    assert_eq!((fenced.is_ok(), executed), (true, Err(LaneError::Fenced)));
    assert_eq!(o.stands().await, o.not_written());
    assert!(!o.node.lease.look().await.unwrap().renewed, "the lease is gone as well");
}

/// The one that takes over dies before its commit: nothing is decided, and the owner goes on.
async fn fence_dies(statement: Statement) {
    let mut o = Owner::about_to(statement).await;
    o.successor = World::node_at(&o.world.by_a_stranger().await).await;
    let second = execute(statement, &mut o.lane, &o.row);
    let (fenced, executed) = o.world.race(Fate::Dies, o.successor.lease.fence(o.node.id), second).await;
    assert_eq!((fenced.is_err(), executed), (true, Ok(true)));
    assert_eq!(o.stands().await, o.written());
    assert!(o.node.lease.look().await.unwrap().renewed, "the owner still is one");
}

/// The ordinary takeover: it ends the backend that executes, so it does not wait for it.
async fn fence_ends_the_backend(statement: Statement) {
    let mut o = Owner::about_to(statement).await;
    o.world.close_gate().await;
    let (held, go) = tokio::sync::oneshot::channel();
    let takeover = async {
        go.await.unwrap();
        o.successor.lease.fence(o.node.id).await
    };
    // The gate opens when the backend is gone: for the fence, which passes through it too.
    let referee = async {
        let pid = o.world.held().await;
        held.send(()).unwrap();
        o.world.ends(pid).await;
        o.world.open_gate().await;
    };
    let (executed, fenced, ()) = tokio::join!(execute(statement, &mut o.lane, &o.row), takeover, referee);
    assert!(matches!(executed, Err(LaneError::Unknown(_))), "{executed:?}");
    assert!(fenced.is_ok());
    assert_eq!(o.stands().await, o.not_written(), "what was not committed is gone");
    let lane = if statement == Statement::Create { LaneName::Create } else { LaneName::Finish };
    let again = LaneConnection::open(&o.world.database, o.node.id, lane).await;
    assert_eq!(again.err(), Some(LaneError::Fenced), "the lane does not open again");
}

/// After a lost answer the owner opens its lane again while the old statement still executes: the new epoch waits
/// for it, reads what it did, and the old connection is out.
async fn statement_then_new_epoch(statement: Statement) {
    let mut o = Owner::about_to(statement).await;
    let stranger = o.world.by_a_stranger().await;
    let lane = if statement == Statement::Create { LaneName::Create } else { LaneName::Finish };
    let first = execute(statement, &mut o.lane, &o.row);
    let again = LaneConnection::open(&stranger, o.node.id, lane);
    let (executed, opened) = o.world.race(Fate::Commits, first, again).await;
    assert_eq!(executed, Ok(true));
    let Ok(mut opened) = opened else { panic!("the owner's lane opens again") };
    let since = Clock::system().now().minus(std::time::Duration::from_secs(60));
    let Ok(traces) = opened.traces(&[o.row.run.id], &[], since).await else { panic!("traces can be read") };
    assert!(traces.has_run(o.row.run.id), "seen by the new epoch");
    assert_eq!(o.stands().await, o.written());
    let old = execute(statement, &mut o.lane, &o.row).await;
    assert_eq!(old, Err(LaneError::Fenced), "the old epoch writes nothing more");
    assert_eq!(o.stands().await, o.written());
}

macro_rules! of_both_lanes {
    ($($name:ident),+) => {$(
        mod $name {
            use super::Statement;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn create() {
                super::$name(Statement::Create).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn finish() {
                super::$name(Statement::Finish).await;
            }
        }
    )+};
}

of_both_lanes!(
    statement_then_fence,
    fence_then_statement,
    fence_dies,
    fence_ends_the_backend,
    statement_then_new_epoch
);
