//! Runs that are kept for a person after their last failure, and how they come back.

use helve_domain::error::{Code, Error};
use helve_domain::id::{RunId, TenantId};
use helve_domain::retry::OnExhausted;
use helve_domain::run::{Priority, RunError};
use helve_domain::status::RunStatus;

use crate::state::flight::{Ending, Note, Placed, Step};
use crate::state::task::Phase;
use crate::state::{Shard, refuse};
use crate::turn::Turn;
use crate::types::{FinishRow, Mark, MoveRow, Ticket};

impl Turn<'_> {
    /// An attempt failed and there will be no other: the run has failed, or a person is to decide.
    pub(crate) fn give_up(&mut self, run: RunId, error: RunError, reason: Option<&'static str>, note: Note) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let retries = task.retries;
        match task.spec.retry.after_last(&error) {
            OnExhausted::Fail => {
                self.end(run, Ending::without_result(RunStatus::Failed, error, reason), note);
            }
            OnExhausted::Park => self.place(run, Placed::Parked { retries }, Some(error), "parked", note),
        }
    }

    /// Someone sends a parked run to its queue again, with nothing spent. It waits for its turn like a new run: a
    /// thousand that are unparked at once do not push aside what waits already.
    pub(crate) fn unpark(&mut self, run: RunId, tenant: TenantId, ticket: Ticket) {
        let Some(task) = self.shard.tasks.get_mut(&run).filter(|t| t.tenant == tenant) else {
            return refuse(Some(ticket), Error::not_found("run", run), self.out);
        };
        if task.phase != Phase::Parked {
            let state = task.guard().state;
            return refuse(Some(ticket), Shard::not_parked(run, state), self.out);
        }
        // If the write fails, memory forgets the run, and with it this rank.
        let rank = Priority::new(task.priority.into()).unwrap_or(Priority::DEFAULT).rank(self.now);
        task.rank = rank;
        let expires = task.spec.schedule_timeout.map(|d| self.now.plus(d));
        let row = MoveRow {
            mark: Mark::Unparked { rank },
            reason: Some("unparked"),
            ..task.moves(run, task.rests(RunStatus::Queued, expires, 0))
        };
        self.shard.announce(run);
        let note = Note { holder: None, ticket: Some((tenant, ticket)) };
        let place = Placed::Queued { expires, retries: 0 };
        let step = Step::Place { run, place, note: note.clone(), reason: Some("unparked"), code: None };
        self.write_with_consequences(tenant, (FinishRow::Move(Box::new(row)), step), &note);
    }
}

impl Shard {
    /// A conflict answer for an unpark of what is not parked.
    pub(crate) fn not_parked(run: RunId, state: RunStatus) -> Error {
        Error::Conflict {
            code: Code::NotParked,
            message: format!("only a parked run can be unparked; this one is {}", state.as_str()),
            existing: Some(run.to_string()),
        }
    }
}
