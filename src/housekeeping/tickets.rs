//! Tickets of sockets that were never used, or long ago.

use std::time::Duration;

use helve_domain::clock::Clock;
use helve_supervisor::{Schedule, Supervisor};

use crate::db::{Pool, tickets};

/// How often they are deleted.
const LOOK: Duration = Duration::from_secs(3_600);

/// Starts it.
pub(super) fn start(pool: Pool, clock: Clock, supervisor: &Supervisor) {
    supervisor.every(Schedule::of("tickets", LOOK), move || {
        let (pool, clock) = (pool.clone(), clock.clone());
        async move { tickets::expire(&pool, clock.now()).await }
    });
}
