//! What the core tells those who watch, and whose word counts.

use helve_domain::delivery::Attempt;
use helve_domain::id::{SessionId, TenantId};
use helve_domain::live::{Change, Changed};
use helve_domain::status::RunStatus;

use crate::state::Shard;
use crate::state::flight::{Placed, Start, Step};
use crate::turn::Turn;
use crate::types::{Effect, Transport};

impl Turn<'_> {
    /// A step is committed and not yet applied: those who watch hear of it.
    pub(crate) fn announce(&mut self, step: &Step) {
        let (run, status, attempt, reason) = match step {
            Step::Create { run, start, .. } => {
                let (status, attempt) = match start {
                    Start::Assigned(_) => (RunStatus::Running, 1),
                    Start::Queued { .. } => (RunStatus::Queued, 0),
                    Start::Scheduled { .. } => (RunStatus::Scheduled, 0),
                };
                (run, status, Some(attempt), None)
            }
            Step::Assign { run, .. } => {
                (run, RunStatus::Running, self.shard.tasks.get(run).map(|t| t.attempt + 1), None)
            }
            Step::Place { run, place, reason, .. } => {
                let status = match place {
                    Placed::Queued { .. } => RunStatus::Queued,
                    Placed::Scheduled { .. } => RunStatus::Scheduled,
                    Placed::Parked { .. } => RunStatus::Parked,
                };
                (run, status, None, *reason)
            }
            Step::End { run, row, .. } => (run, row.state, None, row.reason),
            Step::Event { event, runs, of, .. } => {
                let what = Changed::Event { event: *event, key: of.1.clone(), runs: runs.clone() };
                return self.out.push(Effect::Changed(Box::new(Change { tenant: of.0, at: self.now, what })));
            }
            Step::Extend { .. } | Step::FreeSlot { .. } | Step::Pause { .. } | Step::Worker { .. } | Step::Gone => {
                return;
            }
        };
        let Some(task) = self.shard.tasks.get(run) else { return };
        let (workflow, attempt) = (task.spec.workflow.clone(), attempt.unwrap_or(task.attempt));
        let what = Changed::Run { run: *run, workflow, status, attempt, reason };
        self.out.push(Effect::Changed(Box::new(Change { tenant: task.tenant, at: self.now, what })));
    }
}

impl Shard {
    /// The tenant, if this socket is the session's own and the session holds the attempt: only then its word counts.
    pub fn holder(&self, session: SessionId, transport: Transport, attempt: Attempt) -> Option<TenantId> {
        let s = self.sessions.get(&session).filter(|s| s.transport == Some(transport))?;
        let task = self.tasks.get(&attempt.run)?;
        task.is_held_by(session, attempt.number).then_some(s.tenant)
    }
}
