//! What a shard's memory says to those who watch: the load of each action, and the workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use helve_domain::clock::Timestamp;
use helve_domain::id::TenantId;
use helve_domain::run::Priority;

use crate::state::Shard;
use crate::state::queue::Queue;
use crate::state::task::Task;
use crate::types::QueueKey;

/// Runs of one class that are looked at for the oldest one. Ageing puts the oldest of each priority near the head.
const LOOKED_AT: usize = 1_000;

/// One action of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionLoad {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub action: Arc<str>,
    /// Queued runs that memory holds.
    pub queued: usize,
    /// Whether memory holds all that are queued. It does not without a worker, or behind a full window.
    pub whole: bool,
    /// Since when the one that waits longest could have started.
    pub oldest: Option<Timestamp>,
    /// Attempts that workers hold.
    pub running: usize,
    /// Workers with an open socket that offer it and take work.
    pub workers: usize,
    /// Their slots of every kind; a slot may serve several actions.
    pub slots: u64,
    /// How many of those are taken.
    pub used: u64,
}

/// Workers and their slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Workers {
    /// With an open socket, taking work.
    pub connected: usize,
    /// With an open socket, taking no more.
    pub draining: usize,
    /// Without a socket, within their grace.
    pub lost: usize,
    /// Slots of those with a socket.
    pub slots: u64,
    /// How many of those are taken.
    pub used: u64,
}

/// The state of a shard in figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Every action that has a queue or a worker in memory, by tenant and name.
    pub actions: Vec<ActionLoad>,
    /// The workers.
    pub workers: Workers,
}

impl Workers {
    /// Adds those of another shard.
    pub const fn add(&mut self, other: Self) {
        self.connected += other.connected;
        self.draining += other.draining;
        self.lost += other.lost;
        self.slots += other.slots;
        self.used += other.used;
    }
}

impl Task {
    /// From when on the run could have started: where it stands in the queue, without the worth of its priority.
    pub(crate) fn ready_at(&self) -> Timestamp {
        Priority::entered(self.priority, self.rank)
    }
}

impl Shard {
    /// The shard in figures: of one tenant, or of all.
    pub fn survey(&self, tenant: Option<TenantId>) -> Survey {
        let mut found: BTreeMap<QueueKey, ActionLoad> = BTreeMap::new();
        let mut workers = Workers::default();
        let asked = |key: &QueueKey| key.part.is_none() && tenant.is_none_or(|t| t == key.tenant);
        for (key, queue) in self.queues.iter().filter(|(key, _)| asked(key)) {
            // What starts gently waits beside the others; what is paused is not in memory at all.
            let parts = self.pauses.parts(key.tenant, &key.action);
            let paused = self.pauses.apart(key.tenant, &key.action).len() > parts.len();
            let queues = || parts.iter().filter_map(|part| self.queues.get(part)).chain([queue]);
            let load = found.entry(key.clone()).or_insert_with(|| ActionLoad::of(key));
            load.queued = queues().map(Queue::len).sum();
            load.whole = !paused && queues().all(|queue| queue.loaded && queue.horizon.is_none());
            load.oldest = queues().filter_map(|queue| self.oldest(queue)).min();
        }
        for (id, session) in self.sessions.iter().filter(|(_, s)| s.ready && tenant.is_none_or(|t| t == s.tenant)) {
            let sum = |kinds: &BTreeMap<Arc<str>, u32>| kinds.values().map(|n| u64::from(*n)).sum::<u64>();
            let (slots, used) = (sum(&session.info.slots), sum(&session.used));
            match (session.transport.is_some(), session.draining) {
                (true, false) => workers.connected += 1,
                (true, true) => workers.draining += 1,
                (false, _) => workers.lost += 1,
            }
            if session.transport.is_some() {
                workers.slots += slots;
                workers.used += used;
            }
            for action in session.info.actions.iter().filter(|_| session.transport.is_some() && !session.draining) {
                let key = QueueKey::of(session.tenant, Arc::clone(action));
                let load = found.entry(key).or_insert_with_key(ActionLoad::of);
                load.workers += 1;
                load.slots += slots;
                load.used += used;
            }
            for attempt in session.holds.keys() {
                let held = self.tasks.get(&attempt.run).filter(|task| task.is_held_by(*id, attempt.number));
                if let Some(task) = held {
                    found
                        .entry(QueueKey::of(task.tenant, Arc::clone(&task.spec.action)))
                        .or_insert_with_key(ActionLoad::of)
                        .running += 1;
                }
            }
        }
        Survey { actions: found.into_values().collect(), workers }
    }

    fn oldest(&self, queue: &Queue) -> Option<Timestamp> {
        let entries = queue.first_of_each_class(LOOKED_AT);
        entries.filter_map(|(_, run)| self.tasks.get(&run)).map(Task::ready_at).min()
    }
}

impl ActionLoad {
    fn of(key: &QueueKey) -> Self {
        Self::idle(key.tenant, Arc::clone(&key.action))
    }

    /// Nothing to do and nobody there.
    pub const fn idle(tenant: TenantId, action: Arc<str>) -> Self {
        Self { tenant, action, queued: 0, whole: false, oldest: None, running: 0, workers: 0, slots: 0, used: 0 }
    }
}
