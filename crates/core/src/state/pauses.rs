//! What is paused, and what starts gently after a pause. Empty as a rule: the hot path asks only that.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
use helve_domain::id::{TenantId, WorkerId};
use helve_domain::pause::{Bucket, MAX_PAUSES, Pause, Paused, Target};

use crate::types::{Flight, QueueKey, Ticket};

/// The shortest time between two looks at a bucket.
const LEAST_WAIT: Duration = Duration::from_millis(10);
/// How soon a full bucket is looked at again while its backlog cannot be seen.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Everything of a shard that is paused or starts gently.
#[derive(Default)]
#[cfg_attr(test, derive(Clone, Debug))]
pub(crate) struct Pauses {
    pub standing: HashMap<(TenantId, Target), Gate>,
    /// What stands in the rows: what memory goes back to when a change is refused.
    pub rows: HashMap<(TenantId, Target), Pause>,
    pub timers: BTreeSet<(Timestamp, TenantId, Target)>,
    /// Callers whose pause is committed while assignments from before it are still being written.
    pub unanswered: Vec<(Ticket, Box<Paused>, BTreeSet<Flight>)>,
}

/// One pause in memory.
#[cfg_attr(test, derive(Clone, Debug))]
pub(crate) struct Gate {
    pub pause: Arc<Pause>,
    /// Of a gentle start.
    pub bucket: Option<Bucket>,
    timer: Option<Timestamp>,
}

impl Gate {
    fn new(pause: Pause, now: Timestamp) -> Self {
        let bucket = pause.resumed.as_ref().map(|r| Bucket::new(r.rate, now));
        Self { pause: Arc::new(pause), bucket, timer: None }
    }

    /// Whether nothing may start now.
    fn is_shut(&self) -> bool {
        !self.bucket.as_ref().is_some_and(Bucket::has_token)
    }

    /// When it is to be looked at again.
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let Some(bucket) = &self.bucket else { return self.pause.expires_at };
        let wait = if bucket.is_full() { LOOK_AGAIN } else { bucket.wait().max(LEAST_WAIT) };
        Some(now.plus(wait))
    }
}

impl Pauses {
    pub fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    pub fn get(&self, tenant: TenantId, target: &Target) -> Option<&Arc<Pause>> {
        self.standing.get(&(tenant, target.clone())).map(|gate| &gate.pause)
    }

    /// How the row stands.
    pub fn written(&self, tenant: TenantId, target: &Target) -> Option<Pause> {
        self.rows.get(&(tenant, target.clone())).cloned()
    }

    pub fn note_written(&mut self, tenant: TenantId, target: &Target, pause: Option<Pause>) {
        let key = (tenant, target.clone());
        match pause {
            Some(pause) => drop(self.rows.insert(key, pause)),
            None => drop(self.rows.remove(&key)),
        }
    }

    /// Whether nothing of the target may start now.
    pub fn shuts(&self, tenant: TenantId, target: Target) -> bool {
        self.standing.get(&(tenant, target)).is_some_and(Gate::is_shut)
    }

    /// Whether nothing of this queue may start now.
    pub fn block(&self, key: &QueueKey) -> bool {
        !self.is_empty()
            && (self.shuts(key.tenant, Target::Action(Arc::clone(&key.action)))
                || key.part.as_ref().is_some_and(|w| self.shuts(key.tenant, Target::Workflow(Arc::clone(w)))))
    }

    /// The queue in which a run waits: that of its action, unless its workflow is paused or starts gently.
    pub fn queue_of(&self, tenant: TenantId, spec: &Spec) -> QueueKey {
        let part = Some(&spec.workflow).filter(|w| !self.is_empty() && self.parts_off(tenant, w, &spec.action));
        QueueKey { tenant, action: Arc::clone(&spec.action), part: part.map(Arc::clone) }
    }

    /// Whether runs of this workflow stand apart from the others of the action.
    fn parts_off(&self, tenant: TenantId, workflow: &Arc<str>, action: &Arc<str>) -> bool {
        let gate = self.standing.get(&(tenant, Target::Workflow(Arc::clone(workflow))));
        gate.is_some_and(|g| g.pause.resumed.as_ref().is_none_or(|r| r.actions.contains(action)))
    }

    /// Whether memory holds a window of this queue: not of a workflow that is paused.
    pub fn opens(&self, key: &QueueKey) -> bool {
        key.part.as_ref().is_none_or(|w| self.is_gentle(key.tenant, w) && self.parts_off(key.tenant, w, &key.action))
    }

    fn is_gentle(&self, tenant: TenantId, workflow: &Arc<str>) -> bool {
        let gate = self.standing.get(&(tenant, Target::Workflow(Arc::clone(workflow))));
        gate.is_some_and(|g| g.bucket.is_some())
    }

    /// The queues beside the one of an action: one for each of its workflows that starts gently.
    pub fn parts(&self, tenant: TenantId, action: &Arc<str>) -> Vec<QueueKey> {
        let mut parts: Vec<QueueKey> = self
            .apart(tenant, action)
            .into_iter()
            .map(|w| QueueKey { tenant, action: Arc::clone(action), part: Some(w) })
            .filter(|key| self.opens(key))
            .collect();
        parts.sort_unstable();
        parts
    }

    /// The workflows whose runs a read of the action's queue leaves out.
    pub fn apart(&self, tenant: TenantId, action: &Arc<str>) -> Vec<Arc<str>> {
        let mut apart: Vec<Arc<str>> = self
            .standing
            .keys()
            .filter_map(|(of, target)| match target {
                Target::Workflow(w) if *of == tenant && self.parts_off(tenant, w, action) => Some(Arc::clone(w)),
                _ => None,
            })
            .collect();
        apart.sort_unstable();
        apart
    }

    /// Whether the tenant may have one more.
    pub fn has_room(&self, tenant: TenantId) -> bool {
        self.standing.len() < MAX_PAUSES || self.standing.keys().filter(|k| k.0 == tenant).count() < MAX_PAUSES
    }

    /// Sets, changes or takes away a pause.
    pub fn set(&mut self, tenant: TenantId, target: &Target, pause: Option<Pause>, now: Timestamp) {
        let key = (tenant, target.clone());
        if let Some(timer) = self.standing.remove(&key).and_then(|old| old.timer) {
            self.timers.remove(&(timer, tenant, target.clone()));
        }
        if let Some(pause) = pause {
            self.standing.insert(key, Gate::new(pause, now));
            self.reset_timer(tenant, target, now);
        }
    }

    fn reset_timer(&mut self, tenant: TenantId, target: &Target, now: Timestamp) {
        let Some(gate) = self.standing.get_mut(&(tenant, target.clone())) else { return };
        let next = gate.next(now);
        let old = std::mem::replace(&mut gate.timer, next);
        if let Some(old) = old {
            self.timers.remove(&(old, tenant, target.clone()));
        }
        if let Some(next) = next {
            self.timers.insert((next, tenant, target.clone()));
        }
    }

    /// A run starts: a token of each gentle start that it belongs to.
    pub fn spend(&mut self, tenant: TenantId, spec: &Spec, worker: WorkerId, now: Timestamp) {
        let targets = [
            Target::Workflow(Arc::clone(&spec.workflow)),
            Target::Action(Arc::clone(&spec.action)),
            Target::Worker(worker),
        ];
        for target in targets {
            let key = (tenant, target);
            let Some(bucket) = self.standing.get_mut(&key).and_then(|gate| gate.bucket.as_mut()) else { continue };
            bucket.refill(now);
            bucket.take();
            self.reset_timer(tenant, &key.1, now);
        }
    }

    /// A target that is due, with its timer taken out.
    pub fn due(&mut self, now: Timestamp) -> Option<(TenantId, Target)> {
        let (_, tenant, target) = self.timers.first().filter(|t| t.0 <= now).cloned()?;
        self.timers.pop_first();
        if let Some(gate) = self.standing.get_mut(&(tenant, target.clone())) {
            gate.timer = None;
        }
        Some((tenant, target))
    }

    /// What has come into a bucket until now. False: it is a pause, and has none.
    pub fn refill(&mut self, tenant: TenantId, target: &Target, now: Timestamp) -> bool {
        let gate = self.standing.get_mut(&(tenant, target.clone()));
        let Some(bucket) = gate.and_then(|gate| gate.bucket.as_mut()) else { return false };
        bucket.refill(now);
        self.reset_timer(tenant, target, now);
        true
    }

    /// Whether a gentle start has tokens that nobody takes.
    pub fn is_full(&self, tenant: TenantId, target: &Target) -> bool {
        let gate = self.standing.get(&(tenant, target.clone()));
        gate.and_then(|gate| gate.bucket.as_ref()).is_some_and(Bucket::is_full)
    }

    /// Pauses of workers that are not among these.
    pub fn of_workers(&self) -> Vec<(TenantId, WorkerId)> {
        let mut workers: Vec<_> = self
            .standing
            .keys()
            .filter_map(|(tenant, target)| match target {
                Target::Worker(worker) => Some((*tenant, *worker)),
                Target::Workflow(_) | Target::Action(_) => None,
            })
            .collect();
        workers.sort_unstable();
        workers
    }
}
