//! Slots that a worker gives back before their attempt has ended.

use helve_domain::delivery::{Attempt, Outgoing, Reason};
use helve_domain::id::{RunId, SessionId};

use crate::state::flight::{Farewell, Note, Step};
use crate::state::task::Deferred;
use crate::turn::Turn;
use crate::types::{FinishRow, Mark, MoveRow};

impl Turn<'_> {
    /// A worker gives back the slots of an attempt that goes on. Said twice, it is answered twice and done once.
    pub(crate) fn wants_free(&mut self, id: SessionId, attempt: Attempt) {
        let hold = self.shard.sessions.get(&id).and_then(|s| s.holds.get(&attempt));
        match hold.map(|hold| (hold.until, hold.freed)) {
            None => self.push(id, Outgoing::Superseded(vec![(attempt, Reason::Unknown)])),
            // Told to stop: the worker lets go of the slot, and the attempt is over anyway.
            Some((Some((_, reason)), _)) => {
                self.push(id, Outgoing::Superseded(vec![(attempt, reason)]));
                self.let_go(id, attempt);
            }
            Some((None, true)) => self.push(id, Outgoing::Freed(attempt)),
            Some((None, false)) => self.on_run(attempt.run, Deferred::FreeSlot { session: id, attempt }),
        }
    }

    /// Writes that an attempt holds no slot any more, since a takeover must know, together with the claims that use
    /// what it held.
    pub(crate) fn free_slot(&mut self, session: SessionId, attempt: Attempt) {
        if !self.shard.tasks.get(&attempt.run).is_some_and(|t| t.is_held_by(session, attempt.number)) {
            return self.push(session, Outgoing::Superseded(vec![(attempt, Reason::Reassigned)]));
        }
        if self.shard.sessions.get(&session).and_then(|s| s.holds.get(&attempt)).is_some_and(|hold| hold.freed) {
            return self.push(session, Outgoing::Freed(attempt));
        }
        // What it speaks of has arrived.
        self.confirm(session, attempt);
        let Some(task) = self.shard.tasks.get(&attempt.run) else { return };
        let Some(place) = task.stays() else { return };
        let row = MoveRow { mark: Mark::Freed, ..task.moves(attempt.run, place) };
        let (tenant, note) = (task.tenant, Note { holder: Some((session, attempt, Farewell::Stored)), ticket: None });
        let step = Step::FreeSlot { run: attempt.run, session, attempt };
        self.write_with_consequences(tenant, (FinishRow::Move(Box::new(row)), step), &note);
    }

    /// It is committed: what the claims did not take is free for everyone.
    pub(crate) fn freed(&mut self, run: RunId, session: SessionId, attempt: Attempt, applied: bool) {
        if !applied {
            // The row was not as memory had it: the attempt is not this worker's.
            self.forget(run);
            self.push(session, Outgoing::Superseded(vec![(attempt, Reason::Reassigned)]));
            return self.let_go(session, attempt);
        }
        if let Some(s) = self.shard.sessions.get_mut(&session) {
            s.free_early(attempt);
        }
        self.push(session, Outgoing::Freed(attempt));
        self.shard.offers_refresh(session);
        self.offer_room(session);
    }
}
