//! What a run needs to start, and who has it: slots of a session, and the gates that may hold a start back. It is
//! seized when the run is given to a session, lent to others by the statement that ends the attempt, and let go when
//! that is committed. A gate that is shut wakes by its own timer and then serves its queues again.

use std::sync::Arc;

use helve_domain::definition::Spec;
use helve_domain::delivery::Attempt;
use helve_domain::id::{RunId, SessionId, TenantId};
use helve_domain::pause::Target;

use crate::state::Shard;
use crate::state::flight::Assigned;
use crate::state::offers::{Needs, offer_of};
use crate::state::queue::Entry;
use crate::state::session::Loan;
use crate::turn::Turn;
use crate::types::QueueKey;

impl Turn<'_> {
    /// Who takes a run that would stand at this place of its queue, if it may start at once: no gate holds it back,
    /// nothing that could run is ahead of it, and a session has room.
    pub(crate) fn start_of(&mut self, key: &QueueKey, entry: Entry, spec: &Spec) -> Option<Assigned> {
        if !self.shard.is_open(key) || !self.shard.is_clear(key, entry, spec) {
            return None;
        }
        let session = offer_of(&mut self.shard.offers, key)?.pick(&self.shard.sessions, &Needs::of(spec))?;
        self.assigned_to(session)
    }

    /// A session as the one that a run is given to now.
    pub(crate) fn assigned_to(&self, session: SessionId) -> Option<Assigned> {
        self.shard.sessions.get(&session).map(|s| Assigned { session, worker: s.worker, at: self.now })
    }

    /// An attempt takes its slots, and each gate that it passes counts it.
    pub(crate) fn seize(&mut self, tenant: TenantId, attempt: Attempt, spec: &Arc<Spec>, to: Assigned) {
        if let Some(s) = self.shard.sessions.get_mut(&to.session) {
            s.hold(attempt, spec);
        }
        if !self.shard.pauses.is_empty() {
            self.shard.pauses.spend(tenant, spec, to.worker, self.now);
            self.shard.shut_session(to.session);
        }
    }
}

impl Shard {
    /// Whether no gate holds back what waits in this queue.
    pub(crate) fn is_open(&self, key: &QueueKey) -> bool {
        !self.pauses.block(key)
    }

    /// Whether nothing that could run is ahead of this place. While a workflow stands apart from the others of its
    /// action, neither its own queue nor theirs may have anything.
    fn is_clear(&self, key: &QueueKey, entry: Entry, spec: &Spec) -> bool {
        let clear = |key| self.queues.get(key).is_some_and(|q| q.is_clear(spec, entry));
        clear(key) && (key.part.is_none() || clear(&key.whole()))
    }

    /// The slots of an ending attempt count as free while it is decided what starts in them: only what the same
    /// statement writes may use them.
    pub(crate) fn lend(&mut self, session: SessionId, attempt: Attempt) -> Option<Loan> {
        self.sessions.get_mut(&session)?.lend(attempt)
    }

    /// What was not used stays with the ending attempt until its end is committed.
    pub(crate) fn end_loan(&mut self, session: SessionId, attempt: Attempt, loan: Loan) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.take_rest(attempt, loan);
        }
    }

    /// Lets go of what an attempt holds, and lets its session be found again.
    pub(crate) fn loosen(&mut self, session: SessionId, attempt: Attempt) {
        if self.sessions.get_mut(&session).is_some_and(|s| s.release(attempt)) {
            self.offers_refresh(session);
        }
    }

    /// The end of an attempt was refused after what it held was lent: it holds it again.
    pub(crate) fn seize_again(&mut self, run: RunId, session: SessionId, attempt: Attempt) {
        let Some(spec) = self.tasks.get(&run).map(|t| t.spec.clone()) else { return };
        if let Some(s) = self.sessions.get_mut(&session) {
            let freed = s.holds.get(&attempt).is_some_and(|hold| hold.freed);
            s.release(attempt);
            s.hold(attempt, &spec);
            if freed {
                s.free_early(attempt);
            }
        }
    }

    /// Sets whether a session takes work as far as pauses say.
    pub(crate) fn shut_session(&mut self, session: SessionId) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.paused = self.pauses.shuts(s.tenant, Target::Worker(s.worker));
        }
    }
}
