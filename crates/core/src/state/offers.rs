//! Who takes what: the needs of a run, and the sessions that offer its action.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use helve_domain::definition::Spec;
use helve_domain::id::SessionId;
use helve_domain::labels::Requirements;

use crate::state::session::Session;
use crate::types::QueueKey;

/// What a run needs of a worker: runs with the same needs are one class of their queue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Needs {
    kind: Arc<str>,
    cost: u32,
    labels: Requirements,
}

/// The sessions that offer an action.
#[derive(Default)]
#[cfg_attr(test, derive(Clone, Debug))]
pub(crate) struct Offer {
    pub sessions: Vec<SessionId>,
    /// Where the next search starts: work goes round.
    cursor: usize,
    /// Kinds and costs for which no session had room at the last search.
    dry: Vec<(Arc<str>, u32)>,
    /// The same for needs with labels, told apart by the digest of those.
    dry_labels: BTreeSet<(Arc<str>, u32, u64)>,
}

impl Needs {
    pub fn of(spec: &Spec) -> Self {
        Self { kind: Arc::clone(&spec.slot_kind), cost: spec.slot_cost, labels: spec.labels.clone() }
    }

    pub fn is_of(&self, spec: &Spec) -> bool {
        self.cost == spec.slot_cost && self.kind == spec.slot_kind && self.labels == spec.labels
    }

    /// Whether a session has the room and the labels.
    pub fn fit(&self, session: &Session) -> bool {
        session.free(&self.kind) >= self.cost && self.labels.allow(&session.info.labels)
    }
}

impl Offer {
    /// The session that takes a run: of those with room and the labels that it requires the one that it prefers most,
    /// and among equals the next in turn.
    pub fn pick(&mut self, sessions: &HashMap<SessionId, Session>, needs: &Needs) -> Option<SessionId> {
        if self.dry.iter().any(|(k, c)| *k == needs.kind && *c <= needs.cost) {
            return None;
        }
        if needs.labels.is_empty() {
            return self.next_in_turn(sessions, needs);
        }
        let key = (Arc::clone(&needs.kind), needs.cost, needs.labels.digest());
        if self.dry_labels.contains(&key) {
            return None;
        }
        let n = self.sessions.len();
        let mut best: Option<(u32, usize)> = None;
        for step in 0..n {
            let at = (self.cursor + step) % n;
            let Some(s) = sessions.get(&self.sessions[at]).filter(|s| s.takes_work() && needs.fit(s)) else { continue };
            let preference = needs.labels.preference(&s.info.labels);
            if best.is_none_or(|(most, _)| preference > most) {
                best = Some((preference, at));
            }
        }
        let Some((_, at)) = best else {
            self.dry_labels.insert(key);
            return None;
        };
        self.cursor = (at + 1) % n;
        Some(self.sessions[at])
    }

    fn next_in_turn(&mut self, sessions: &HashMap<SessionId, Session>, needs: &Needs) -> Option<SessionId> {
        let n = self.sessions.len();
        for step in 0..n {
            let at = (self.cursor + step) % n;
            let id = self.sessions[at];
            if sessions.get(&id).is_some_and(|s| s.takes_work() && s.free(&needs.kind) >= needs.cost) {
                self.cursor = (at + 1) % n;
                return Some(id);
            }
        }
        self.dry.push((Arc::clone(&needs.kind), needs.cost));
        None
    }

    /// Whether any session could take it when it has room.
    pub fn could_take(&self, sessions: &HashMap<SessionId, Session>, needs: &Needs) -> bool {
        let slots = |s: &Session| s.info.slots.get(&needs.kind).copied().unwrap_or(0);
        let could = |s: &Session| slots(s) >= needs.cost && needs.labels.allow(&s.info.labels);
        self.sessions.iter().filter_map(|id| sessions.get(id)).any(could)
    }

    /// Some session may have room again.
    pub fn refresh(&mut self) {
        self.dry.clear();
        self.dry_labels.clear();
    }
}

/// The offer of a queue's action.
pub(crate) fn offer_of<'a>(offers: &'a mut HashMap<QueueKey, Offer>, key: &QueueKey) -> Option<&'a mut Offer> {
    match key.part {
        None => offers.get_mut(key),
        Some(_) => offers.get_mut(&key.whole()),
    }
}
