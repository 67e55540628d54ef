//! Queues: what waits for one action, by rank, and who could take it.
//!
//! Memory holds a window of each queue that has a worker: everything before the *horizon*. What lies at or
//! beyond the horizon may be only in the database and is read when the window runs low. Within a window,
//! runs that need the same slots and labels form a class: a class whose head finds no slot is
//! blocked as a whole, and never blocks another.

use std::collections::{BTreeSet, HashSet};

use helve_domain::definition::Spec;
use helve_domain::id::RunId;
use helve_domain::why::Drain;

use crate::state::offers::Needs;
use crate::state::session::Session;

/// Classes of one queue that are looked at for a worker who could take them.
const PASSED_CLASSES: usize = 256;

/// A place in a queue: rank, then id.
pub(crate) type Entry = (i64, RunId);

/// What one action's waiting runs look like in memory.
#[derive(Default)]
#[cfg_attr(test, derive(Clone, Debug))]
pub(crate) struct Queue {
    classes: Vec<Class>,
    /// The first entry of each class, with the class's place in `classes`: what may be claimed, earliest first.
    heads: BTreeSet<(Entry, usize)>,
    pub count: usize,
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

    /// Whether nothing that could run is ahead of this place: in its class, among what is not committed, or in the part
    /// that is only in the database.
    pub fn is_clear(&self, spec: &Spec, entry: Entry) -> bool {
        self.loaded
            && self.horizon.is_none_or(|horizon| entry < horizon)
            && !self.waits_behind_uncommitted(entry)
            && self.class(spec).and_then(|c| c.entries.first()).is_none_or(|first| entry < *first)
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
        let before = self.classes[at].entries.first().copied();
        if self.classes[at].entries.insert(entry) {
            self.count += 1;
            self.move_head(at, before);
        }
    }

    /// The first entry of a class may be another one than it was.
    fn move_head(&mut self, at: usize, before: Option<Entry>) {
        let now = self.classes[at].entries.first().copied();
        if before == now {
            return;
        }
        before.map(|entry| self.heads.remove(&(entry, at)));
        now.map(|entry| self.heads.insert((entry, at)));
    }

    pub fn remove(&mut self, spec: &Spec, entry: Entry) {
        self.late.remove(&entry);
        let Some(at) = self.classes.iter().position(|c| c.needs.is_of(spec)) else { return };
        let before = self.classes[at].entries.first().copied();
        if self.classes[at].entries.remove(&entry) {
            self.count -= 1;
            self.move_head(at, before);
        }
        if self.classes[at].entries.is_empty() {
            // The last class takes its place.
            let last = self.classes.len() - 1;
            let head = self.classes[last].entries.first().copied().filter(|_| last != at);
            self.classes.swap_remove(at);
            if let Some(head) = head {
                self.heads.remove(&(head, last));
                self.heads.insert((head, at));
            }
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

    /// The entries that may be claimed, earliest first: of each class the first one, up to what is not committed.
    pub fn heads(&self) -> impl Iterator<Item = (Entry, &Needs)> {
        let heads = self.heads.iter().take_while(|_| self.loaded);
        let heads = heads.take_while(|(entry, _)| !self.waits_behind_uncommitted(*entry));
        heads.map(|(entry, at)| (*entry, &self.classes[*at].needs))
    }

    /// The earliest entry that a session could take now.
    pub fn first_for(&self, s: &Session) -> Option<Entry> {
        self.heads().find(|(_, needs)| needs.fit(s)).map(|(entry, _)| entry)
    }

    /// Whether an uncommitted run stands before `entry`: it must be given out first.
    pub fn waits_behind_uncommitted(&self, entry: Entry) -> bool {
        self.uncommitted.first().is_some_and(|first| *first < entry)
    }
    /// Whether the heads and the count are what the classes say.
    #[cfg(test)]
    pub fn knows_its_heads(&self) -> bool {
        let heads = self.classes.iter().enumerate().filter_map(|(at, c)| Some((*c.entries.first()?, at)));
        self.heads == heads.collect() && self.count == self.classes.iter().map(|c| c.entries.len()).sum::<usize>()
    }
}
