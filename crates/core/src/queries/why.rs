//! Why a run waits, from memory: what decisions look at, and nothing is changed.

use std::sync::Arc;

use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
use helve_domain::id::{RunId, TenantId, WorkerId};
use helve_domain::labels::Requirements;
use helve_domain::pause::{Paused, Target};
use helve_domain::status::RunStatus;
use helve_domain::why::{
    Away, Cause, Estimate, Holder, Place, RUNS, WORKERS, Wait, Why, WorkerState, estimate, estimate_at,
};

use crate::state::Shard;
use crate::state::queue::Queue;
use crate::state::session::Session;
use crate::state::task::{Delivery, Held, Phase, Task};
use crate::turn::Turn;
use crate::types::QueueKey;

/// A run that somebody asks about, as its row has it.
#[derive(Debug, Clone)]
pub struct WhyQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub run: RunId,
    /// What it runs.
    pub spec: Arc<Spec>,
    /// Where the row stands: it counts where memory does not hold the run.
    pub status: RunStatus,
    /// The row's timer.
    pub due: Option<Timestamp>,
    /// Attempts so far.
    pub attempt: i32,
}

impl Turn<'_> {}

impl Shard {
    /// Why a run stands where it stands. `None`: the row says that it runs, and memory does not know it: it has moved
    /// on since the row was read.
    pub fn why(&self, asked: &WhyQuery, now: Timestamp) -> Option<Why> {
        let task = self.tasks.get(&asked.run).filter(|t| t.tenant == asked.tenant);
        let why = |status, cause| Why { status, cause, estimate: None };
        let Some(task) = task else { return self.why_by_row(asked, now) };
        if task.flight.is_some() || self.loading.contains_key(&asked.run) {
            return Some(why(status_of(task), Cause::Writing));
        }
        Some(match &task.phase {
            Phase::New => why(RunStatus::Queued, Cause::Writing),
            Phase::Scheduled { due } => why(RunStatus::Scheduled, later(*due, task.attempt)),
            Phase::Parked => why(RunStatus::Parked, Cause::Parked),
            Phase::Queued { .. } => {
                let (cause, estimate) = self.why_queued(asked.tenant, &task.spec, Some((task.rank, asked.run)), now);
                Why { status: RunStatus::Queued, cause, estimate }
            }
            Phase::Running(held) => why(RunStatus::Running, self.why_running(&task.spec, held)),
        })
    }

    fn why_by_row(&self, asked: &WhyQuery, now: Timestamp) -> Option<Why> {
        match asked.status {
            RunStatus::Scheduled => {
                let cause = later(asked.due.unwrap_or_default(), asked.attempt);
                Some(Why { status: RunStatus::Scheduled, cause, estimate: None })
            }
            RunStatus::Parked => Some(Why { status: RunStatus::Parked, cause: Cause::Parked, estimate: None }),
            RunStatus::Queued => {
                // The run may ask for other labels than its workflow: without it nobody can tell.
                let spec = Spec { labels: Requirements::default(), ..(*asked.spec).clone() };
                let (cause, estimate) = self.why_queued(asked.tenant, &spec, None, now);
                Some(Why { status: RunStatus::Queued, cause, estimate })
            }
            RunStatus::Running | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => None,
        }
    }

    /// In the order in which the scheduler looks at it: a pause, a worker at all, the window, then place and slots.
    fn why_queued(
        &self,
        tenant: TenantId,
        spec: &Spec,
        entry: Option<(i64, RunId)>,
        now: Timestamp,
    ) -> (Cause, Option<Estimate>) {
        let targets = [Target::Workflow(Arc::clone(&spec.workflow)), Target::Action(Arc::clone(&spec.action))];
        let standing = targets.into_iter().filter_map(|target| {
            let pause = self.pauses.get(tenant, &target)?;
            Some(Paused { tenant, target, pause: (**pause).clone() })
        });
        let standing: Vec<Paused> = standing.collect();
        if let Some(paused) = standing.iter().find(|p| p.pause.resumed.is_none()) {
            return (Cause::Paused(Box::new(paused.clone())), None);
        }
        let whole = QueueKey::of(tenant, Arc::clone(&spec.action));
        let offering = self.offering(&whole);
        // A worker that starts gently is there, also between two tokens.
        let is_there = |s: &&&Session| match state_of(s, spec) {
            WorkerState::Open => true,
            WorkerState::Paused => !self.is_paused(s),
            WorkerState::Away | WorkerState::Draining | WorkerState::Congested | WorkerState::OtherLabels => false,
        };
        if !offering.iter().any(|s| is_there(&s)) {
            let count = offering.len();
            let workers = self.holders(&offering, spec);
            return (Cause::NoWorker { action: Arc::clone(&spec.action), workers, count }, None);
        }
        let key = self.pauses.queue_of(tenant, spec);
        let Some(queue) = self.queues.get(&key).filter(|q| q.loaded) else { return (Cause::Loading, None) };
        let place = queue.place(entry);
        if let Some(paused) = standing.into_iter().find(|p| p.pause.resumed.is_some()) {
            let rate = paused.pause.resumed.as_ref().map_or(0.0, |r| r.rate);
            return (Cause::Resuming { paused: Box::new(paused), place }, estimate_at(place, rate));
        }
        let guess = estimate(place, &queue.drain, now);
        let offering: Vec<&Session> = offering.into_iter().filter(|s| spec.labels.allow(&s.info.labels)).collect();
        let fits = |s: &&&Session| s.takes_work() && s.free(&spec.slot_kind) >= spec.slot_cost;
        let total = |s: &Session| s.info.slots.get(&spec.slot_kind).copied().unwrap_or(0);
        let never = offering.iter().all(|s| total(s) < spec.slot_cost);
        let wait = Box::new(Wait {
            action: Arc::clone(&spec.action),
            kind: Arc::clone(&spec.slot_kind),
            cost: spec.slot_cost,
            place,
            count: offering.len(),
            workers: self.holders(&offering, spec),
        });
        if never {
            return (Cause::NoSlot { wait, never }, None);
        }
        if place.exact && place.ahead == 0 && !offering.iter().any(|s| fits(&s)) {
            return (Cause::NoSlot { wait, never }, guess);
        }
        (Cause::Behind { wait }, guess)
    }

    fn why_running(&self, spec: &Spec, held: &Held) -> Cause {
        let received = held.delivery == Delivery::Received;
        let session = self.sessions.get(&held.session);
        let worker = session.map_or_else(|| stranger(held.worker), |s| self.holder_of(s, spec, false));
        Cause::Running { worker, since: held.started_at, received, timeout_at: held.deadline.filter(|_| received) }
    }

    /// Sessions that offer an action, those that could take work first.
    fn offering(&self, key: &QueueKey) -> Vec<&Session> {
        let offer = self.offers.get(key).map(|o| o.sessions.as_slice()).unwrap_or_default();
        let mut offering: Vec<&Session> = offer.iter().filter_map(|id| self.sessions.get(id)).collect();
        offering.sort_unstable_by_key(|s| (!s.takes_work(), s.worker));
        offering
    }

    /// Whether somebody paused the worker, as opposed to a gentle start between two tokens.
    fn is_paused(&self, s: &Session) -> bool {
        self.pauses.get(s.tenant, &Target::Worker(s.worker)).is_some_and(|p| p.resumed.is_none())
    }

    /// A worker with its slots of the kind that a run needs, and who holds them.
    fn holder_of(&self, s: &Session, spec: &Spec, with_runs: bool) -> Holder {
        let holds = s.holds.iter().filter(|(_, hold)| hold.kind == spec.slot_kind && hold.cost > 0);
        let mut runs: Vec<RunId> = holds.map(|(attempt, _)| attempt.run).collect();
        let held = runs.len();
        runs.sort_unstable();
        runs.truncate(if with_runs { RUNS } else { 0 });
        let lost_at = s.lost_at.filter(|_| s.transport.is_none());
        Holder {
            worker: s.worker,
            name: Arc::clone(&s.info.name),
            state: state_of(s, spec),
            lacks: spec.labels.lacking(&s.info.labels),
            away: lost_at.map(|since| Away { since, until: since.plus(self.settings.grace) }),
            slots: s.info.slots.get(&spec.slot_kind).copied().unwrap_or(0),
            used: s.used.get(&spec.slot_kind).copied().unwrap_or(0),
            runs,
            held,
        }
    }

    fn holders(&self, offering: &[&Session], spec: &Spec) -> Vec<Holder> {
        offering.iter().take(WORKERS).map(|s| self.holder_of(s, spec, true)).collect()
    }
}

const fn later(at: Timestamp, attempt: i32) -> Cause {
    if attempt > 0 { Cause::Retry { at, attempt } } else { Cause::Scheduled { at } }
}

const fn status_of(task: &Task) -> RunStatus {
    match task.phase {
        Phase::Scheduled { .. } => RunStatus::Scheduled,
        Phase::New | Phase::Queued { .. } => RunStatus::Queued,
        Phase::Running(_) => RunStatus::Running,
        Phase::Parked => RunStatus::Parked,
    }
}

fn state_of(s: &Session, spec: &Spec) -> WorkerState {
    match s {
        Session { transport: None, .. } => WorkerState::Away,
        Session { draining: true, .. } => WorkerState::Draining,
        Session { congested: true, .. } => WorkerState::Congested,
        Session { paused: true, .. } => WorkerState::Paused,
        _ if !spec.labels.allow(&s.info.labels) => WorkerState::OtherLabels,
        _ => WorkerState::Open,
    }
}

fn stranger(worker: WorkerId) -> Holder {
    Holder {
        worker,
        name: "".into(),
        state: WorkerState::Away,
        lacks: Vec::new(),
        away: None,
        slots: 0,
        used: 0,
        runs: Vec::new(),
        held: 0,
    }
}

impl Queue {
    /// What stands before an entry; before one that memory does not hold, at least the whole window does.
    fn place(&self, entry: Option<(i64, RunId)>) -> Place {
        match entry.filter(|entry| self.horizon.is_none_or(|h| *entry < h)) {
            Some(entry) => Place { ahead: self.before(entry) + self.uncommitted.range(..entry).count(), exact: true },
            None => Place { ahead: self.len(), exact: false },
        }
    }
}
