//! Timers: the near future is in memory and fires on time; the rest waits in the rows.

use std::collections::hash_map::Entry;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::status::RunStatus;

use crate::state::Shard;
use crate::state::task::{Deferred, Phase, Task};
use crate::turn::Turn;
use crate::types::{OpenRow, RunFacts};

/// Timers of runs that one step fires: whoever steps decides when the next piece has its turn.
const FIRED: usize = 64;
/// Timers that memory holds of one shard. Past it the latest ones wait in the database again, and are read in time.
const MAX_TIMERS: usize = 50_000;

impl Turn<'_> {
    /// Fires what is due, of runs only the first piece.
    pub(crate) fn tick(&mut self) {
        for _ in 0..FIRED {
            let Some((at, run)) = self.shard.timers.first().copied().filter(|t| t.0 <= self.now) else { break };
            self.shard.timers.remove(&(at, run));
            if let Some(task) = self.shard.tasks.get_mut(&run) {
                task.timer = None;
            }
            self.on_run(run, Deferred::Timer);
            self.settle(run);
        }
        while let Some((at, session)) = self.shard.session_timers.first().copied().filter(|t| t.0 <= self.now) {
            self.shard.session_timers.remove(&(at, session));
            if let Some(s) = self.shard.sessions.get_mut(&session) {
                s.timer = None;
            }
            self.session_due(session);
        }
        if !self.shard.pauses.is_empty() {
            self.pauses_due();
        }
    }

    /// Rows whose timers lie before `until` have been read; if not all of them, the horizon is the last.
    pub(crate) fn timers_loaded(&mut self, rows: Vec<OpenRow>, until: Timestamp, all: bool) {
        let reached = if all { Some(until) } else { rows.last().and_then(|r| r.due) };
        self.shard.timer_horizon = reached.unwrap_or(until);
        for row in rows {
            if self.shard.loading.contains_key(&row.run) {
                continue;
            }
            let run = row.run;
            if let Entry::Vacant(place) = self.shard.tasks.entry(run) {
                let Some(phase) = resting_phase(&row) else { continue };
                place.insert(Task::from_row(&row, phase));
            }
            let at = self.shard.tasks.get(&run).and_then(|t| match &t.phase {
                Phase::Scheduled { due } => Some(*due),
                Phase::Queued { expires } => *expires,
                Phase::New | Phase::Running(_) | Phase::Parked => None,
            });
            if at.is_some() {
                self.shard.set_timer(run, at);
            }
        }
        self.tick();
    }
}

impl Shard {
    /// Whether a timer at this time belongs in memory. When there are too many, the horizon comes nearer: what lies
    /// beyond it is read again.
    pub(crate) fn keeps_timer(&mut self, at: Timestamp) -> bool {
        if at > self.timer_horizon.max(self.timer_asked) {
            return false;
        }
        let last = self.timers.last().map(|t| t.0);
        if self.timers.len() < MAX_TIMERS || last.is_some_and(|last| at <= last) {
            return true;
        }
        self.timer_horizon = self.timer_horizon.min(at.minus(Duration::from_micros(1)));
        self.timer_asked = self.timer_horizon;
        false
    }
}

/// The phase of a row that no worker holds.
pub(crate) const fn resting_phase(row: &RunFacts) -> Option<Phase> {
    match row.state {
        RunStatus::Scheduled => match row.due {
            Some(due) => Some(Phase::Scheduled { due }),
            None => Some(Phase::Scheduled { due: Timestamp::from_micros(0) }),
        },
        RunStatus::Queued => Some(Phase::Queued { expires: row.due }),
        RunStatus::Parked => Some(Phase::Parked),
        RunStatus::Running | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => None,
    }
}
