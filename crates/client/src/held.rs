//! What a worker holds: attempts in progress, and results until the engine has confirmed them.

use std::collections::HashMap;

use futures_util::future::AbortHandle;
use helve_domain::delivery::Attempt;

/// Attempts of this worker, across its sockets.
#[derive(Default)]
pub(super) struct Held(HashMap<Attempt, State>);

enum State {
    Running(AbortHandle),
    /// The item of a `result` frame.
    Ended(String),
}

impl Held {
    /// Starts an attempt; false if it is held already, because the engine has sent it again.
    pub(super) fn begin(&mut self, attempt: Attempt, abort: AbortHandle) -> bool {
        match self.0.entry(attempt) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(State::Running(abort));
                true
            }
        }
    }

    /// Keeps the result of an attempt; false if nobody wants it any more.
    pub(super) fn end(&mut self, attempt: Attempt, item: String) -> bool {
        self.0.get_mut(&attempt).map(|state| *state = State::Ended(item)).is_some()
    }

    /// Stops the work; its result follows all the same, because the slot is held until then.
    pub(super) fn stop(&mut self, attempt: Attempt) {
        if let Some(State::Running(abort)) = self.0.get(&attempt) {
            abort.abort();
        }
    }

    /// The attempt is over: an ended one is forgotten, a running one is stopped first.
    pub(super) fn supersede(&mut self, attempt: Attempt) {
        match self.0.get(&attempt) {
            Some(State::Running(abort)) => abort.abort(),
            Some(State::Ended(_)) => drop(self.0.remove(&attempt)),
            None => {}
        }
    }

    /// The engine has the result, or has given the attempt to another worker.
    pub(super) fn forget(&mut self, attempt: Attempt) {
        if let Some(State::Running(abort)) = self.0.remove(&attempt) {
            abort.abort();
        }
    }

    /// The result of an attempt that has ended.
    pub(super) fn item(&self, attempt: Attempt) -> Option<&str> {
        match self.0.get(&attempt) {
            Some(State::Ended(item)) => Some(item),
            Some(State::Running(_)) | None => None,
        }
    }

    /// Everything that is held.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        self.0.keys().copied().collect()
    }

    /// Attempts whose results are not confirmed.
    pub(super) fn unconfirmed(&self) -> Vec<Attempt> {
        self.attempts().into_iter().filter(|a| self.item(*a).is_some()).collect()
    }

    /// Nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
