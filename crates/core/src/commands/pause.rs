//! Pausing and resuming: what is decided is kept at once in memory, written, and answered when nothing that was
//! decided before can still become an assignment.

use std::collections::BTreeSet;
use std::sync::Arc;

use helve_domain::error::Error;
use helve_domain::id::{SessionId, TenantId, WorkerId};
use helve_domain::pause::{MAX_PAUSES, Pause, Paused, Resumed, Target};

use crate::state::flight::{Placed, Start, Step};
use crate::state::queue::Entry;
use crate::state::{Shard, refuse};
use crate::turn::Turn;
use crate::types::{Answer, Effect, Flight, PauseChange, PauseOrder, PauseRow, QueueKey, Rows, Ticket};

impl Turn<'_> {
    /// Somebody pauses or resumes.
    pub(crate) fn pause(&mut self, order: PauseOrder, ticket: Ticket) {
        let PauseOrder { tenant, target, change } = order;
        let before = self.shard.pauses.get(tenant, &target).map(|p| Pause::clone(p));
        if let Target::Worker(worker) = &target
            && self.shard.session_of(tenant, *worker).is_none()
        {
            return refuse(Some(ticket), Error::not_found("worker", worker), self.out);
        }
        let after = match (change, &before) {
            (PauseChange::Pause(pause), Some(before)) if before.resumed.is_none() => {
                Some(Pause { since: before.since, ..pause })
            }
            (PauseChange::Pause(_), None) if !self.shard.pauses.has_room(tenant) => {
                return refuse(Some(ticket), too_many(), self.out);
            }
            (PauseChange::Pause(pause), _) => Some(pause),
            // Nothing to resume; that is no error, since a pause may have ended by itself a moment ago.
            (PauseChange::Resume { .. }, None) => return self.out.push(Effect::Answer(ticket, Answer::Resumed(None))),
            (PauseChange::Resume { rate: None, .. }, Some(_)) => None,
            (PauseChange::Resume { rate: Some(rate), actions }, Some(before)) => {
                let resumed = Resumed { rate, at: self.now, actions };
                Some(Pause { expires_at: None, resumed: Some(resumed), ..before.clone() })
            }
        };
        self.change_pause(tenant, target, after, Some(ticket));
    }

    /// Changes memory and asks for the row.
    fn change_pause(&mut self, tenant: TenantId, target: Target, after: Option<Pause>, ticket: Option<Ticket>) {
        self.apply_pause(tenant, &target, after.clone());
        let row = PauseRow { tenant, target: target.clone(), pause: after.clone() };
        let step = Step::Pause { tenant, target, after, ticket };
        self.write(tenant, Rows::Pause(Box::new(row)), vec![step]);
    }

    /// From here on decisions respect it.
    fn apply_pause(&mut self, tenant: TenantId, target: &Target, after: Option<Pause>) {
        self.shard.pauses.set(tenant, target, after, self.now);
        match target {
            Target::Workflow(_) => self.reopen_queues(tenant),
            Target::Action(_) | Target::Worker(_) => self.serve(tenant, target),
        }
    }

    /// The row of a pause is committed. Its caller hears of it when the assignments that were decided before are
    /// committed too: after the answer none comes any more.
    pub(crate) fn pause_written(
        &mut self,
        tenant: TenantId,
        target: Target,
        after: Option<Pause>,
        ticket: Option<Ticket>,
    ) {
        self.shard.pauses.note_written(tenant, &target, after.clone());
        let paused = after.map(|pause| Box::new(Paused { tenant, target, pause }));
        match (ticket, paused) {
            (None, _) => {}
            (Some(ticket), Some(paused)) if paused.pause.resumed.is_none() => {
                let waits = self.shard.assigning();
                #[cfg(test)]
                let waits = if self.shard.hasty { BTreeSet::new() } else { waits };
                self.shard.pauses.unanswered.push((ticket, paused, waits));
                self.answer_pauses();
            }
            (Some(ticket), paused) => self.out.push(Effect::Answer(ticket, Answer::Resumed(paused))),
        }
    }

    /// A transition has landed: whoever waited for it may be answered.
    pub(crate) fn pauses_landed(&mut self, flight: Flight) {
        for (_, _, waits) in &mut self.shard.pauses.unanswered {
            waits.remove(&flight);
        }
        self.answer_pauses();
    }

    fn answer_pauses(&mut self) {
        for (ticket, paused, _) in self.shard.pauses.unanswered.extract_if(.., |u| u.2.is_empty()) {
            self.out.push(Effect::Answer(ticket, Answer::Paused(paused)));
        }
    }

    /// A change that somebody asked for could not be written: memory goes back to what stands in the rows, unless
    /// another change of it is on its way. One that came by itself stays: its row is looked at again after a takeover.
    pub(crate) fn pause_refused(&mut self, tenant: TenantId, target: &Target, asked: bool) {
        let same =
            |step: &Step| matches!(step, Step::Pause { tenant: t, target: o, .. } if *t == tenant && o == target);
        if asked && !self.shard.flights.values().any(|f| f.steps.iter().any(same)) {
            let written = self.shard.pauses.written(tenant, target);
            self.apply_pause(tenant, target, written);
        }
    }

    /// What a former owner left paused. Comes before everything else that it left.
    pub(crate) fn pauses_found(&mut self, found: Vec<Paused>) {
        for Paused { tenant, target, pause } in found {
            self.shard.pauses.note_written(tenant, &target, Some(pause.clone()));
            self.shard.pauses.set(tenant, &target, Some(pause), self.now);
        }
    }

    /// After a takeover: paused workers take nothing, and a pause whose worker is gone is over.
    pub(crate) fn pauses_recovered(&mut self) {
        for (tenant, worker) in self.shard.pauses.of_workers() {
            match self.shard.session_of(tenant, worker) {
                Some(session) => self.shard.shut_session(session),
                None => self.change_pause(tenant, Target::Worker(worker), None, None),
            }
        }
    }

    /// A worker has left for good, and its pause with it.
    pub(crate) fn pause_left(&mut self, tenant: TenantId, worker: WorkerId) {
        let target = Target::Worker(worker);
        if self.shard.pauses.get(tenant, &target).is_some() {
            self.change_pause(tenant, target, None, None);
        }
    }

    /// Pauses that end by themselves, and gentle starts that may go on.
    pub(crate) fn pauses_due(&mut self) {
        while let Some((tenant, target)) = self.shard.pauses.due(self.now) {
            let gentle = self.shard.pauses.refill(tenant, &target, self.now);
            if gentle {
                self.serve(tenant, &target);
            }
            if !gentle || (self.shard.pauses.is_full(tenant, &target) && self.shard.is_drained(tenant, &target)) {
                self.change_pause(tenant, target, None, None);
            }
        }
    }

    /// Gives out what a target lets go now.
    fn serve(&mut self, tenant: TenantId, target: &Target) {
        match target {
            Target::Worker(worker) => {
                let Some(session) = self.shard.session_of(tenant, *worker) else { return };
                self.shard.shut_session(session);
                self.shard.offers_refresh(session);
                self.offer_room(session);
            }
            Target::Workflow(_) | Target::Action(_) => {
                for key in self.shard.queues_of(tenant, target) {
                    self.fill_queue(&key);
                }
            }
        }
    }

    /// Which runs stand apart has changed: every window of the tenant is read anew. Rare, and the one way in which
    /// a backlog that memory does not hold comes back or goes.
    fn reopen_queues(&mut self, tenant: TenantId) {
        let mut keys: Vec<QueueKey> = self.shard.queues.keys().filter(|k| k.tenant == tenant).cloned().collect();
        keys.sort_unstable();
        for key in &keys {
            let late = self.shard.queues.get_mut(key).map(|queue| {
                queue.uncommitted.clear();
                std::mem::take(&mut queue.late)
            });
            self.close_queue(key);
            for entry in late.into_iter().flatten() {
                self.drop_entry(key, entry);
            }
        }
        let mut actions: Vec<Arc<str>> =
            self.shard.offers.keys().filter(|k| k.tenant == tenant).map(|k| Arc::clone(&k.action)).collect();
        actions.sort_unstable();
        let mut open = Vec::new();
        for action in actions {
            open.extend(self.shard.pauses.parts(tenant, &action));
            open.push(QueueKey { tenant, action, part: None });
        }
        for key in &open {
            self.shard.queues.entry(key.clone()).or_default();
        }
        for (key, entry) in self.shard.entering(tenant) {
            if let Some(queue) = self.shard.queues.get_mut(&key) {
                queue.uncommitted.insert(entry);
            }
        }
        for key in &open {
            self.refill(key);
        }
    }

    /// Opens the windows beside those of an action that a worker now offers.
    pub(crate) fn open_parts(&mut self, key: &QueueKey) {
        for part in self.shard.pauses.parts(key.tenant, &key.action) {
            self.shard.queues.entry(part.clone()).or_default().offers_changed();
            self.refill(&part);
        }
    }

    /// Closes the windows beside that of an action which nobody offers any more.
    pub(crate) fn close_parts(&mut self, key: &QueueKey) {
        for part in self.shard.pauses.parts(key.tenant, &key.action) {
            self.close_queue(&part);
        }
    }
}

impl Shard {
    /// Transitions on their way that give a run to a worker.
    fn assigning(&self) -> BTreeSet<Flight> {
        let assigns =
            |step: &Step| matches!(step, Step::Assign { .. } | Step::Create { start: Start::Assigned(_), .. });
        self.flights.iter().filter(|f| f.1.steps.iter().any(assigns)).map(|f| *f.0).collect()
    }

    /// The windows that a workflow's or an action's runs wait in.
    fn queues_of(&self, tenant: TenantId, target: &Target) -> Vec<QueueKey> {
        let of = |key: &&QueueKey| {
            key.tenant == tenant
                && match target {
                    Target::Workflow(w) => key.part.as_ref() == Some(w),
                    Target::Action(a) => key.action == *a,
                    Target::Worker(_) => false,
                }
        };
        let mut keys: Vec<QueueKey> = self.queues.keys().filter(of).cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// Whether nothing waits that a gentle start would still have to let go. Without a worker nobody can tell.
    fn is_drained(&self, tenant: TenantId, target: &Target) -> bool {
        if let Target::Worker(_) = target {
            return true;
        }
        let keys = self.queues_of(tenant, target);
        !keys.is_empty() && keys.iter().all(|k| self.queues.get(k).is_some_and(crate::state::queue::Queue::is_drained))
    }

    fn session_of(&self, tenant: TenantId, worker: WorkerId) -> Option<SessionId> {
        let found = self.sessions.iter().find(|(_, s)| s.worker == worker && s.tenant == tenant && s.ready);
        found.map(|(id, _)| *id)
    }

    /// Runs that will be queued when their transition is committed.
    fn entering(&self, tenant: TenantId) -> Vec<(QueueKey, Entry)> {
        let steps = self.flights.values().flat_map(|f| &f.steps);
        let runs = steps.filter_map(|step| match step {
            Step::Create { run, start: Start::Queued { .. }, .. }
            | Step::Place { run, place: Placed::Queued { .. }, .. } => Some(*run),
            _ => None,
        });
        let tasks = runs.filter_map(|run| self.tasks.get(&run).filter(|t| t.tenant == tenant).map(|t| (run, t)));
        tasks.map(|(run, task)| (self.pauses.queue_of(tenant, &task.spec), (task.rank, run))).collect()
    }

    /// A worker of the action went or changed.
    pub(crate) fn parts_changed(&mut self, key: &QueueKey) {
        for part in self.pauses.parts(key.tenant, &key.action) {
            if let Some(queue) = self.queues.get_mut(&part) {
                queue.offers_changed();
            }
        }
    }
}

fn too_many() -> Error {
    Error::Limited {
        message: format!("a tenant can have {MAX_PAUSES} pauses at once"),
        retry_after: std::time::Duration::from_secs(60),
    }
}
