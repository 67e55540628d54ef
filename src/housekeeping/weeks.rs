//! Weeks of the tables that are cut by time: made before anything needs them, dropped when all in them is too old.

use std::time::Duration;

use helve_domain::clock::Clock;
use helve_supervisor::{Schedule, Supervisor};

use crate::db::{Pool, partitions};

/// How often both are looked at.
const LOOK: Duration = Duration::from_secs(3_600);

/// Starts it. `keep`: how long the engine keeps anything.
pub(super) fn start(pool: Pool, clock: Clock, supervisor: &Supervisor, keep: Duration) {
    supervisor.every(Schedule::of("partitions", LOOK), move || {
        let (pool, clock) = (pool.clone(), clock.clone());
        async move {
            let made = partitions::make_ahead(&pool, clock.now()).await;
            let dropped = partitions::drop_old(&pool, clock.now(), keep).await;
            // Where one of them cannot be done, the other is all the same.
            made.and(dropped)
        }
    });
}
