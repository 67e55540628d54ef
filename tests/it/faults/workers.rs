//! Workers die, read nothing, or fall silent with their connection open.

use std::time::Duration;

use super::rig::{GRACE, Rig, SILENCE};
use super::worker::Order;
use crate::support::fresh_database;

const KILLED: &str = "worker killed";
const STALLED: &str = "worker stalled";
const HALF_OPEN: &str = "worker half-open";

async fn misbehave(optimistic: bool) {
    let database = fresh_database().await;
    let mut rig = Rig::start(optimistic, &database, &database).await;
    for _ in 0..3 {
        // The oldest dies with whatever it has; another takes its place.
        let victim = rig.workers.remove(0);
        let fault = rig.ledger.fault(KILLED, Some(&victim.name));
        victim.order(Order::Die).await;
        victim.ended().await.unwrap();
        rig.hire();
        rig.progress(30).await;
        rig.ledger.healed(fault);
    }
    // Longer than the engine waits for a confirmation, and than a silent worker may be silent.
    let (stall, freeze) = (Duration::from_secs(8), SILENCE + GRACE + Duration::from_secs(2));
    for _ in 0..2 {
        let [stalled, frozen] = [&rig.workers[0], &rig.workers[1]];
        let faults = [rig.ledger.fault(STALLED, Some(&stalled.name)), rig.ledger.fault(HALF_OPEN, Some(&frozen.name))];
        stalled.order(Order::Stall(stall)).await;
        frozen.order(Order::Freeze(freeze)).await;
        // The third goes on with the work of all.
        rig.progress(60).await;
        tokio::time::sleep(freeze).await;
        rig.progress(30).await;
        for fault in faults {
            rig.ledger.healed(fault);
        }
        rig.workers.rotate_left(1);
    }
    rig.finish(&[(KILLED, 3), (STALLED, 2), (HALF_OPEN, 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_workers_optimistic() {
    misbehave(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_workers_queued() {
    misbehave(false).await;
}
