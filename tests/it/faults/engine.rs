//! The engine is killed at any moment and started again.

use std::time::Duration;

use super::load::Dice;
use super::rig::Rig;
use crate::support::fresh_database;

const KILLED: &str = "engine killed";
const STOPPED: &str = "engine stopped";

async fn kills(optimistic: bool) {
    let database = fresh_database().await;
    let mut rig = Rig::start(optimistic, &database, &database).await;
    let mut dice = Dice::new(41);
    for _ in 0..10 {
        rig.progress(50).await;
        // Anywhere between two commits.
        tokio::time::sleep(Duration::from_micros(dice.below(200_000))).await;
        let fault = rig.ledger.fault(KILLED, None);
        rig.engine.kill9();
        rig.engine.restart().await;
        rig.ledger.healed(fault);
    }
    rig.progress(30).await;
    rig.finish(&[(KILLED, 10)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_optimistic() {
    kills(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_queued() {
    kills(false).await;
}

/// A stop in order is not a fault: workers take their work over to the next engine, nothing is repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_restart_repeats_nothing() {
    let database = fresh_database().await;
    let mut rig = Rig::start(true, &database, &database).await;
    for _ in 0..2 {
        rig.progress(50).await;
        rig.engine.stop().await;
        rig.engine.restart().await;
    }
    rig.progress(50).await;
    let report = rig.finish(&[]).await;
    assert_eq!(report.justified(), 0, "{STOPPED}: {report}");
}

/// Without a fault every run is executed once, plus its planned retries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fault_nothing_is_repeated() {
    for optimistic in [true, false] {
        let database = fresh_database().await;
        let rig = Rig::start(optimistic, &database, &database).await;
        rig.progress(300).await;
        let report = rig.finish(&[]).await;
        assert_eq!(report.justified(), 0, "{report}");
        assert!(report.accepted() >= 300, "{report}");
    }
}
