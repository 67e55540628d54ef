//! Everything that an engine does in the background for its own sake, in one list: weeks of the tables, runs past their
//! retention, old tickets, bulk jobs.

pub mod history;
pub mod jobs;
mod tickets;
mod weeks;

use std::sync::Arc;

use helve_domain::clock::Clock;
use helve_supervisor::Supervisor;

use crate::config::Retention;
use crate::db::{Pool, TenantPools};
use crate::metrics::Metrics;
use crate::ops::definitions::Definitions;
use crate::sched::Scheduler;
use jobs::Jobs;

/// What the loops are made of.
pub struct Parts {
    /// For everything but the runs themselves.
    pub pool: Pool,
    /// For what tenants ask about their jobs.
    pub asked: TenantPools,
    /// Does the work on runs, and knows which shards are this engine's.
    pub scheduler: Scheduler,
    /// Workflows, for replays.
    pub definitions: Definitions,
    /// How long things are kept.
    pub retention: Retention,
    /// What fails is counted.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// Owns the tasks.
    pub supervisor: Supervisor,
}

/// Starts every loop. Gives what takes in bulk jobs.
pub fn start(parts: Parts) -> Jobs {
    let Parts { pool, scheduler, clock, supervisor, retention, .. } = &parts;
    weeks::start(pool.clone(), clock.clone(), supervisor, retention.history);
    tickets::start(pool.clone(), clock.clone(), supervisor);
    let owner = scheduler.clone();
    let sweep = history::Sweep::new(pool.clone(), Arc::clone(&parts.metrics));
    history::start(sweep, clock.clone(), supervisor, move || owner.owned_shards());
    jobs::start(parts)
}
