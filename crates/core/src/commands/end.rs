//! How attempts and runs end: results, failures and retries, cancels, timeouts, and work taken back.

use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Attempt, Outcome, Outgoing, Reason};
use helve_domain::error::{Code, Error};
use helve_domain::id::{RunId, SessionId, TenantId};
use helve_domain::run::RunError;
use helve_domain::status::RunStatus;

use crate::state::flight::{Ending, Farewell, Note, Placed, Step};
use crate::state::{Shard, engine_error, jitter, refuse};
use crate::turn::Turn;
use crate::types::{EndRow, FinishRow, MoveRow, Placement, Ticket};

impl Turn<'_> {
    /// A worker reports how an attempt ended.
    pub(crate) fn result(&mut self, session: SessionId, attempt: Attempt, outcome: Outcome) {
        let ours = self.shard.tasks.get(&attempt.run).is_some_and(|t| t.is_held_by(session, attempt.number));
        #[cfg(test)]
        let ours =
            ours || (self.shard.unfenced && self.shard.tasks.get(&attempt.run).is_some_and(|t| t.held().is_some()));
        if !ours {
            return self.stale_result(session, attempt);
        }
        let holder = Some((session, attempt, Farewell::Stored));
        let note = Note { holder, ticket: None };
        match outcome {
            Outcome::Succeeded(output) => {
                let output = Some(output);
                self.end(attempt.run, Ending { state: RunStatus::Succeeded, output, error: None, reason: None }, note);
            }
            Outcome::Failed(error) => self.fail(attempt, error, "retry", note),
            Outcome::Released => self.give_back(attempt.run, "released", note),
        }
    }

    /// A result for an attempt that is not the running one: it frees its slot and counts for nothing.
    fn stale_result(&mut self, session: SessionId, attempt: Attempt) {
        let reason = self
            .shard
            .sessions
            .get(&session)
            .and_then(|s| s.holds.get(&attempt))
            .map(|hold| hold.until.map_or(Reason::Reassigned, |(_, reason)| reason));
        // A run of another tenant is none at all: not even its existence shows.
        let both = self.shard.tasks.get(&attempt.run).zip(self.shard.sessions.get(&session));
        let foreign = both.is_some_and(|(task, session)| task.tenant != session.tenant);
        let reason = reason.unwrap_or(if foreign { Reason::Unknown } else { Reason::Reassigned });
        self.let_go(session, attempt);
        self.push(session, Outgoing::Superseded(vec![(attempt, reason)]));
    }

    /// A slot that was kept for an attempt told to stop is free again.
    pub(crate) fn let_go(&mut self, session: SessionId, attempt: Attempt) {
        self.shard.loosen(session, attempt);
        self.shard.reset_session_timer(session);
        self.offer_room(session);
    }

    /// A session has nothing of this run any more. What it was told to stop meanwhile it need not stop: the slot that is
    /// kept for that is free.
    pub(crate) fn let_go_of(&mut self, session: SessionId, run: RunId) {
        let Some(s) = self.shard.sessions.get(&session) else { return };
        let stopped = s.holds.iter().filter(|(attempt, hold)| attempt.run == run && hold.until.is_some());
        let mut stopped: Vec<Attempt> = stopped.map(|(attempt, _)| *attempt).collect();
        stopped.sort_unstable();
        for attempt in stopped {
            self.let_go(session, attempt);
        }
    }

    /// A session has room: what waits for it is claimed.
    pub(crate) fn offer_room(&mut self, session: SessionId) {
        let Some(s) = self.shard.sessions.get(&session) else { return };
        let (tenant, actions) = (s.tenant, s.info.actions.clone());
        while let Some(claim) = self.claim_for(session) {
            self.write_changes(tenant, claim.into());
        }
        for action in actions {
            self.refill_action(tenant, action);
        }
    }

    /// An attempt failed: again later, or the run is over.
    pub(crate) fn fail(&mut self, attempt: Attempt, error: RunError, reason: &'static str, note: Note) {
        let Some(task) = self.shard.tasks.get(&attempt.run) else { return };
        let spent = u32::try_from(task.retries).unwrap_or(0);
        let retries = task.retries + 1;
        match task.spec.retry.next_wait(spent, &error, jitter(attempt)) {
            None => {
                let why = (reason != "retry").then_some(reason);
                self.give_up(attempt.run, error, why, note);
            }
            Some(wait) if wait.is_zero() => {
                let expires = task.spec.schedule_timeout.map(|d| self.now.plus(d));
                let place = Placed::Queued { expires, retries };
                self.place(attempt.run, place, Some(error), reason, note);
            }
            Some(wait) => {
                let place = Placed::Scheduled { due: self.now.plus(wait), retries };
                self.place(attempt.run, place, Some(error), reason, note);
            }
        }
    }

    /// Someone wants the run to end.
    pub(crate) fn cancel(&mut self, run: RunId, tenant: TenantId, ticket: Ticket) {
        let Some(task) = self.shard.tasks.get(&run).filter(|t| t.tenant == tenant) else {
            return refuse(Some(ticket), Error::not_found("run", run), self.out);
        };
        let holder = task
            .held()
            .map(|held| (held.session, Attempt { run, number: task.attempt }, Farewell::Stop(Reason::Requested)));
        let note = Note { holder, ticket: Some((tenant, ticket)) };
        let error = engine_error("cancelled", "cancelled on request");
        self.end(run, Ending::without_result(RunStatus::Cancelled, error, Some("cancelled")), note);
    }

    /// The execution timeout passed.
    pub(crate) fn timed_out(&mut self, run: RunId) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let Some(held) = task.held() else { return };
        let attempt = Attempt { run, number: task.attempt };
        let timeout = helve_domain::duration::format(task.spec.execution_timeout);
        let error = engine_error("timeout", format!("the attempt took longer than its execution timeout of {timeout}"));
        let note = Note { holder: Some((held.session, attempt, Farewell::Stop(Reason::Timeout))), ticket: None };
        self.fail(attempt, error, "timeout", note);
    }

    /// The run waited too long in the queue.
    pub(crate) fn expired(&mut self, run: RunId) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let timeout = task.spec.schedule_timeout.map(helve_domain::duration::format).unwrap_or_default();
        let error =
            engine_error("schedule_timeout", format!("no slot was free within the schedule timeout of {timeout}"));
        let ending = Ending::without_result(RunStatus::Cancelled, error, Some("schedule_timeout"));
        self.end(run, ending, Note::default());
    }

    /// Gives an attempt more time; written, since a takeover must know.
    pub(crate) fn extend(&mut self, session: SessionId, attempt: Attempt, by: Duration) {
        let Some(task) = self.shard.tasks.get(&attempt.run).filter(|t| t.is_held_by(session, attempt.number)) else {
            return self.push(session, Outgoing::Superseded(vec![(attempt, Reason::Reassigned)]));
        };
        let Some(place) = task.stays() else { return };
        let (tenant, deadline) = (task.tenant, self.now.plus(by));
        let row = task.moves(attempt.run, Placement { due: Some(deadline), ..place });
        let step = Step::Extend { run: attempt.run, attempt, deadline, by };
        self.write_changes(tenant, (FinishRow::Move(Box::new(row)), step).into());
    }

    /// Writes that a run rests again: queued or scheduled. What its slot can do at once rides along.
    pub(crate) fn place(
        &mut self,
        run: RunId,
        place: Placed,
        error: Option<RunError>,
        reason: &'static str,
        note: Note,
    ) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let (state, due, retries) = match place {
            Placed::Queued { expires, retries } => (RunStatus::Queued, expires, retries),
            Placed::Scheduled { due, retries } => (RunStatus::Scheduled, Some(due), retries),
            Placed::Parked { retries } => (RunStatus::Parked, None, retries),
        };
        let code = task.code_for_trace(error.as_ref());
        let row = MoveRow {
            worker: task.held().map(|h| (h.worker, h.started_at)),
            reason: Some(reason),
            ..task.moves(run, Placement { error, ..task.rests(state, due, retries) })
        };
        let tenant = task.tenant;
        if state == RunStatus::Queued {
            self.shard.announce(run);
        }
        self.shard.set_timer(run, None);
        let step = Step::Place { run, place, note: note.clone(), reason: Some(reason), code };
        self.write_with_consequences(tenant, (FinishRow::Move(Box::new(row)), step), &note);
    }

    /// Writes that a run is over.
    pub(crate) fn end(&mut self, run: RunId, ending: Ending, note: Note) {
        self.shard.dequeue(run);
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let tenant = task.tenant;
        let finished_at = not_before(run, task.held().map(|h| h.started_at), self.now);
        let (guard, Ending { state, output, error, reason }) = (task.guard(), ending);
        let row = EndRow { run, tenant, guard, state, output, error, finished_at, reason };
        self.shard.set_timer(run, None);
        let step = Step::End { run, row: Box::new(row.clone()), note: note.clone() };
        self.write_with_consequences(tenant, (FinishRow::End(Box::new(row)), step), &note);
    }
}

impl Shard {
    /// A conflict answer for a cancel of what has ended already.
    pub(crate) fn already_finished(run: RunId, state: RunStatus) -> Error {
        Error::Conflict {
            code: Code::AlreadyFinished,
            message: format!("the run has already {}; what is final stays final", past(state)),
            existing: Some(run.to_string()),
        }
    }
}

/// When a run ends: an engine whose clock is behind that of its predecessor must not let it end before its id says
/// that it was created. Reads by id leave out the weeks of the history before that.
fn not_before(run: RunId, started_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    now.max(run.created_at()).max(started_at.unwrap_or_default())
}

const fn past(state: RunStatus) -> &'static str {
    match state {
        RunStatus::Succeeded => "succeeded",
        RunStatus::Failed => "failed",
        RunStatus::Cancelled => "been cancelled",
        RunStatus::Scheduled | RunStatus::Queued | RunStatus::Running | RunStatus::Parked => "ended",
    }
}
