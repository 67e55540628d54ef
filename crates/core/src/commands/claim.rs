//! Claims: what waits is given to sessions with room, in the order of the queue; and what memory holds of a queue.

use std::sync::Arc;

use helve_domain::delivery::Attempt;
use helve_domain::id::{RunId, SessionId, TenantId};
use helve_domain::status::RunStatus;

use crate::state::Shard;
use crate::state::flight::{Assigned, Change, Step};
use crate::state::offers::offer_of;
use crate::state::queue::Entry;
use crate::state::session::Session;
use crate::state::task::Phase;
use crate::turn::Turn;
use crate::types::{Effect, FinishRow, MoveRow, Placement, QueueKey};

/// Runs in memory of one queue, in windows, when nobody could take most of them.
const PASSED_WINDOWS: usize = 4;

impl Turn<'_> {
    /// A committed queued run enters its queue, if memory is to hold it.
    pub(crate) fn enqueue(&mut self, run: RunId) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let (key, entry) = (self.shard.pauses.queue_of(task.tenant, &task.spec), (task.rank, run));
        let spec = Arc::clone(&task.spec);
        let Some(queue) = self.shard.queues.get_mut(&key) else { return };
        queue.uncommitted.remove(&entry);
        if !queue.loaded || queue.horizon.is_some_and(|h| entry >= h) {
            if queue.loading {
                queue.late.insert(entry);
            }
            return;
        }
        queue.insert(&spec, entry);
        // A bounded window: the last one goes back to being only in the database.
        if queue.len() > self.shard.settings.window * 2
            && (queue.len() > self.shard.settings.window * PASSED_WINDOWS
                || self.shard.served(&key) > self.shard.settings.window * 2)
            && let Some(queue) = self.shard.queues.get_mut(&key)
            && let Some(last) = queue.last()
        {
            queue.horizon = Some(last);
            self.drop_entry(&key, last);
        }
    }

    /// Takes one run out of a window and out of memory.
    pub(crate) fn drop_entry(&mut self, key: &QueueKey, entry: Entry) {
        let Some(task) = self.shard.tasks.get(&entry.1) else { return };
        let spec = Arc::clone(&task.spec);
        if let Some(queue) = self.shard.queues.get_mut(key) {
            queue.remove(&spec, entry);
        }
        if self.shard.tasks.get(&entry.1).is_some_and(|t| t.flight.is_none() && t.timer.is_none()) {
            self.forget(entry.1);
        }
    }

    /// Gives out what waits for one action while sessions have room, each claim a transition of its own.
    pub(crate) fn fill_queue(&mut self, key: &QueueKey) {
        while let Some((run, to)) = self.next_claim(key) {
            let claim = self.claim(run, to);
            self.write_changes(key.tenant, claim.into());
        }
        self.refill(key);
    }

    /// The earliest run of a queue that a session could take now, with the session.
    fn next_claim(&mut self, key: &QueueKey) -> Option<(RunId, Assigned)> {
        let shard = &mut *self.shard;
        if !shard.is_open(key) {
            return None;
        }
        let queue = shard.queues.get(key).filter(|q| q.count > 0)?;
        let offer = offer_of(&mut shard.offers, key)?;
        let (run, session) =
            queue.heads().find_map(|(head, needs)| Some((head.1, offer.pick(&shard.sessions, needs)?)))?;
        Some((run, self.assigned_to(session)?))
    }

    /// A run that waits although a session could take it now: there must be none when nothing is on its way.
    #[cfg(test)]
    pub(crate) fn waits_in_vain(&mut self) -> Option<RunId> {
        let keys: Vec<QueueKey> = self.shard.queues.keys().cloned().collect();
        keys.iter().find_map(|key| self.next_claim(key)).map(|(run, _)| run)
    }

    /// Claims for a session what waits longest for any of its actions, if it has room.
    pub(crate) fn claim_for(&mut self, session: SessionId) -> Option<Change> {
        let s = self.shard.sessions.get(&session).filter(|s| s.takes_work())?;
        let (_, run) = s.info.actions.iter().filter_map(|action| self.shard.first_for(s, action)).min()?;
        let to = self.assigned_to(session)?;
        Some(self.claim(run, to))
    }

    /// Gives a queued run to a session and says what to write.
    pub(crate) fn claim(&mut self, run: RunId, to: Assigned) -> Change {
        self.shard.dequeue(run);
        self.note_start(run);
        let Some(task) = self.shard.tasks.get(&run) else {
            unreachable!("a window holds only runs in memory");
        };
        let attempt = Attempt { run, number: task.attempt + 1 };
        let place = Placement {
            attempt: attempt.number,
            worker: Some((to.worker, to.session)),
            started_at: Some(to.at),
            ..task.rests(RunStatus::Running, None, task.retries)
        };
        let row = MoveRow { want_body: task.body.is_none(), ..task.moves(run, place) };
        let (tenant, spec) = (task.tenant, Arc::clone(&task.spec));
        self.seize(tenant, attempt, &spec, to);
        (FinishRow::Move(Box::new(row)), Step::Assign { run, to })
    }

    /// Puts back a run whose claim was not written.
    pub(crate) fn unclaim(&mut self, run: RunId, session: SessionId) {
        let Some(task) = self.shard.tasks.get_mut(&run) else { return };
        task.flight = None;
        let attempt = Attempt { run, number: task.attempt + 1 };
        self.shard.loosen(session, attempt);
        if self.shard.tasks.get(&run).is_some_and(|t| matches!(t.phase, Phase::Queued { .. })) {
            self.enqueue(run);
        }
    }

    /// Asks for more of a queue when its window runs low.
    pub(crate) fn refill(&mut self, key: &QueueKey) {
        let window = self.shard.settings.window;
        let wanted =
            self.shard.offers.get(&key.whole()).is_some_and(|o| !o.sessions.is_empty()) && self.shard.pauses.opens(key);
        let Some(queue) = self.shard.queues.get(key) else { return };
        let low = match (queue.loaded, queue.horizon) {
            (false, _) => true,
            (true, None) => false,
            (true, Some(_)) if queue.count < window / 2 => true,
            // What nobody could take must not hide what lies behind it.
            (true, Some(_)) => queue.count < window * PASSED_WINDOWS && self.shard.served(key) < window / 2,
        };
        let Some(queue) = self.shard.queues.get_mut(key) else { return };
        if wanted && low && !queue.loading {
            queue.loading = true;
            self.shard.loading_queues += 1;
            let apart = match &key.part {
                None if !self.shard.pauses.is_empty() => self.shard.pauses.apart(key.tenant, &key.action),
                None | Some(_) => Vec::new(),
            };
            self.out.push(Effect::LoadQueue(key.clone(), queue.horizon, window, apart));
        }
    }

    /// A queue that nobody can serve any more, or that is empty and was never read, leaves memory.
    pub(crate) fn close_queue(&mut self, key: &QueueKey) {
        let Some(queue) = self.shard.queues.get_mut(key) else { return };
        queue.loaded = false;
        queue.horizon = None;
        queue.stale = queue.loading;
        let entries = queue.all();
        queue.late.clear();
        for entry in entries {
            self.drop_entry(key, entry);
        }
        self.shard.queues.retain(|k, q| k != key || q.loading || !q.uncommitted.is_empty());
    }

    /// A queued run starts: the pace of its queue is what an estimate is made of.
    pub(crate) fn note_start(&mut self, run: RunId) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let key = self.shard.pauses.queue_of(task.tenant, &task.spec);
        if let Some(queue) = self.shard.queues.get_mut(&key) {
            queue.drain.note(self.now);
        }
    }

    /// As [`Turn::refill`], for everything that waits for an action.
    pub(crate) fn refill_action(&mut self, tenant: TenantId, action: Arc<str>) {
        let key = QueueKey::of(tenant, action);
        self.refill(&key);
        if !self.shard.pauses.is_empty() {
            for part in self.shard.pauses.parts(tenant, &key.action) {
                self.refill(&part);
            }
        }
    }
}

impl Shard {
    /// A run has ended: a window that is being read must not bring it back. It could take the slot once more that a
    /// worker still holds for it.
    pub(crate) fn note_gone(&mut self, run: RunId) {
        let Some(task) = self.tasks.get(&run).filter(|_| self.loading_queues > 0) else { return };
        let whole = QueueKey::of(task.tenant, Arc::clone(&task.spec.action));
        let part = (!self.pauses.is_empty())
            .then(|| QueueKey { part: Some(Arc::clone(&task.spec.workflow)), ..whole.clone() });
        for key in [Some(whole), part].into_iter().flatten() {
            if let Some(queue) = self.queues.get_mut(&key).filter(|queue| queue.loading) {
                queue.gone.insert(run);
            }
        }
    }

    /// A run will be queued when its transition is committed: what comes later does not pass it.
    pub(crate) fn announce(&mut self, run: RunId) {
        let Some(task) = self.tasks.get(&run) else { return };
        let (key, entry) = (self.pauses.queue_of(task.tenant, &task.spec), (task.rank, run));
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.uncommitted.insert(entry);
        }
    }

    /// Takes a run out of its queue because something happens to it.
    pub(crate) fn dequeue(&mut self, run: RunId) {
        let Some(task) = self.tasks.get(&run) else { return };
        let (key, entry) = (self.pauses.queue_of(task.tenant, &task.spec), (task.rank, run));
        let spec = Arc::clone(&task.spec);
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.uncommitted.remove(&entry);
            queue.remove(&spec, entry);
        }
    }

    fn served(&mut self, key: &QueueKey) -> usize {
        let (Some(queue), Some(offer)) = (self.queues.get_mut(key), self.offers.get(&key.whole())) else { return 0 };
        queue.served(|needs| offer.could_take(&self.sessions, needs))
    }

    /// The earliest run that needs an action and that a session could take now.
    pub(crate) fn first_for(&self, s: &Session, action: &Arc<str>) -> Option<Entry> {
        let of = |key: &QueueKey| {
            let queue = self.queues.get(key).filter(|queue| queue.len() > 0 && self.is_open(key))?;
            queue.first_for(s)
        };
        let first = of(&QueueKey::of(s.tenant, Arc::clone(action)));
        if self.pauses.is_empty() {
            return first;
        }
        self.pauses.parts(s.tenant, action).iter().filter_map(of).chain(first).min()
    }
}
