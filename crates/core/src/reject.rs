//! A transition that the database refuses for what it contains: undone, and nothing is left hanging.

use helve_domain::delivery::{Outcome, Outgoing};
use helve_domain::error::{Code, Error};
use helve_domain::id::RunId;
use helve_domain::run::RunError;

use crate::state::flight::{Farewell, InFlight, Note, Start, Step};
use crate::state::task::{Deferred, Phase, TakeBack};
use crate::state::{engine_error, refuse};
use crate::turn::Turn;
use crate::types::{EndRow, Flight};

/// How long after a refusal by the database something is tried again.
const RETRY_REFUSED: std::time::Duration = std::time::Duration::from_secs(5);

impl Turn<'_> {
    /// The database refuses a transition for what it contains: undo it, and let nothing hang.
    pub(crate) fn rejected(&mut self, flight: Flight, why: &str) {
        let Some(InFlight { steps }) = self.shard.flights.remove(&flight) else { return };
        let mut touched = Vec::new();
        // Backwards: the claims that used a freed slot before the change that freed it.
        for step in steps.into_iter().rev() {
            if let Some(run) = step.run() {
                touched.push(run);
                if let Some(task) = self.shard.tasks.get_mut(&run) {
                    task.flight = None;
                }
            }
            self.reject_step(step, why);
        }
        for run in touched {
            self.settle(run);
        }
        if !self.shard.pauses.unanswered.is_empty() {
            self.pauses_landed(flight);
        }
    }

    fn reject_step(&mut self, step: Step, why: &str) {
        let internal = || Error::Internal(format!("the database refused the write: {why}"));
        match step {
            Step::Create { run, ticket, start, key } => {
                self.shard.end_create(run);
                if let Start::Assigned(_) = start {
                    self.shard.optimistic -= 1;
                }
                self.uncreate(run, start);
                refuse(ticket, internal(), self.out);
                self.unlock_key(key.as_ref());
            }
            Step::Event { ticket, key, .. } => {
                refuse(Some(ticket), internal(), self.out);
                self.unlock_key(key.as_ref());
            }
            Step::Assign { run, to } => {
                self.unclaim(run, to.session);
                self.shard.set_timer(run, Some(self.now.plus(RETRY_REFUSED)));
            }
            Step::Place { run, note, .. } => self.unplace(run, &note),
            Step::End { run, row, note } => self.unend(run, &row, &note),
            Step::Extend { attempt, .. } => {
                if let Some(session) = self.shard.tasks.get(&attempt.run).and_then(|t| t.held()).map(|h| h.session) {
                    self.push(session, Outgoing::Error(Code::Internal, "the extension was not stored".into()));
                }
            }
            Step::FreeSlot { run, session, attempt } => {
                self.shard.seize_again(run, session, attempt);
                self.push(session, Outgoing::Error(Code::Internal, "the slot was not given back".into()));
            }
            Step::Worker { session, ticket, .. } => {
                refuse(ticket, internal(), self.out);
                self.unwritten(session);
            }
            Step::Gone => {}
            Step::Pause { tenant, target, ticket, .. } => {
                refuse(ticket, internal(), self.out);
                self.pause_refused(tenant, &target, ticket.is_some());
            }
        }
    }

    fn unplace(&mut self, run: RunId, note: &Note) {
        self.shard.dequeue(run);
        self.reopen(run, note);
        if let Some((_, ticket)) = note.ticket {
            refuse(Some(ticket), Error::Internal("the database refused to unpark the run".into()), self.out);
        }
        if let Some((session, _, _)) = note.holder {
            self.push(session, Outgoing::Error(Code::Internal, "a result was not stored".into()));
        }
    }

    /// A result that cannot be stored must not leave its run hanging: it fails without the payload.
    fn unend(&mut self, run: RunId, row: &EndRow, note: &Note) {
        self.reopen(run, note);
        if let Some((_, ticket)) = note.ticket {
            refuse(Some(ticket), Error::Internal("the database refused the cancel".into()), self.out);
        }
        if let Some((session, attempt, Farewell::Stored)) = note.holder
            && (row.output.is_some()
                || row.error.as_ref().is_some_and(|e| e.code.as_deref() != Some("result_rejected")))
        {
            let error = RunError {
                retryable: Some(false),
                ..engine_error("result_rejected", "the database refused to store the result")
            };
            self.on_run(run, Deferred::Result { session, attempt, outcome: Outcome::Failed(error) });
        }
    }

    /// Memory is as before the refused change; a timer tries again what nobody else will.
    fn reopen(&mut self, run: RunId, note: &Note) {
        if let Some((session, attempt, farewell)) = note.holder
            && farewell != Farewell::Silent
        {
            self.shard.seize_again(run, session, attempt);
        }
        let again = self.now.plus(RETRY_REFUSED);
        if let Some(task) = self.shard.tasks.get_mut(&run)
            && let Phase::Running(held) = &mut task.phase
        {
            held.deadline = Some(again);
            held.delivery = crate::state::task::Delivery::Received;
            if !self.shard.sessions.contains_key(&held.session) {
                let session = held.session;
                task.deferred.push_back(Deferred::TakeBack { session, reason: TakeBack::Lost });
            }
        }
        self.shard.set_timer(run, Some(again));
        if self.shard.tasks.get(&run).is_some_and(|t| matches!(t.phase, Phase::Queued { .. })) {
            self.enqueue(run);
        }
    }
}
