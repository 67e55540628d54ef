//! A takeover: the shard is rebuilt from what a former owner left in the rows.

use std::collections::{BTreeMap, HashMap};

use helve_domain::delivery::Attempt;
use helve_domain::status::RunStatus;

use crate::state::session::{Budget, Session};
use crate::state::task::{Deferred, Delivery, Held, Phase, TakeBack, Task};
use crate::turn::Turn;
use crate::types::{OpenRow, WorkerRow};

impl Turn<'_> {
    /// Workers get a fresh grace to come back; attempts wait for them. An attempt of a session that is
    /// not there any more goes to others at once.
    pub(crate) fn recovered(&mut self, workers: Vec<WorkerRow>, held: Vec<OpenRow>) {
        for row in workers {
            let session = Session {
                worker: row.worker,
                tenant: row.tenant,
                secret: row.secret,
                former: None,
                info: row.info,
                used: BTreeMap::new(),
                transport: None,
                lost_at: Some(self.now),
                ready: true,
                draining: false,
                congested: false,
                paused: false,
                holds: HashMap::new(),
                timer: None,
                lookups: Budget::full(self.now),
            };
            self.shard.sessions.insert(row.session, session);
            self.shard.reset_session_timer(row.session);
        }
        for row in held {
            self.adopt(&row);
        }
        if !self.shard.pauses.is_empty() {
            self.pauses_recovered();
        }
    }

    /// Takes a run that a worker holds into memory: it waits for its worker, or goes to others at once.
    pub(crate) fn adopt(&mut self, row: &OpenRow) {
        let Some(phase) = running_phase(row) else { return };
        let attempt = Attempt { run: row.run, number: row.attempt };
        self.shard.tasks.insert(row.run, Task::from_row(row, phase));
        let Some((_, session)) = row.holder else { return };
        match self.shard.sessions.get_mut(&session) {
            Some(s) => {
                s.hold(attempt, &row.spec);
                if row.freed {
                    s.free_early(attempt);
                }
                self.deadline_of(row);
            }
            None => self.on_run(row.run, Deferred::TakeBack { session, reason: TakeBack::Lost }),
        }
    }

    /// When the attempt was confirmed is not written: its time counts from the assignment, unless the
    /// worker extended it, and at least the grace is left to come back. A former owner whose clock was ahead
    /// may have started it in our future: that gives it no more time than it has.
    fn deadline_of(&mut self, row: &OpenRow) {
        let from_start = row.started_at.unwrap_or(self.now).min(self.now).plus(row.spec.execution_timeout);
        let least = self.now.plus(self.shard.settings.grace);
        let deadline = row.due.unwrap_or(from_start).max(least);
        if let Some(task) = self.shard.tasks.get_mut(&row.run)
            && let Phase::Running(held) = &mut task.phase
        {
            held.deadline = Some(deadline);
            held.delivery = Delivery::Received;
        }
        self.shard.set_timer(row.run, Some(deadline));
    }
}

/// The phase of a row that a worker holds.
fn running_phase(row: &OpenRow) -> Option<Phase> {
    let (worker, session) = row.holder.filter(|_| row.state == RunStatus::Running)?;
    Some(Phase::Running(Held {
        session,
        worker,
        started_at: row.started_at.unwrap_or_default(),
        pushed_at: row.started_at.unwrap_or_default(),
        delivery: Delivery::Received,
        deadline: row.due,
    }))
}
