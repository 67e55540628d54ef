//! Queues: what waits for one action, by rank, and who could take it.
//!
//! Memory holds a window of each queue that has a worker: everything before the *horizon*. What lies at or
//! beyond the horizon may be only in the database and is read when the window runs low. Within a window,
//! runs that need the same slots and labels form a class: a class whose head finds no slot is
//! blocked as a whole, and never blocks another.

#[cfg(test)]
use std::collections::BTreeMap;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use helve_domain::definition::Spec;
use helve_domain::delivery::Attempt;
use helve_domain::id::{RunId, SessionId};
use helve_domain::status::RunStatus;
use helve_domain::why::Drain;

use super::flight::{Assigned, Change, Step};
use super::placement::{Needs, offer_of};
use super::session::Session;
use super::state::Shard;
use super::task::Phase;
use super::turn::Turn;
use super::types::{Effect, FinishRow, Mark, MoveRow, Placement, QueueKey};

/// Runs in memory of one queue, in windows, when nobody could take most of them.
const PASSED_WINDOWS: usize = 4;
/// Classes of one queue that are looked at for a worker who could take them.
const PASSED_CLASSES: usize = 256;

/// A place in a queue: rank, then id.
pub(super) type Entry = (i64, RunId);

/// What one action's waiting runs look like in memory.
#[derive(Default)]
#[cfg_attr(test, derive(Clone, Debug))]
pub(super) struct Queue {
    classes: Vec<Class>,
    count: usize,
    /// False until the head was read: an unread backlog counts as ahead of everything.
    pub loaded: bool,
    pub loading: bool,
    /// The queue was closed while a read was on its way: its rows say nothing about the reopened one.
    pub stale: bool,
    /// Rows at or beyond it may be only in the database; `None`: memory holds all.
    pub horizon: Option<Entry>,
    /// Queued runs that are not committed: ahead of what comes later, and not claimable yet.
    pub uncommitted: BTreeSet<Entry>,
    /// Committed beyond the horizon while a read is on its way: the read may have missed them.
    pub late: BTreeSet<Entry>,
    /// Ended while a read is on its way: the read may still bring them.
    pub gone: HashSet<RunId>,
    /// Starts of the last minute.
    pub drain: Drain,
}

#[cfg_attr(test, derive(Clone, Debug))]
struct Class {
    needs: Needs,
    entries: BTreeSet<Entry>,
    /// Whether some worker could take it when it has room; `None`: not looked at since the last change.
    served: Option<bool>,
}

impl Queue {
    pub const fn len(&self) -> usize {
        self.count
    }

    fn class(&self, spec: &Spec) -> Option<&Class> {
        self.classes.iter().find(|c| c.needs.is_of(spec))
    }

    pub fn holds(&self, spec: &Spec, entry: Entry) -> bool {
        self.late.contains(&entry) || self.class(spec).is_some_and(|c| c.entries.contains(&entry))
    }

    /// Whether nothing that could run is ahead of a newcomer of this class.
    pub fn is_clear(&self, spec: &Spec) -> bool {
        self.loaded
            && self.horizon.is_none()
            && self.uncommitted.is_empty()
            && self.class(spec).is_none_or(|c| c.entries.is_empty())
    }

    /// Whether nothing at all waits, here or in the database.
    pub fn is_drained(&self) -> bool {
        self.loaded && self.horizon.is_none() && self.uncommitted.is_empty() && self.count == 0
    }

    pub fn insert(&mut self, spec: &Spec, entry: Entry) {
        let at = match self.classes.iter().position(|c| c.needs.is_of(spec)) {
            Some(at) => at,
            None => {
                self.classes.push(Class { needs: Needs::of(spec), entries: BTreeSet::new(), served: None });
                self.classes.len() - 1
            }
        };
        if self.classes[at].entries.insert(entry) {
            self.count += 1;
        }
    }

    pub fn remove(&mut self, spec: &Spec, entry: Entry) {
        self.late.remove(&entry);
        let Some(at) = self.classes.iter().position(|c| c.needs.is_of(spec)) else { return };
        if self.classes[at].entries.remove(&entry) {
            self.count -= 1;
        }
        if self.classes[at].entries.is_empty() {
            self.classes.swap_remove(at);
        }
    }

    /// How many wait that some worker could take when it has room. The others are passed over.
    pub fn served(&mut self, could: impl Fn(&Needs) -> bool) -> usize {
        let mut served = 0;
        for (i, class) in self.classes.iter_mut().enumerate() {
            if i >= PASSED_CLASSES || *class.served.get_or_insert_with(|| could(&class.needs)) {
                served += class.entries.len();
            }
        }
        served
    }

    /// Workers came, went or changed: another answer may hold for each class.
    pub fn offers_changed(&mut self) {
        for class in &mut self.classes {
            class.served = None;
        }
    }

    /// How many stand before an entry, over all classes.
    pub fn before(&self, entry: Entry) -> usize {
        self.classes.iter().map(|c| c.entries.range(..entry).count()).sum()
    }

    /// The last entry of the window, over all classes.
    pub fn last(&self) -> Option<Entry> {
        self.classes.iter().filter_map(|c| c.entries.last().copied()).max()
    }

    /// Every entry at or beyond `from`.
    pub fn beyond(&self, from: Entry) -> Vec<Entry> {
        self.classes.iter().flat_map(|c| c.entries.range(from..).copied()).collect()
    }

    /// The first entries of each class.
    pub fn first_of_each_class(&self, limit: usize) -> impl Iterator<Item = Entry> {
        self.classes.iter().flat_map(move |c| c.entries.iter().take(limit).copied())
    }

    /// Every entry.
    pub fn all(&self) -> Vec<Entry> {
        self.classes.iter().flat_map(|c| c.entries.iter().copied()).collect()
    }

    /// The earliest claimable entry of each class, earliest first.
    fn heads(&self) -> Vec<(Entry, Needs)> {
        let mut heads: Vec<_> =
            self.classes.iter().filter_map(|c| c.entries.first().map(|e| (*e, c.needs.clone()))).collect();
        heads.sort_unstable_by_key(|h| h.0);
        heads
    }

    /// The earliest entry that a session could take now.
    pub fn first_for(&self, s: &Session) -> Option<Entry> {
        let fits = self.classes.iter().filter(|class| class.needs.fit(s));
        let heads = fits.filter_map(|class| class.entries.first().copied());
        heads.filter(|head| self.loaded && !self.waits_behind_uncommitted(*head)).min()
    }

    /// Whether an uncommitted run stands before `entry`: it must be given out first.
    fn waits_behind_uncommitted(&self, entry: Entry) -> bool {
        self.uncommitted.first().is_some_and(|first| *first < entry)
    }
}

impl Turn<'_> {
    /// A committed queued run enters its queue, if memory is to hold it.
    pub(super) fn enqueue(&mut self, run: RunId) {
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
    pub(super) fn drop_entry(&mut self, key: &QueueKey, entry: Entry) {
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
    pub(super) fn fill_queue(&mut self, key: &QueueKey) {
        while let Some((entry, session)) = self.shard.next_claim(key) {
            let claim = self.claim(entry.1, session);
            self.write_changes(key.tenant, claim.into());
        }
        self.refill(key);
    }

    /// Claims for a session what waits longest for any of its actions, if it has room.
    pub(super) fn claim_for(&mut self, session: SessionId) -> Option<Change> {
        let s = self.shard.sessions.get(&session).filter(|s| s.takes_work())?;
        let (_, run) = s.info.actions.iter().filter_map(|action| self.shard.first_for(s, action)).min()?;
        Some(self.claim(run, session))
    }

    /// Reserves a slot for a queued run and says what to write.
    pub(super) fn claim(&mut self, run: RunId, session: SessionId) -> Change {
        self.shard.dequeue(run);
        self.note_start(run);
        let (Some(task), Some(s)) = (self.shard.tasks.get_mut(&run), self.shard.sessions.get_mut(&session)) else {
            unreachable!("a window holds only runs in memory, and only a session of the shard claims");
        };
        let to = Assigned { session, worker: s.worker, at: self.now };
        let attempt = Attempt { run, number: task.attempt + 1 };
        s.hold(attempt, &task.spec);
        let (tenant, spec) = (task.tenant, Arc::clone(&task.spec));
        let row = MoveRow {
            run,
            tenant: task.tenant,
            guard: task.guard(),
            place: Placement {
                state: RunStatus::Running,
                attempt: attempt.number,
                retries: task.retries,
                due: None,
                worker: Some((to.worker, session)),
                started_at: Some(to.at),
                error: None,
            },
            mark: Mark::None,
            worker: None,
            want_body: task.body.is_none(),
            reason: None,
        };
        self.spend(tenant, &spec, to);
        (FinishRow::Move(Box::new(row)), Step::Assign { run, to })
    }

    /// Puts back a run whose claim was not written.
    pub(super) fn unclaim(&mut self, run: RunId, session: SessionId) {
        let Some(task) = self.shard.tasks.get_mut(&run) else { return };
        task.flight = None;
        let attempt = Attempt { run, number: task.attempt + 1 };
        self.shard.release(session, attempt);
        if self.shard.tasks.get(&run).is_some_and(|t| matches!(t.phase, Phase::Queued { .. })) {
            self.enqueue(run);
        }
    }

    /// Asks for more of a queue when its window runs low.
    pub(super) fn refill(&mut self, key: &QueueKey) {
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
    pub(super) fn close_queue(&mut self, key: &QueueKey) {
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
}

impl Shard {
    /// A session with room for a run of `spec`, in turn.
    pub(super) fn pick(&mut self, key: &QueueKey, spec: &Spec) -> Option<SessionId> {
        offer_of(&mut self.offers, key)?.pick(&self.sessions, &Needs::of(spec))
    }

    /// A run has ended: a window that is being read must not bring it back. It could take the slot once more that a
    /// worker still holds for it.
    pub(super) fn note_gone(&mut self, run: RunId) {
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

    /// Takes a run out of its queue because something happens to it.
    pub(super) fn dequeue(&mut self, run: RunId) {
        let Some(task) = self.tasks.get(&run) else { return };
        let (key, entry) = (self.pauses.queue_of(task.tenant, &task.spec), (task.rank, run));
        let spec = Arc::clone(&task.spec);
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.uncommitted.remove(&entry);
            queue.remove(&spec, entry);
        }
    }

    fn next_claim(&mut self, key: &QueueKey) -> Option<(Entry, SessionId)> {
        let queue = self.queues.get(key).filter(|q| q.loaded && q.count > 0)?;
        if self.pauses.block(key) {
            return None;
        }
        let offer = offer_of(&mut self.offers, key)?;
        for (entry, needs) in queue.heads() {
            if queue.waits_behind_uncommitted(entry) {
                return None;
            }
            if let Some(session) = offer.pick(&self.sessions, &needs) {
                return Some((entry, session));
            }
        }
        None
    }

    /// Frees the slots of an attempt, and lets its session be found again.
    pub(super) fn release(&mut self, session: SessionId, attempt: Attempt) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if !s.release(attempt) {
            return;
        }
        let (tenant, actions) = (s.tenant, s.info.actions.clone());
        for action in actions {
            if let Some(offer) = self.offers.get_mut(&QueueKey::of(tenant, action)) {
                offer.refresh();
            }
        }
    }

    fn served(&mut self, key: &QueueKey) -> usize {
        let (Some(queue), Some(offer)) = (self.queues.get_mut(key), self.offers.get(&key.whole())) else { return 0 };
        queue.served(|needs| offer.could_take(&self.sessions, needs))
    }
}

/// Slots in use of each session by what it holds; the sum that `used` must equal.
#[cfg(test)]
pub(super) fn used_by_holds(session: &Session) -> BTreeMap<Arc<str>, u32> {
    let mut used = BTreeMap::new();
    for hold in session.holds.values() {
        *used.entry(Arc::clone(&hold.kind)).or_default() += hold.cost;
    }
    used
}
