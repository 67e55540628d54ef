//! Pausing and resuming: what is decided is kept at once in memory, written, and answered when nothing that was
//! decided before can still become an assignment.

use std::collections::BTreeSet;
use std::sync::Arc;

use helve_domain::definition::Spec;
use helve_domain::error::Error;
use helve_domain::id::{SessionId, TenantId, WorkerId};
use helve_domain::pause::{MAX_PAUSES, Pause, Paused, Resumed, Target};

use super::flight::{Assigned, Placed, Start, Step};
use super::queues::Entry;
use super::session::Session;
use super::state::{Shard, refuse};
use super::types::{Answer, Context, Effect, Flight, PauseChange, PauseOrder, PauseRow, QueueKey, Rows, Ticket};

impl Shard {
    /// Somebody pauses or resumes.
    pub(super) fn pause(&mut self, order: PauseOrder, ticket: Ticket, cx: Context, out: &mut Vec<Effect>) {
        let PauseOrder { tenant, target, change } = order;
        let before = self.pauses.get(tenant, &target).map(|p| Pause::clone(p));
        if let Target::Worker(worker) = &target
            && self.session_of(tenant, *worker).is_none()
        {
            return refuse(Some(ticket), Error::not_found("worker", worker), out);
        }
        let after = match (change, &before) {
            (PauseChange::Pause(pause), Some(before)) if before.resumed.is_none() => {
                Some(Pause { since: before.since, ..pause })
            }
            (PauseChange::Pause(_), None) if !self.pauses.has_room(tenant) => {
                return refuse(Some(ticket), too_many(), out);
            }
            (PauseChange::Pause(pause), _) => Some(pause),
            // Nothing to resume; that is no error, since a pause may have ended by itself a moment ago.
            (PauseChange::Resume { .. }, None) => return out.push(Effect::Answer(ticket, Answer::Resumed(None))),
            (PauseChange::Resume { rate: None, .. }, Some(_)) => None,
            (PauseChange::Resume { rate: Some(rate), actions }, Some(before)) => {
                let resumed = Resumed { rate, at: cx.now, actions };
                Some(Pause { expires_at: None, resumed: Some(resumed), ..before.clone() })
            }
        };
        self.change_pause(tenant, target, after, Some(ticket), cx, out);
    }

    /// Changes memory and asks for the row.
    fn change_pause(
        &mut self,
        tenant: TenantId,
        target: Target,
        after: Option<Pause>,
        ticket: Option<Ticket>,
        cx: Context,
        out: &mut Vec<Effect>,
    ) {
        self.apply_pause(tenant, &target, after.clone(), cx, out);
        let row = PauseRow { tenant, target: target.clone(), pause: after.clone() };
        let step = Step::Pause { tenant, target, after, ticket };
        self.write(tenant, Rows::Pause(Box::new(row)), vec![step], out);
    }

    /// From here on decisions respect it.
    fn apply_pause(
        &mut self,
        tenant: TenantId,
        target: &Target,
        after: Option<Pause>,
        cx: Context,
        out: &mut Vec<Effect>,
    ) {
        self.pauses.set(tenant, target, after, cx.now);
        match target {
            Target::Workflow(_) => self.reopen_queues(tenant, out),
            Target::Action(_) | Target::Worker(_) => self.serve(tenant, target, cx, out),
        }
    }

    /// The row of a pause is committed. Its caller hears of it when the assignments that were decided before are
    /// committed too: after the answer none comes any more.
    pub(super) fn pause_written(
        &mut self,
        tenant: TenantId,
        target: Target,
        after: Option<Pause>,
        ticket: Option<Ticket>,
        out: &mut Vec<Effect>,
    ) {
        self.pauses.note_written(tenant, &target, after.clone());
        let paused = after.map(|pause| Box::new(Paused { tenant, target, pause }));
        match (ticket, paused) {
            (None, _) => {}
            (Some(ticket), Some(paused)) if paused.pause.resumed.is_none() => {
                let waits = self.assigning();
                #[cfg(test)]
                let waits = if self.hasty { BTreeSet::new() } else { waits };
                self.pauses.unanswered.push((ticket, paused, waits));
                self.answer_pauses(out);
            }
            (Some(ticket), paused) => out.push(Effect::Answer(ticket, Answer::Resumed(paused))),
        }
    }

    /// Transitions on their way that give a run to a worker.
    fn assigning(&self) -> BTreeSet<Flight> {
        let assigns =
            |step: &Step| matches!(step, Step::Assign { .. } | Step::Create { start: Start::Assigned(_), .. });
        self.flights.iter().filter(|f| f.1.steps.iter().any(assigns)).map(|f| *f.0).collect()
    }

    /// A transition has landed: whoever waited for it may be answered.
    pub(super) fn pauses_landed(&mut self, flight: Flight, out: &mut Vec<Effect>) {
        for (_, _, waits) in &mut self.pauses.unanswered {
            waits.remove(&flight);
        }
        self.answer_pauses(out);
    }

    fn answer_pauses(&mut self, out: &mut Vec<Effect>) {
        for (ticket, paused, _) in self.pauses.unanswered.extract_if(.., |u| u.2.is_empty()) {
            out.push(Effect::Answer(ticket, Answer::Paused(paused)));
        }
    }

    /// A change that somebody asked for could not be written: memory goes back to what stands in the rows, unless
    /// another change of it is on its way. One that came by itself stays: its row is looked at again after a takeover.
    pub(super) fn pause_refused(
        &mut self,
        tenant: TenantId,
        target: &Target,
        asked: bool,
        cx: Context,
        out: &mut Vec<Effect>,
    ) {
        let same =
            |step: &Step| matches!(step, Step::Pause { tenant: t, target: o, .. } if *t == tenant && o == target);
        if asked && !self.flights.values().any(|f| f.steps.iter().any(same)) {
            let written = self.pauses.written(tenant, target);
            self.apply_pause(tenant, target, written, cx, out);
        }
    }

    /// What a former owner left paused. Comes before everything else that it left.
    pub(super) fn pauses_found(&mut self, found: Vec<Paused>, cx: Context) {
        for Paused { tenant, target, pause } in found {
            self.pauses.note_written(tenant, &target, Some(pause.clone()));
            self.pauses.set(tenant, &target, Some(pause), cx.now);
        }
    }

    /// After a takeover: paused workers take nothing, and a pause whose worker is gone is over.
    pub(super) fn pauses_recovered(&mut self, cx: Context, out: &mut Vec<Effect>) {
        for (tenant, worker) in self.pauses.of_workers() {
            match self.session_of(tenant, worker) {
                Some(session) => self.shut_session(session),
                None => self.change_pause(tenant, Target::Worker(worker), None, None, cx, out),
            }
        }
    }

    /// A worker has left for good, and its pause with it.
    pub(super) fn pause_left(&mut self, tenant: TenantId, worker: WorkerId, cx: Context, out: &mut Vec<Effect>) {
        let target = Target::Worker(worker);
        if self.pauses.get(tenant, &target).is_some() {
            self.change_pause(tenant, target, None, None, cx, out);
        }
    }

    /// Pauses that end by themselves, and gentle starts that may go on.
    pub(super) fn pauses_due(&mut self, cx: Context, out: &mut Vec<Effect>) {
        while let Some((tenant, target)) = self.pauses.due(cx.now) {
            let gentle = self.pauses.refill(tenant, &target, cx.now);
            if gentle {
                self.serve(tenant, &target, cx, out);
            }
            if !gentle || (self.pauses.is_full(tenant, &target) && self.is_drained(tenant, &target)) {
                self.change_pause(tenant, target, None, None, cx, out);
            }
        }
    }

    /// Gives out what a target lets go now.
    fn serve(&mut self, tenant: TenantId, target: &Target, cx: Context, out: &mut Vec<Effect>) {
        match target {
            Target::Worker(worker) => {
                let Some(session) = self.session_of(tenant, *worker) else { return };
                self.shut_session(session);
                self.offers_refresh(session);
                self.offer_room(session, cx, out);
            }
            Target::Workflow(_) | Target::Action(_) => {
                for key in self.queues_of(tenant, target) {
                    self.fill_queue(&key, cx, out);
                }
            }
        }
    }

    /// Sets whether a session takes work as far as pauses say.
    pub(super) fn shut_session(&mut self, session: SessionId) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.paused = self.pauses.shuts(s.tenant, Target::Worker(s.worker));
        }
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
        !keys.is_empty() && keys.iter().all(|k| self.queues.get(k).is_some_and(super::queues::Queue::is_drained))
    }

    fn session_of(&self, tenant: TenantId, worker: WorkerId) -> Option<SessionId> {
        let found = self.sessions.iter().find(|(_, s)| s.worker == worker && s.tenant == tenant && s.ready);
        found.map(|(id, _)| *id)
    }

    /// Which runs stand apart has changed: every window of the tenant is read anew. Rare, and the one way in which
    /// a backlog that memory does not hold comes back or goes.
    fn reopen_queues(&mut self, tenant: TenantId, out: &mut Vec<Effect>) {
        let mut keys: Vec<QueueKey> = self.queues.keys().filter(|k| k.tenant == tenant).cloned().collect();
        keys.sort_unstable();
        for key in &keys {
            let late = self.queues.get_mut(key).map(|queue| {
                queue.uncommitted.clear();
                std::mem::take(&mut queue.late)
            });
            self.close_queue(key, out);
            for entry in late.into_iter().flatten() {
                self.drop_entry(key, entry, out);
            }
        }
        let mut actions: Vec<Arc<str>> =
            self.offers.keys().filter(|k| k.tenant == tenant).map(|k| Arc::clone(&k.action)).collect();
        actions.sort_unstable();
        let mut open = Vec::new();
        for action in actions {
            open.extend(self.pauses.parts(tenant, &action));
            open.push(QueueKey { tenant, action, part: None });
        }
        for key in &open {
            self.queues.entry(key.clone()).or_default();
        }
        for (key, entry) in self.entering(tenant) {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.uncommitted.insert(entry);
            }
        }
        for key in &open {
            self.refill(key, out);
        }
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

    /// The earliest run that needs an action and that a session could take now.
    pub(super) fn first_for(&self, s: &Session, action: &Arc<str>) -> Option<Entry> {
        let of = |key: &QueueKey| {
            let queue = self.queues.get(key).filter(|queue| queue.len() > 0 && !self.pauses.block(key))?;
            queue.first_for(s)
        };
        let first = of(&QueueKey::of(s.tenant, Arc::clone(action)));
        if self.pauses.is_empty() {
            return first;
        }
        self.pauses.parts(s.tenant, action).iter().filter_map(of).chain(first).min()
    }

    /// Whether a newcomer may start at once, as far as its queue and pauses say.
    pub(super) fn is_clear(&self, key: &QueueKey, spec: &Spec) -> bool {
        let clear = |key| self.queues.get(key).is_some_and(|q| q.is_clear(spec));
        clear(key) && (self.pauses.is_empty() || (!self.pauses.block(key) && clear(&key.whole())))
    }

    /// A run starts: gentle starts give a token for it.
    pub(super) fn spend(&mut self, tenant: TenantId, spec: &Spec, to: Assigned, cx: Context) {
        if !self.pauses.is_empty() {
            self.pauses.spend(tenant, spec, to.worker, cx.now);
            self.shut_session(to.session);
        }
    }

    /// As [`Shard::refill`], for everything that waits for an action.
    pub(super) fn refill_action(&mut self, tenant: TenantId, action: Arc<str>, out: &mut Vec<Effect>) {
        let key = QueueKey::of(tenant, action);
        self.refill(&key, out);
        if !self.pauses.is_empty() {
            for part in self.pauses.parts(tenant, &key.action) {
                self.refill(&part, out);
            }
        }
    }

    /// Opens the windows beside those of an action that a worker now offers.
    pub(super) fn open_parts(&mut self, key: &QueueKey, out: &mut Vec<Effect>) {
        for part in self.pauses.parts(key.tenant, &key.action) {
            self.queues.entry(part.clone()).or_default().offers_changed();
            self.refill(&part, out);
        }
    }

    /// A worker of the action went or changed.
    pub(super) fn parts_changed(&mut self, key: &QueueKey) {
        for part in self.pauses.parts(key.tenant, &key.action) {
            if let Some(queue) = self.queues.get_mut(&part) {
                queue.offers_changed();
            }
        }
    }

    /// Closes the windows beside that of an action which nobody offers any more.
    pub(super) fn close_parts(&mut self, key: &QueueKey, out: &mut Vec<Effect>) {
        for part in self.pauses.parts(key.tenant, &key.action) {
            self.close_queue(&part, out);
        }
    }
}

fn too_many() -> Error {
    Error::Limited {
        message: format!("a tenant can have {MAX_PAUSES} pauses at once"),
        retry_after: std::time::Duration::from_secs(60),
    }
}
