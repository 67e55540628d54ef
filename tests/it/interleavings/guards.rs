//! Two changes of one run that both expect it as it was: the second finds it changed, and does nothing.

use helve::db::lane::{LaneError, LaneName};
use helve_domain::change::Placement;
use helve_domain::clock::Clock;
use helve_domain::id::TenantId;
use helve_domain::status::RunStatus;

use super::rows::{Change, Known, create, holder, large, new_run, place, running};
use super::{Fate, Standing, World};

/// What is left when only this change was made to a run whose input is large.
fn left_by(change: &Change) -> Standing {
    match change {
        Change::End(end) => Standing {
            open: None,
            ended: vec![(end.state.number(), end.guard.attempt)],
            payloads: 1 + i64::from(end.output.is_some()),
            traces: end.reason.iter().map(ToString::to_string).collect(),
        },
        Change::Move(to) => {
            let Placement { state, attempt, retries, worker, .. } = to.place;
            Standing {
                open: Some((state.number(), attempt, retries, worker.map(|w| w.1.uuid().to_string()))),
                ended: Vec::new(),
                payloads: 1,
                traces: to.reason.iter().map(ToString::to_string).collect(),
            }
        }
    }
}

/// Both orders of two changes of a run that stands at `start`, each with both fates of the first.
async fn one_wins(start: Placement, changes: impl Fn(&Known) -> [Change; 2]) {
    let world = World::new().await;
    let nodes = [world.node().await, world.node().await];
    let tenant = TenantId::generate(Clock::system().now());
    let mut creating = world.lane(nodes[0].id, LaneName::Create).await;
    for (order, fate) in [(0, Fate::Commits), (1, Fate::Commits), (0, Fate::Dies), (1, Fate::Dies)] {
        let row = new_run(tenant, start.clone(), None, large());
        create(&mut creating, &row).await.unwrap();
        let run = row.run.id;
        let mut changes = changes(&Known::of(&row));
        changes.rotate_left(order);
        let [first, second] = changes;
        let mut lanes =
            [world.lane(nodes[0].id, LaneName::Finish).await, world.lane(nodes[1].id, LaneName::Finish).await];
        let [a, b] = &mut lanes;
        let outcome = world.race(fate, first.apply(a), second.apply(b)).await;
        let winner = match fate {
            Fate::Commits => {
                assert_eq!(outcome, (Ok(true), Ok(false)), "the first wins, the second misses: {first:?}, {second:?}");
                &first
            }
            Fate::Dies => {
                assert!(matches!(outcome.0, Err(LaneError::Unknown(_))), "{:?}", outcome.0);
                assert_eq!(outcome.1, Ok(true), "the second takes what the first left: {second:?}");
                &second
            }
        };
        assert_eq!(world.standing(run).await, left_by(winner), "{fate:?}: {first:?}, then {second:?}");
        // The loser tries again, as after a lost answer: nothing more happens.
        assert_eq!(second.apply(b).await, Ok(false), "a guard matches once");
        assert_eq!(world.standing(run).await, left_by(winner));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_and_a_cancel() {
    one_wins(place(RunStatus::Queued, 0), |run| [run.claim(holder()), run.cancel()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_claims_of_one_run() {
    one_wins(place(RunStatus::Queued, 3), |run| [run.claim(holder()), run.claim(holder())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_and_the_timeout_of_its_attempt() {
    one_wins(running(2, holder()), |run| [run.finish(), run.time_out()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_sent_twice() {
    one_wins(running(1, holder()), |run| [run.finish(), run.finish()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_and_a_retry() {
    one_wins(running(1, holder()), |run| [run.cancel(), run.retry()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unpark_and_a_cancel() {
    let parked = Placement { retries: 1, ..place(RunStatus::Parked, 2) };
    one_wins(parked, |run| [run.unpark(), run.cancel()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_and_the_start_of_a_retry() {
    let waiting = Placement { retries: 1, ..place(RunStatus::Scheduled, 1) };
    one_wins(waiting, |run| [run.cancel(), run.claim(holder())]).await;
}
