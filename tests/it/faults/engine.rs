//! The engine is killed at any moment and started again.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::load::Dice;
use super::oracle::Finding;
use super::rig::Rig;
use crate::support::{fresh_database, sql};

/// G9: after the engine's death the work goes on within this time.
const GOES_ON: Duration = Duration::from_secs(5);
const KILLED: &str = "engine killed";
const REPLACED: &str = "engine frozen and replaced";
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
        let died = rig.ledger.now();
        rig.engine.restart().await;
        rig.progress(1).await;
        rig.ledger.healed(fault);
        let pause = rig.ledger.now().since(died);
        assert!(pause < GOES_ON, "G9: after its death the work stood still for {pause:?}");
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

/// An engine stands still, another takes over, and the first goes on with what it had in its hands: results and
/// triggers that lie in its sockets. Nothing of that may be written.
async fn replacements(optimistic: bool) {
    let database = fresh_database().await;
    let mut rig = Rig::start(optimistic, &database, &database).await;
    for _ in 0..2 {
        rig.progress(50).await;
        let fault = rig.ledger.fault(REPLACED, None);
        rig.engine.signal(Signal::SIGSTOP);
        let mut other = rig.engine.twin().await;
        rig.engine.signal(Signal::SIGCONT);
        // Long enough for everything that it had begun.
        tokio::time::sleep(Duration::from_secs(2)).await;
        other.stop().await;
        rig.engine.revive().await;
        rig.progress(1).await;
        rig.ledger.healed(fault);
    }
    rig.progress(50).await;
    rig.finish(&[(REPLACED, 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_engine_writes_nothing_optimistic() {
    replacements(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_engine_writes_nothing_queued() {
    replacements(false).await;
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

/// The oracle sees what is really in the store: spoil it, and it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_store_is_found() {
    let database = fresh_database().await;
    let rig = Rig::start(true, &database, &database).await;
    let end = rig.end().await;
    end.judge(&[]).await.assert_clean();
    let pause = end.ledger.facts().pauses[0];
    let within = pause.from.plus(pause.until.unwrap().since(pause.from) / 2);
    let spoil = "with picked as (select id, row_number() over () as n from run_history
            where state = 10 and event is null and workflow = 'load' limit 5),
        lost as (delete from run_history where id = (select id from picked where n = 1)),
        wrong as (update run_history set output = '{}' where id = (select id from picked where n = 2)),
        unended as (update run_history set state = 2 where id = (select id from picked where n = 3)),
        parked as (insert into run_transition (run, tenant, at, attempt, state, reason)
            select id, tenant, finished_at, 1, 4, 'parked' from run_history where id = (select id from picked where n = 5)),
        gone as (delete from event where id = (select id from event where runs = '{}' limit 1)),
        bare as (update event set runs = '{}' where id = (select id from event where runs <> '{}' limit 1)),
        moved as (update run_history set started_at = 'WITHIN'
            where id = (select id from run_history where workflow = 'load-pausing' and state = 10 limit 1))
        insert into run_history select * from run_history where id = (select id from picked where n = 4)";
    let spoil = spoil.replace("WITHIN", &within.to_string());
    assert_eq!(sql(&end.database).await.execute(&spoil, &[]).await.unwrap(), 1);
    let report = end.judge(&[]).await;
    use Finding::{DoubleAccept, EventLost, EventRuns, Lost, StartedWhilePaused, Stuck, WrongOutput, WrongPark};
    for finding in [Lost, WrongOutput, Stuck, DoubleAccept, EventLost, EventRuns, WrongPark, StartedWhilePaused] {
        assert!(report.count(finding) > 0, "{finding:?} was not found:\n{report}");
    }
}
