//! Deletes runs that have been kept as long as their workflow or tenant says. Whole weeks past the engine's retention are
//! dropped by [`super::weeks`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::{Clock, Timestamp};
use helve_domain::error::{Error, Result};
use helve_domain::id::{RunId, TenantId};
use helve_supervisor::{Schedule, Supervisor};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::db::Pool;
use crate::db::retention::{self, Finished, Rule};
use crate::metrics::Metrics;
use crate::ops::retention::of_definition;

/// How often what has become too old is looked for.
const LOOK: Duration = Duration::from_secs(600);
/// How often a tenant's history is looked through from its beginning: what ended long after it was created lies behind
/// the place up to which everything was done.
const WHOLE: Duration = Duration::from_secs(24 * 3_600);
/// Rows of one read.
const PAGE: usize = 2_000;
/// Runs of one statement.
const BATCH: usize = 500;
/// Reads of one rule in one pass: others have their turn.
const PAGES: usize = 500;
/// After so many failures in a row it is the database.
const FAILURES: u32 = 3;
/// The pause after each statement.
const REST: Duration = Duration::from_millis(20);

/// Which of a tenant's runs are kept for one time.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    /// Those of these workflows.
    Of(BTreeSet<String>),
    /// Those of all but these.
    NotOf(BTreeSet<String>),
}

impl Which {
    fn has(&self, workflow: &str) -> bool {
        match self {
            Self::Of(names) => names.contains(workflow),
            Self::NotOf(names) => !names.contains(workflow),
        }
    }
}

/// What is known to be done.
struct Progress {
    which: Which,
    /// Everything up to here was looked at.
    place: (Timestamp, RunId),
    /// When it was looked through from the beginning.
    whole_at: Timestamp,
}

/// Deletes what is older than its tenant or workflow says.
pub struct Sweep {
    pool: Pool,
    metrics: Arc<Metrics>,
    /// By tenant and time. Lost with the process: the next one begins anew.
    progress: Mutex<HashMap<(TenantId, Duration), Progress>>,
}

/// Starts the sweep. `owned` gives the shards whose tenants are this process's.
pub fn start(sweep: Sweep, clock: Clock, supervisor: &Supervisor, owned: impl Fn() -> Vec<i16> + Send + 'static) {
    let sweep = Arc::new(sweep);
    let stopping = supervisor.stopping();
    let schedule = Schedule::of("retention", LOOK);
    supervisor.every(schedule, move || {
        let (sweep, shards, now, stopping) = (Arc::clone(&sweep), owned(), clock.now(), stopping.clone());
        async move {
            match sweep.pass(shards, now, &stopping).await {
                Err(e @ (Error::Unavailable { .. } | Error::OutcomeUnknown)) => {
                    warn!(error = %e, "old runs cannot be deleted now");
                    Ok(())
                }
                other => other.map(drop),
            }
        }
    });
}

impl Sweep {
    /// Knows nothing yet.
    pub fn new(pool: Pool, metrics: Arc<Metrics>) -> Self {
        Self { pool, metrics, progress: Mutex::default() }
    }

    /// Deletes what is too old at `now`, of the tenants of these shards. Gives how many runs. A tenant whose runs cannot be
    /// deleted is logged and counted, and keeps no other one waiting.
    ///
    /// # Errors
    /// `Unavailable`, `OutcomeUnknown`: the database is away, the next pass goes on.
    pub async fn pass(&self, shards: Vec<i16>, now: Timestamp, stopping: &CancellationToken) -> Result<i64> {
        if shards.is_empty() {
            return Ok(0);
        }
        let mut progress = self.progress.lock().await;
        let (mut gone, mut in_a_row) = (0, 0);
        let rules = by_time(retention::rules(&self.pool, shards).await?);
        progress.retain(|key, _| rules.contains_key(key));
        for ((tenant, keep), which) in rules {
            let known = progress.remove(&(tenant, keep));
            let known = known.filter(|p| p.which == which && now.since(p.whole_at) < WHOLE);
            let beginning = (Timestamp::from_micros(0), RunId::from_uuid(uuid::Uuid::nil()));
            let mut at = known.unwrap_or(Progress { which, place: beginning, whole_at: now });
            let swept = self.tenant(tenant, now.minus(keep), &mut at, stopping).await;
            progress.insert((tenant, keep), at);
            match swept {
                Ok(n) => {
                    gone += n;
                    in_a_row = 0;
                }
                // Something of this tenant's rows, or of somebody who holds or forbids them: others have their turn.
                Err(e) => {
                    self.metrics.retention_failed.inc();
                    warn!(error = %e, tenant.id = %tenant, "old runs of a tenant cannot be deleted, the next pass will try");
                    in_a_row += 1;
                    if in_a_row >= FAILURES && matches!(e, Error::Unavailable { .. } | Error::OutcomeUnknown) {
                        return Err(e);
                    }
                }
            }
        }
        Ok(gone)
    }

    /// What one time of one tenant leaves to be deleted.
    async fn tenant(
        &self,
        tenant: TenantId,
        before: Timestamp,
        at: &mut Progress,
        stopping: &CancellationToken,
    ) -> Result<i64> {
        let mut gone = 0;
        for _ in 0..PAGES {
            if stopping.is_cancelled() {
                break;
            }
            let page = retention::page(&self.pool, tenant, at.place, before, PAGE).await?;
            let old: Vec<&Finished> =
                page.iter().filter(|run| run.finished_at < before && at.which.has(&run.workflow)).collect();
            for batch in old.chunks(BATCH) {
                gone += retention::delete(&self.pool, tenant, batch).await?;
                tokio::time::sleep(REST).await;
            }
            if let Some(last) = page.last() {
                at.place = (last.created_at, last.run);
            }
            if page.len() < PAGE {
                break;
            }
        }
        if gone > 0 {
            debug!(tenant.id = %tenant, runs = gone, "deleted runs past their retention");
        }
        Ok(gone)
    }
}

/// The runs of each tenant, by the time that they are kept: the workflows that say so, and all others for the tenant's.
fn by_time(rules: Vec<Rule>) -> BTreeMap<(TenantId, Duration), Which> {
    let mut tenants: BTreeMap<TenantId, (Option<Duration>, BTreeMap<String, Duration>)> = BTreeMap::new();
    for Rule { tenant, default, workflow } in rules {
        let (of_tenant, workflows) = tenants.entry(tenant).or_default();
        *of_tenant = default;
        let said = workflow.and_then(|(name, definition)| Some((name, of_definition(&definition)?)));
        workflows.extend(said);
    }
    let mut times = BTreeMap::new();
    for (tenant, (of_tenant, workflows)) in tenants {
        let times_of: BTreeSet<Duration> = workflows.values().copied().chain(of_tenant).collect();
        for keep in times_of {
            let which = if of_tenant == Some(keep) {
                Which::NotOf(workflows.iter().filter(|(_, k)| **k != keep).map(|(name, _)| name.clone()).collect())
            } else {
                Which::Of(workflows.iter().filter(|(_, k)| **k == keep).map(|(name, _)| name.clone()).collect())
            };
            times.insert((tenant, keep), which);
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use helve_domain::json::Payload;

    use super::*;

    #[test]
    fn every_workflow_has_one_time_and_the_tenant_s_is_for_the_rest() {
        let tenant = TenantId::generate(Timestamp::from_micros(1));
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        let rule = |default: Option<u64>, name: &str, keep: &str| Rule {
            tenant,
            default: default.map(hours),
            workflow: Some((
                name.to_owned(),
                Payload::trusted(Bytes::from(format!(r#"{{"tasks":[{{"name":"t"}}]{keep}}}"#))),
            )),
        };
        let rules = vec![
            rule(Some(5), "short", r#","retention":"1h""#),
            rule(Some(5), "same", r#","retention":"5h""#),
            // The word stands in it, but says nothing.
            rule(Some(5), "none", r#","description":"\"retention\"""#),
        ];
        let times = by_time(rules);
        assert_eq!(times.len(), 2);
        let short = &times[&(tenant, hours(1))];
        assert!(short.has("short") && !short.has("same") && !short.has("none"));
        let rest = &times[&(tenant, hours(5))];
        assert!(!rest.has("short") && rest.has("same") && rest.has("none") && rest.has("another"));
        // Without a word of the tenant, what says nothing stays.
        let times = by_time(vec![rule(None, "short", r#","retention":"1h""#)]);
        assert_eq!(times.len(), 1);
        assert!(!times[&(tenant, hours(1))].has("another"));
    }
}
