//! Those who watch: what was committed, said and logged goes to them from memory, and costs nothing without them.

mod logs;

pub(crate) use logs::Desk;
pub(crate) use logs::LogWriter;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::{NodeId, RunId, TenantId};
use helve_domain::live::{Change, ChangeFilter, Changed, Progress};
use tokio::sync::Notify;

use crate::share::{Account, Held};

/// Changes that may wait for one reader.
const INBOX: usize = 1_024;
/// Changes of a tenant that are kept for readers who come back.
const KEPT: usize = 4_096;
/// How long they are kept when nobody reads.
const KEEP: Duration = Duration::from_secs(120);
/// When one who found no place may try again.
const AGAIN: Duration = Duration::from_secs(5);

/// Who watches in this process, and what waits to be stored for those who look later. Clones share it.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    clock: Clock,
    /// Tells this process's numbers from those of others.
    epoch: u32,
    registry: Mutex<Registry>,
    /// Streams of each tenant.
    open: Account,
    /// Anybody: runs and tenants that are watched.
    watched: AtomicUsize,
    last: AtomicU64,
    desk: Desk,
}

#[derive(Default)]
struct Registry {
    runs: HashMap<RunId, Vec<Arc<Inbox>>>,
    feeds: HashMap<TenantId, Feed>,
}

/// A tenant's changes, from when someone first watched.
struct Feed {
    inboxes: Vec<Arc<Inbox>>,
    kept: VecDeque<Arc<Numbered>>,
    /// Everything after this number is in `kept`.
    complete_since: u64,
    /// Since when nobody reads.
    idle: Option<Instant>,
}

/// A change with its number in this process.
#[derive(Debug)]
pub struct Numbered {
    /// Counts up; not without gaps.
    pub number: u64,
    /// The change.
    pub change: Change,
}

/// Something for one who watches.
#[derive(Debug)]
pub enum Notice {
    /// A change was committed.
    Change(Arc<Numbered>),
    /// New log lines are stored.
    Lines,
    /// An attempt has told how far it is.
    Progress(Progress),
    /// The reader was too slow: some changes are missing from here on.
    Lagged,
    /// This engine does not own the run any more.
    Closed,
}

#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    ready: Notify,
    filter: ChangeFilter,
}

#[derive(Default)]
struct Waiting {
    changes: VecDeque<Arc<Numbered>>,
    progress: Option<Progress>,
    lines: bool,
    lagged: bool,
    closed: bool,
}

impl Inbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: the reader has fallen behind and gets nothing more.
    fn put(&self, change: &Arc<Numbered>) -> bool {
        if !self.filter.admits(&change.change.what) {
            return true;
        }
        let mut waiting = self.waiting();
        waiting.lagged |= waiting.changes.len() >= INBOX;
        if !waiting.lagged {
            waiting.changes.push_back(Arc::clone(change));
        }
        let goes_on = !waiting.lagged;
        drop(waiting);
        self.ready.notify_one();
        goes_on
    }

    fn with(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting());
        self.ready.notify_one();
    }

    fn take(&self) -> Option<Notice> {
        let mut waiting = self.waiting();
        if let Some(change) = waiting.changes.pop_front() {
            return Some(Notice::Change(change));
        }
        if std::mem::take(&mut waiting.lines) {
            return Some(Notice::Lines);
        }
        if let Some(progress) = waiting.progress.take() {
            return Some(Notice::Progress(progress));
        }
        if std::mem::take(&mut waiting.lagged) {
            return Some(Notice::Lagged);
        }
        waiting.closed.then_some(Notice::Closed)
    }
}

/// A place among those who watch; given back when dropped.
pub struct Watch {
    live: Live,
    inbox: Arc<Inbox>,
    tenant: TenantId,
    run: Option<RunId>,
    _place: Held,
}

impl Watch {
    /// What comes next. Cancel-safe.
    pub async fn next(&self) -> Notice {
        loop {
            if let Some(notice) = self.inbox.take() {
                return notice;
            }
            self.inbox.ready.notified().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut registry = self.live.registry();
        let others = |inboxes: &mut Vec<Arc<Inbox>>| inboxes.retain(|i| !Arc::ptr_eq(i, &self.inbox));
        match self.run {
            Some(run) => {
                if let Some(inboxes) = registry.runs.get_mut(&run) {
                    others(inboxes);
                    if inboxes.is_empty() {
                        registry.runs.remove(&run);
                    }
                }
            }
            None => {
                if let Some(feed) = registry.feeds.get_mut(&self.tenant) {
                    others(&mut feed.inboxes);
                    feed.idle = feed.inboxes.is_empty().then(|| self.live.0.clock.instant());
                }
            }
        }
        self.live.count(&registry);
    }
}

impl Live {
    /// Nobody watches yet.
    pub(crate) fn new(clock: Clock, node: NodeId, desk: Desk) -> Self {
        let id = node.uuid().as_u128();
        // The last bits of an id are random.
        let epoch = u32::try_from(id & u128::from(u32::MAX)).unwrap_or_default();
        let (registry, watched, last) = (Mutex::default(), AtomicUsize::new(0), AtomicU64::new(0));
        let open = Account::default();
        Self(Arc::new(Shared { clock, epoch, registry, open, watched, last, desk }))
    }

    /// Tells the numbers of this process from those of another.
    pub fn epoch(&self) -> u32 {
        self.0.epoch
    }

    /// The number of the last change.
    pub fn last(&self) -> u64 {
        self.0.last.load(Ordering::Acquire)
    }

    /// What waits to be stored.
    pub(crate) fn desk(&self) -> &Desk {
        &self.0.desk
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, registry: &Registry) {
        self.0.watched.store(registry.runs.len() + registry.feeds.len(), Ordering::Release);
    }

    fn enter(&self, tenant: TenantId, places: usize) -> Result<Held> {
        self.0.open.take(tenant, 1, places).map_err(|open| {
            let message = format!("{open} event streams are open; a tenant may have {places} at once: close one");
            Error::Limited { message, retry_after: AGAIN }
        })
    }

    /// Watches one run. Read its rows *after* this: what happens from now on is told.
    ///
    /// # Errors
    /// `Limited` when the tenant has no place left.
    pub fn watch_run(&self, tenant: TenantId, run: RunId, places: usize) -> Result<Watch> {
        let place = self.enter(tenant, places)?;
        let mut registry = self.registry();
        let inbox = Arc::new(Inbox { filter: ChangeFilter { no_events: true, ..<_>::default() }, ..<_>::default() });
        registry.runs.entry(run).or_default().push(Arc::clone(&inbox));
        self.count(&registry);
        drop(registry);
        Ok(Watch { live: self.clone(), inbox, tenant, run: Some(run), _place: place })
    }

    /// Watches a tenant. With the number of the last change that a reader has seen: whether everything after it is
    /// still known; if so, it comes first.
    ///
    /// # Errors
    /// `Limited` when the tenant has no place left.
    pub fn watch_tenant(
        &self,
        tenant: TenantId,
        filter: ChangeFilter,
        seen: Option<u64>,
        places: usize,
    ) -> Result<(Watch, bool)> {
        let place = self.enter(tenant, places)?;
        let mut registry = self.registry();
        let now = self.0.clock.instant();
        registry.feeds.retain(|_, feed| feed.idle.is_none_or(|since| now.duration_since(since) < KEEP));
        let last = self.last();
        let feed = registry.feeds.entry(tenant).or_insert_with(|| Feed {
            inboxes: Vec::new(),
            kept: VecDeque::new(),
            complete_since: last,
            idle: None,
        });
        let known = seen.is_some_and(|seen| seen >= feed.complete_since && seen <= last);
        let inbox = Arc::new(Inbox { filter, ..<_>::default() });
        if let Some(seen) = seen.filter(|_| known) {
            let missed = feed.kept.iter().filter(|c| c.number > seen && inbox.filter.admits(&c.change.what));
            inbox.waiting().changes.extend(missed.cloned());
        }
        feed.inboxes.push(Arc::clone(&inbox));
        feed.idle = None;
        self.count(&registry);
        drop(registry);
        Ok((Watch { live: self.clone(), inbox, tenant, run: None, _place: place }, known))
    }

    /// Whether anybody watches anything.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::Acquire) > 0
    }

    /// A commit is known.
    pub(crate) fn changed(&self, change: Change) {
        let mut registry = self.registry();
        let number = self.0.last.fetch_add(1, Ordering::AcqRel) + 1;
        let change = Arc::new(Numbered { number, change });
        if let Changed::Run { run, .. } = change.change.what
            && let Some(inboxes) = registry.runs.get(&run)
        {
            for inbox in inboxes {
                // One that has fallen behind reads the rows.
                let _ = inbox.put(&change);
            }
        }
        let tenant = change.change.tenant;
        let Some(feed) = registry.feeds.get_mut(&tenant) else { return };
        if feed.idle.is_some_and(|since| self.0.clock.instant().duration_since(since) >= KEEP) {
            registry.feeds.remove(&tenant);
            return self.count(&registry);
        }
        if feed.kept.len() >= KEPT
            && let Some(oldest) = feed.kept.pop_front()
        {
            feed.complete_since = oldest.number;
        }
        feed.inboxes.retain(|inbox| inbox.put(&change));
        feed.kept.push_back(change);
    }

    /// An attempt has told how far it is.
    pub(crate) fn progressed(&self, progress: &Progress) {
        self.of_run(progress.attempt.run, |waiting| waiting.progress = Some(progress.clone()));
    }

    /// Log lines of a run are stored.
    pub(crate) fn logged(&self, run: RunId) {
        self.of_run(run, |waiting| waiting.lines = true);
    }

    fn of_run(&self, run: RunId, change: impl Fn(&mut Waiting)) {
        if self.is_watched()
            && let Some(inboxes) = self.registry().runs.get(&run)
        {
            inboxes.iter().for_each(|inbox| inbox.with(&change));
        }
    }

    /// This process does not own its shards any more: nobody here will hear of anything.
    pub(crate) fn close(&self) {
        let registry = self.registry();
        let of_tenants = registry.feeds.values().flat_map(|feed| &feed.inboxes);
        for inbox in registry.runs.values().flatten().chain(of_tenants) {
            inbox.with(|waiting| waiting.closed = true);
        }
    }
}
