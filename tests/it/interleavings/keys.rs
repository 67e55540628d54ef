//! Two creates with one idempotency key, from the lanes of two nodes: one run.

use helve::db::lane::{LaneError, LaneName};
use helve_domain::change::CreateKey;
use helve_domain::clock::Clock;
use helve_domain::id::TenantId;
use helve_domain::status::RunStatus;

use super::rows::{create, large, new_run, place};
use super::{Fate, Standing, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_to_write_a_key_wins_it_and_the_other_writes_nothing() {
    let world = World::new().await;
    let nodes = [world.node().await, world.node().await];
    let tenant = TenantId::generate(Clock::system().now());
    for (order, fate) in [(0, Fate::Commits), (1, Fate::Commits), (0, Fate::Dies), (1, Fate::Dies)] {
        let key =
            CreateKey { tenant, scope: "work".into(), key: format!("{order} {fate:?}").into(), body_hash: [7; 32] };
        let [first, second] = [0, 1].map(|_| new_run(tenant, place(RunStatus::Queued, 0), Some(key.clone()), large()));
        let mut a = world.lane(nodes[order].id, LaneName::Create).await;
        let mut b = world.lane(nodes[1 - order].id, LaneName::Create).await;
        let outcome = world.race(fate, create(&mut a, &first), create(&mut b, &second)).await;
        let (winner, loser) = match fate {
            Fate::Commits => {
                assert_eq!(outcome, (Ok(true), Ok(false)), "the key was taken");
                (&first, &second)
            }
            Fate::Dies => {
                assert!(matches!(outcome.0, Err(LaneError::Unknown(_))), "{:?}", outcome.0);
                assert_eq!(outcome.1, Ok(true), "a key that was not committed is free");
                (&second, &first)
            }
        };
        let written = Standing { open: Some((1, 0, 0, None)), payloads: 1, ..Standing::default() };
        assert_eq!(world.standing(winner.run.id).await, written);
        assert_eq!(world.standing(loser.run.id).await, Standing::default(), "no run, no payload");
        let target =
            "select target::text from idempotency where tenant = $1::text::uuid and scope = 'work' and key = $2";
        let target = world.control.query_one(target, &[&tenant.uuid().to_string(), &&*key.key]).await.unwrap();
        assert_eq!(target.get::<_, String>(0), winner.run.id.uuid().to_string());
        assert_eq!(create(&mut b, &first).await, Ok(false), "taken also for a repetition");
    }
}
