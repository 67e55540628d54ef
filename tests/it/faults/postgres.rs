//! PostgreSQL is killed, stopped hard and stopped in order under load, and comes back.

use std::time::Duration;

use helve_postgres::cluster::Cluster;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::rig::Rig;
use crate::support::{create_migrated, options};

const KILLED: &str = "postgres killed";
const IMMEDIATE: &str = "postgres stopped at once";
const STOPPED: &str = "postgres stopped";

async fn restarts(optimistic: bool, ways: &[&'static str]) {
    let mut cluster = Cluster::start(options(true)).await.unwrap();
    let database = create_migrated(&cluster, "helve").await;
    let rig = Rig::start(optimistic, &database, &database).await;
    for way in ways {
        rig.progress(30).await;
        let fault = rig.ledger.fault(way, None);
        match *way {
            KILLED => cluster.kill().await,
            IMMEDIATE => {
                let pid = Pid::from_raw(cluster.pid().expect("the server runs"));
                kill(pid, Signal::SIGQUIT).unwrap();
                cluster.ended().await;
            }
            _ => cluster.halt().await,
        }
        // Once for longer than callers wait for a commit.
        let down = if *way == STOPPED { Duration::from_secs(11) } else { Duration::from_millis(500) };
        tokio::time::sleep(down).await;
        cluster.start_again().await.unwrap();
        // The work goes on by itself: the same engine, no restart.
        rig.progress(1).await;
        rig.ledger.healed(fault);
    }
    rig.progress(30).await;
    let expected: Vec<_> = ways.iter().map(|way| (*way, 1)).collect();
    assert_eq!(rig.engine.starts, 1, "the engine lived through it");
    rig.finish(&expected).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_restarts_optimistic() {
    restarts(true, &[KILLED, IMMEDIATE, STOPPED]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_restarts_queued() {
    restarts(false, &[KILLED, IMMEDIATE]).await;
}
