//! Rows that were read: windows of queues, and single runs that a command asks for.

use std::collections::VecDeque;

use helve_domain::delivery::{Outgoing, Reason};
use helve_domain::error::Error;
use helve_domain::id::RunId;
use helve_domain::status::RunStatus;

use crate::state::task::{Deferred, Phase, Task};
use crate::state::timers::resting_phase;
use crate::state::{Shard, ids, refuse};
use crate::turn::Turn;
use crate::types::{Answer, Effect, EndedRun, Found, OpenRow, QueueKey};

impl Turn<'_> {
    /// A window of a queue: everything from the head, or from the old horizon, up to the new one.
    pub(crate) fn queue_loaded(&mut self, key: &QueueKey, rows: Vec<OpenRow>, all: bool) {
        let Some(queue) = self.shard.queues.get_mut(key) else { return };
        self.shard.loading_queues -= usize::from(std::mem::take(&mut queue.loading));
        let gone = std::mem::take(&mut queue.gone);
        if std::mem::take(&mut queue.stale)
            || !self.shard.offers.contains_key(&key.whole())
            || !self.shard.pauses.opens(key)
        {
            queue.late.clear();
            if !self.shard.pauses.opens(key) {
                // What was a queue of its own has become part of the whole again, or is paused.
                self.shard.queues.remove(key);
            }
            return self.refill(key);
        }
        queue.loaded = true;
        let last = rows.last().map(|r| (r.rank, r.run));
        queue.horizon = match (all, last) {
            (true, _) => None,
            // The last row itself is read again: the horizon is where memory is no longer sure.
            (false, last) => last,
        };
        let horizon = queue.horizon;
        let late = std::mem::take(&mut queue.late);
        let read = ids(&rows);
        for row in rows.iter().filter(|row| !gone.contains(&row.run)) {
            self.shard.row_enters(key, row, horizon);
        }
        for entry in late.into_iter().filter(|e| !read.contains(&e.1)) {
            let Some(task) = self.shard.tasks.get(&entry.1) else { continue };
            let spec = std::sync::Arc::clone(&task.spec);
            match self.shard.queues.get_mut(key) {
                Some(queue) if horizon.is_none_or(|h| entry < h) => queue.insert(&spec, entry),
                Some(_) | None => self.settle(entry.1),
            }
        }
        if let Some(horizon) = horizon {
            let beyond = self.shard.queues.get(key).map(|q| q.beyond(horizon)).unwrap_or_default();
            for entry in beyond {
                self.drop_entry(key, entry);
            }
        }
        self.fill_queue(key);
        self.greet();
    }

    /// Rows that commands wait for.
    pub(crate) fn runs_loaded(&mut self, found: Vec<(RunId, Found)>) {
        for (run, found) in found {
            let Some(commands) = self.shard.loading.remove(&run) else { continue };
            match found {
                Found::Open(row) => self.open_found(&row, commands),
                Found::Ended(ended) => {
                    for command in commands {
                        self.over(run, command, Some(ended));
                    }
                }
                Found::Nothing => {
                    for command in commands {
                        self.over(run, command, None);
                    }
                }
            }
        }
    }

    fn open_found(&mut self, row: &OpenRow, commands: VecDeque<Deferred>) {
        let run = row.run;
        let mut ours = VecDeque::with_capacity(commands.len());
        for command in commands {
            // A run of another tenant is none at all, and must not enter this shard's memory.
            if self.shard.asks_for(&command).is_some_and(|tenant| tenant != row.tenant) {
                self.over(run, command, None);
            } else {
                ours.push_back(command);
            }
        }
        let key = self.shard.pauses.queue_of(row.tenant, &row.spec);
        if ours.is_empty() && !self.shard.queues.contains_key(&key) {
            return;
        }
        let new = !self.shard.tasks.contains_key(&run);
        match resting_phase(row) {
            _ if !new => {}
            Some(phase) => drop(self.shard.tasks.insert(run, Task::from_row(row, phase))),
            None => self.adopt(row),
        }
        if let Some(task) = self.shard.tasks.get_mut(&run) {
            task.deferred.extend(ours);
        }
        if new {
            self.catch_up(run, row);
        }
        self.settle(run);
        self.fill_queue(&key);
    }

    /// Reads of queues and timers pass over a run whose row is asked for: it enters both now, or it would be missing
    /// from a window that counts as complete.
    fn catch_up(&mut self, run: RunId, row: &OpenRow) {
        if resting_phase(row).is_none() {
            return;
        }
        if let Some(due) = row.due.filter(|at| self.shard.keeps_timer(*at)) {
            self.shard.set_timer(run, Some(due));
        }
        if row.state == RunStatus::Queued {
            self.enqueue(run);
        }
    }

    /// A command meets a run that has ended, or that does not exist.
    fn over(&mut self, run: RunId, command: Deferred, ended: Option<EndedRun>) {
        match command {
            Deferred::Cancel { tenant, ticket } => match ended.filter(|e| e.tenant == tenant).map(|e| e.state) {
                Some(RunStatus::Cancelled) => self.out.push(Effect::Answer(ticket, Answer::Cancelled)),
                Some(state) => refuse(Some(ticket), Shard::already_finished(run, state), self.out),
                None => refuse(Some(ticket), Error::not_found("run", run), self.out),
            },
            Deferred::Unpark { tenant, ticket } => match ended.filter(|e| e.tenant == tenant) {
                Some(ended) => refuse(Some(ticket), Shard::not_parked(run, ended.state), self.out),
                None => refuse(Some(ticket), Error::not_found("run", run), self.out),
            },
            Deferred::Result { session, attempt, .. } => {
                let tenant = self.shard.sessions.get(&session).map(|s| s.tenant);
                let message = match ended.filter(|e| Some(e.tenant) == tenant) {
                    // The same result again: the same answer again.
                    Some(e) if e.is_result_of(session, attempt) => Outgoing::Stored(vec![(attempt, e.state)]),
                    Some(_) => Outgoing::Superseded(vec![(attempt, Reason::Finished)]),
                    None => Outgoing::Superseded(vec![(attempt, Reason::Unknown)]),
                };
                self.push(session, message);
                self.let_go(session, attempt);
            }
            Deferred::Extend { session, attempt, .. } | Deferred::FreeSlot { session, attempt } => {
                self.push(session, Outgoing::Superseded(vec![(attempt, Reason::Finished)]));
            }
            Deferred::TakeBack { session, .. } => self.let_go_of(session, run),
            Deferred::Timer => {}
        }
    }
}

impl Shard {
    fn row_enters(&mut self, key: &QueueKey, row: &OpenRow, horizon: Option<(i64, RunId)>) {
        let entry = (row.rank, row.run);
        if horizon.is_some_and(|h| entry >= h) || self.loading.contains_key(&row.run) {
            return;
        }
        match self.tasks.get(&row.run) {
            // Memory knows better than a snapshot, except that the run belongs in the window.
            Some(task) => {
                if task.flight.is_some() || !matches!(task.phase, Phase::Queued { .. }) {
                    return;
                }
            }
            None => {
                let Some(phase @ Phase::Queued { .. }) = resting_phase(row) else { return };
                let expires = row.due.filter(|at| self.keeps_timer(*at));
                self.tasks.insert(row.run, Task::from_row(row, phase));
                self.set_timer(row.run, expires);
            }
        }
        let Some(task) = self.tasks.get(&row.run) else { return };
        let spec = std::sync::Arc::clone(&task.spec);
        if let Some(queue) = self.queues.get_mut(key) {
            queue.insert(&spec, entry);
        }
    }

    /// The tenant for whom a command was given, if it can tell.
    fn asks_for(&self, command: &Deferred) -> Option<helve_domain::id::TenantId> {
        let of = |session| self.sessions.get(session).map(|s| s.tenant);
        match command {
            Deferred::Cancel { tenant, .. } | Deferred::Unpark { tenant, .. } => Some(*tenant),
            Deferred::Result { session, .. }
            | Deferred::Extend { session, .. }
            | Deferred::FreeSlot { session, .. }
            | Deferred::TakeBack { session, .. } => of(session),
            Deferred::Timer => None,
        }
    }
}
