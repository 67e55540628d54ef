//! The connection between engine and PostgreSQL is cut at each point of a commit, stands still, or is slow.

use std::time::Duration;

use super::load::Dice;
use super::proxy::{Fate, Mode, Proxy, Way};
use super::rig::Rig;
use super::wire::Lane;
use crate::support::fresh_database;

const BEFORE: &str = "cut before the commit";
const AFTER: &str = "cut after the commit";
const WHILE: &str = "cut while the server executes";
const HOLE: &str = "silent network";
/// How long a chosen statement may take to come by.
const LIMIT: Duration = Duration::from_secs(20);

async fn cuts(optimistic: bool) {
    let database = fresh_database().await;
    let proxy = Proxy::start(&database).await;
    let rig = Rig::start(optimistic, &database, &proxy.url).await;
    let mut dice = Dice::new(42);
    let (mut committed, mut aborted) = (0, 0);
    for round in 0..15_usize {
        rig.progress(20).await;
        let lane = if round % 2 == 0 { Lane::Create } else { Lane::Finish };
        let (kind, way) = match round % 3 {
            0 if round % 2 == 0 => (BEFORE, Way::Before),
            0 => (BEFORE, Way::Uncommitted),
            1 => (AFTER, Way::After),
            // Now the statement comes first, now the engine's recovery.
            _ => (WHILE, Way::While(Duration::from_millis([20, 400][round / 3 % 2]))),
        };
        let skip = u32::try_from(dice.below(6)).unwrap();
        let from = rig.ledger.now();
        let fate = proxy.cut(lane, way, skip, LIMIT).await;
        match (way, fate) {
            (_, None) => panic!("round {round}: no {way:?} cut of {lane:?} within {LIMIT:?}"),
            (Way::While(_), Some(Fate::Committed)) => committed += 1,
            (Way::While(_), Some(Fate::Aborted)) => aborted += 1,
            (_, Some(_)) => {}
        }
        rig.ledger.happened(kind, from);
    }
    rig.progress(30).await;
    println!("statements cut while executing: {committed} committed, {aborted} ended by the engine");
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

/// Nothing comes through for longer than the lease, then everything; and it is slow after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_is_survived() {
    let database = fresh_database().await;
    let proxy = Proxy::start(&database).await;
    let rig = Rig::start(true, &database, &proxy.url).await;
    let fault = rig.ledger.fault(HOLE, None);
    proxy.mode(Mode::BlackHole);
    tokio::time::sleep(Duration::from_secs(6)).await;
    proxy.mode(Mode::Pass);
    rig.progress(30).await;
    rig.ledger.healed(fault);
    proxy.mode(Mode::Slow(Duration::from_millis(20)));
    rig.progress(50).await;
    proxy.mode(Mode::Pass);
    assert_eq!(rig.engine.starts, 1, "the engine lived through it");
    rig.finish(&[(HOLE, 1)]).await;
}
