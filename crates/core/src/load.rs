//! Rows that were read: windows of queues, and single runs that a command asks for.

use std::collections::VecDeque;

use helve_domain::delivery::{Outgoing, Reason};
use helve_domain::error::Error;
use helve_domain::id::RunId;
use helve_domain::status::RunStatus;

use super::state::{Shard, ids, refuse};
use super::task::{Deferred, Phase, Task};
use super::timers::resting_phase;
use super::types::{Answer, Context, Effect, EndedRun, Found, OpenRow, QueueKey};

impl Shard {
    /// A window of a queue: everything from the head, or from the old horizon, up to the new one.
    pub(super) fn queue_loaded(
        &mut self,
        key: &QueueKey,
        rows: Vec<OpenRow>,
        all: bool,
        cx: Context,
        out: &mut Vec<Effect>,
    ) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        self.loading_queues -= usize::from(std::mem::take(&mut queue.loading));
        let gone = std::mem::take(&mut queue.gone);
        if std::mem::take(&mut queue.stale) || !self.offers.contains_key(&key.whole()) || !self.pauses.opens(key) {
            queue.late.clear();
            if !self.pauses.opens(key) {
                // What was a queue of its own has become part of the whole again, or is paused.
                self.queues.remove(key);
            }
            return self.refill(key, out);
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
            self.row_enters(key, row, horizon);
        }
        for entry in late.into_iter().filter(|e| !read.contains(&e.1)) {
            let Some(task) = self.tasks.get(&entry.1) else { continue };
            let spec = std::sync::Arc::clone(&task.spec);
            match self.queues.get_mut(key) {
                Some(queue) if horizon.is_none_or(|h| entry < h) => queue.insert(&spec, entry),
                Some(_) | None => self.settle(entry.1, cx, out),
            }
        }
        if let Some(horizon) = horizon {
            let beyond = self.queues.get(key).map(|q| q.beyond(horizon)).unwrap_or_default();
            for entry in beyond {
                self.drop_entry(key, entry, out);
            }
        }
        self.fill_queue(key, cx, out);
        self.greet(out);
    }

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

    /// Rows that commands wait for.
    pub(super) fn runs_loaded(&mut self, found: Vec<(RunId, Found)>, cx: Context, out: &mut Vec<Effect>) {
        for (run, found) in found {
            let Some(commands) = self.loading.remove(&run) else { continue };
            match found {
                Found::Open(row) => self.open_found(&row, commands, cx, out),
                Found::Ended(ended) => {
                    for command in commands {
                        self.over(run, command, Some(ended), out);
                    }
                }
                Found::Nothing => {
                    for command in commands {
                        self.over(run, command, None, out);
                    }
                }
            }
        }
    }

    fn open_found(&mut self, row: &OpenRow, commands: VecDeque<Deferred>, cx: Context, out: &mut Vec<Effect>) {
        let run = row.run;
        let mut ours = VecDeque::with_capacity(commands.len());
        for command in commands {
            // A run of another tenant is none at all, and must not enter this shard's memory.
            if self.asks_for(&command).is_some_and(|tenant| tenant != row.tenant) {
                self.over(run, command, None, out);
            } else {
                ours.push_back(command);
            }
        }
        let key = self.pauses.queue_of(row.tenant, &row.spec);
        if ours.is_empty() && !self.queues.contains_key(&key) {
            return;
        }
        let new = !self.tasks.contains_key(&run);
        match resting_phase(row) {
            _ if !new => {}
            Some(phase) => drop(self.tasks.insert(run, Task::from_row(row, phase))),
            None => self.adopt(row, cx, out),
        }
        if let Some(task) = self.tasks.get_mut(&run) {
            task.deferred.extend(ours);
        }
        if new {
            self.catch_up(run, row, out);
        }
        self.settle(run, cx, out);
        self.fill_queue(&key, cx, out);
    }

    /// Reads of queues and timers pass over a run whose row is asked for: it enters both now, or it would be missing
    /// from a window that counts as complete.
    fn catch_up(&mut self, run: RunId, row: &OpenRow, out: &mut Vec<Effect>) {
        if resting_phase(row).is_none() {
            return;
        }
        if let Some(due) = row.due.filter(|at| self.keeps_timer(*at)) {
            self.set_timer(run, Some(due));
        }
        if row.state == RunStatus::Queued {
            self.enqueue(run, out);
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

    /// A command meets a run that has ended, or that does not exist.
    fn over(&mut self, run: RunId, command: Deferred, ended: Option<EndedRun>, out: &mut Vec<Effect>) {
        match command {
            Deferred::Cancel { tenant, ticket } => match ended.filter(|e| e.tenant == tenant).map(|e| e.state) {
                Some(RunStatus::Cancelled) => out.push(Effect::Answer(ticket, Answer::Cancelled)),
                Some(state) => refuse(Some(ticket), Self::already_finished(run, state), out),
                None => refuse(Some(ticket), Error::not_found("run", run), out),
            },
            Deferred::Unpark { tenant, ticket } => match ended.filter(|e| e.tenant == tenant) {
                Some(ended) => refuse(Some(ticket), Self::not_parked(run, ended.state), out),
                None => refuse(Some(ticket), Error::not_found("run", run), out),
            },
            Deferred::Result { session, attempt, .. } => {
                let tenant = self.sessions.get(&session).map(|s| s.tenant);
                let message = match ended.filter(|e| Some(e.tenant) == tenant) {
                    // The same result again: the same answer again.
                    Some(e) if e.is_result_of(session, attempt) => Outgoing::Stored(vec![(attempt, e.state)]),
                    Some(_) => Outgoing::Superseded(vec![(attempt, Reason::Finished)]),
                    None => Outgoing::Superseded(vec![(attempt, Reason::Unknown)]),
                };
                self.release(session, attempt);
                self.push(session, message, out);
            }
            Deferred::Extend { session, attempt, .. } | Deferred::FreeSlot { session, attempt } => {
                self.push(session, Outgoing::Superseded(vec![(attempt, Reason::Finished)]), out);
            }
            Deferred::TakeBack { .. } | Deferred::Timer => {}
        }
    }
}
