//! The connection between engine and PostgreSQL is cut at each point of a commit, stands still, or is slow.

use std::time::Duration;

use helve_supervisor::Supervisor;

use super::load::Dice;
use super::proxy::{Fate, First, Mode, Proxy, Way};
use super::rig::Rig;
use super::wire::Lane;
use crate::support::fresh_database;

const BEFORE: &str = "cut before the commit";
const AFTER: &str = "cut after the commit";
const WHILE: &str = "cut while the server executes";
const HOLE: &str = "silent network";
/// How long a chosen statement may take to come by.
const LIMIT: Duration = Duration::from_secs(20);

/// Five cuts of each kind, over both lanes, and what must have become of the statement.
const CUTS: [(&str, Way, Lane, Fate); 15] = [
    (BEFORE, Way::Before, Lane::Create, Fate::Aborted),
    (AFTER, Way::After, Lane::Finish, Fate::Committed),
    (WHILE, Way::While(First::Statement), Lane::Create, Fate::Committed),
    (BEFORE, Way::Uncommitted, Lane::Finish, Fate::Aborted),
    (AFTER, Way::After, Lane::Create, Fate::Committed),
    (WHILE, Way::While(First::Engine), Lane::Finish, Fate::Aborted),
    (BEFORE, Way::Before, Lane::Finish, Fate::Aborted),
    (AFTER, Way::After, Lane::Create, Fate::Committed),
    (WHILE, Way::While(First::Statement), Lane::Finish, Fate::Committed),
    (BEFORE, Way::Uncommitted, Lane::Create, Fate::Aborted),
    (AFTER, Way::After, Lane::Finish, Fate::Committed),
    (WHILE, Way::While(First::Engine), Lane::Create, Fate::Aborted),
    (BEFORE, Way::Before, Lane::Create, Fate::Aborted),
    (AFTER, Way::After, Lane::Create, Fate::Committed),
    (WHILE, Way::While(First::Statement), Lane::Finish, Fate::Committed),
];

async fn cuts(optimistic: bool) {
    let database = fresh_database().await;
    let proxy = Proxy::start(&database, &Supervisor::default()).await.unwrap();
    let rig = Rig::start(optimistic, &database, &proxy.url).await;
    let mut dice = Dice::new(42);
    for (kind, way, lane, expected) in CUTS {
        rig.progress(20).await;
        let skip = u32::try_from(dice.below(6)).unwrap();
        let from = rig.ledger.now();
        let fate = proxy.cut(lane, way, skip, LIMIT).await;
        assert_eq!(fate, Some(expected), "{way:?} of {lane:?}: none means that no statement came within {LIMIT:?}");
        rig.ledger.happened(kind, from);
    }
    rig.progress(30).await;
    assert_eq!(rig.engine.starts, 1, "the engine lived through it");
    rig.finish(&[(BEFORE, 5), (AFTER, 5), (WHILE, 5)]).await;
    assert!(proxy.statements(Lane::Create) > 50 && proxy.statements(Lane::Finish) > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_cuts_optimistic() {
    cuts(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_cuts_queued() {
    cuts(false).await;
}

/// Nothing comes through for longer than the lease and than callers wait, then everything; and it is slow after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_is_survived() {
    let database = fresh_database().await;
    let proxy = Proxy::start(&database, &Supervisor::default()).await.unwrap();
    let rig = Rig::start(true, &database, &proxy.url).await;
    let fault = rig.ledger.fault(HOLE, None);
    proxy.mode(Mode::BlackHole);
    tokio::time::sleep(Duration::from_secs(12)).await;
    proxy.mode(Mode::Pass);
    rig.progress(30).await;
    rig.ledger.healed(fault);
    proxy.mode(Mode::Slow(Duration::from_millis(20)));
    rig.progress(50).await;
    proxy.mode(Mode::Pass);
    assert_eq!(rig.engine.starts, 1, "the engine lived through it");
    rig.finish(&[(HOLE, 1)]).await;
}
