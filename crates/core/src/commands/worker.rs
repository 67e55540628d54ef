//! Workers: sessions that open, resume, go silent, drain and leave.

use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Attempt, Close, Outcome, Outgoing, Reason};
use helve_domain::id::SessionId;

use crate::state::Shard;
use crate::state::flight::Step;
use crate::state::task::{Deferred, TakeBack};
use crate::turn::Turn;
use crate::types::{Effect, Incoming, QueueKey, Rows, Transport, WorkerChange};

impl Turn<'_> {
    /// A worker's message; those of a replaced socket are ignored.
    pub(crate) fn worker(&mut self, id: SessionId, transport: Transport, message: Incoming) {
        let Some(s) = self.shard.sessions.get_mut(&id).filter(|s| s.transport == Some(transport)) else { return };
        match message {
            Incoming::Received(attempts) => self.received(id, attempts),
            Incoming::Results(results) => {
                for (attempt, outcome) in results {
                    self.report(id, attempt, outcome);
                }
            }
            Incoming::Extend(extensions) => {
                for (attempt, by) in extensions {
                    if self.shard.sessions.get(&id).is_some_and(|s| s.holds.contains_key(&attempt)) {
                        self.on_run(attempt.run, Deferred::Extend { session: id, attempt, by });
                    } else {
                        self.push(id, Outgoing::Superseded(vec![(attempt, Reason::Unknown)]));
                    }
                }
            }
            Incoming::FreeSlot(attempts) => {
                for attempt in attempts {
                    self.wants_free(id, attempt);
                }
            }
            // They change nothing that is decided here.
            Incoming::Log(_) | Incoming::Progress(_) => {}
            Incoming::Capacity(slots) => {
                s.info.slots = slots;
                self.put_worker(id);
            }
            Incoming::Labels(labels) => {
                s.info.labels = labels;
                self.put_worker(id);
            }
            Incoming::Drain => s.draining = true,
            Incoming::Goodbye => self.goodbye(id),
            Incoming::Lost => {
                s.transport = None;
                s.lost_at = Some(self.now);
                self.shard.reset_session_timer(id);
            }
            Incoming::CaughtUp => {
                s.congested = false;
                self.shard.offers_refresh(id);
                self.offer_room(id);
            }
        }
    }

    /// A result: of an attempt that the session holds, or one that only the rows know.
    fn report(&mut self, id: SessionId, attempt: Attempt, outcome: Outcome) {
        let Some(s) = self.shard.sessions.get_mut(&id) else { return };
        if s.holds.get(&attempt).is_some_and(|h| h.until.is_some()) {
            // Told to stop: whatever it says, the slot is free now.
            let reason = s.holds.get(&attempt).and_then(|h| h.until).map_or(Reason::Reassigned, |u| u.1);
            self.push(id, Outgoing::Superseded(vec![(attempt, reason)]));
            return self.let_go(id, attempt);
        }
        if !s.holds.contains_key(&attempt) && !s.lookups.take(self.now) {
            return self.out.push(Effect::Push(
                s.transport.unwrap_or_default(),
                Outgoing::Error(
                    helve_domain::error::Code::TooManyRequests,
                    "more than 1000 results a second for attempts that this worker does not hold".into(),
                ),
            ));
        }
        self.on_run(attempt.run, Deferred::Result { session: id, attempt, outcome });
    }

    fn goodbye(&mut self, id: SessionId) {
        self.push(id, Outgoing::Close(Close::Normal));
        self.finish_session(id, TakeBack::Released);
    }

    /// A session is over: its work goes to others, its row goes.
    fn finish_session(&mut self, id: SessionId, why: TakeBack) {
        self.take_all_back(id, why);
        self.remove_session(id);
    }

    /// A worker's row was refused: a new session is not one; of an older one the socket is given up, and what it
    /// holds waits for the grace.
    pub(crate) fn unwritten(&mut self, id: SessionId) {
        let Some(s) = self.shard.sessions.get_mut(&id) else { return };
        if !s.ready {
            return self.remove_session(id);
        }
        if let Some(transport) = s.transport.take() {
            s.lost_at = Some(self.now);
            self.out.push(Effect::Push(transport, Outgoing::Close(Close::TooMany)));
        }
        self.shard.reset_session_timer(id);
    }

    /// Takes a session out of memory and out of its row.
    pub(crate) fn remove_session(&mut self, id: SessionId) {
        self.shard.set_session_timer(id, None);
        let Some(s) = self.shard.sessions.remove(&id) else { return };
        self.withdraw_offers(s.tenant, id, &s.info.actions);
        self.write(s.tenant, Rows::Worker(WorkerChange::Gone(s.worker)), vec![Step::Gone]);
        if !self.shard.pauses.is_empty() {
            self.pause_left(s.tenant, s.worker);
        }
        self.greet();
    }

    /// The session's time has come: stops that were not obeyed, or the end of the grace.
    pub(crate) fn session_due(&mut self, id: SessionId) {
        let grace = self.shard.settings.grace;
        let Some(s) = self.shard.sessions.get(&id) else { return };
        if s.transport.is_none() && s.lost_at.is_some_and(|at| at.plus(grace) <= self.now) {
            return self.finish_session(id, TakeBack::Lost);
        }
        let mut over: Vec<(Attempt, Reason)> =
            s.holds.iter().filter_map(|(a, h)| h.until.filter(|(at, _)| *at <= self.now).map(|u| (*a, u.1))).collect();
        over.sort_unstable_by_key(|o| o.0);
        for (attempt, _) in &over {
            self.shard.loosen(id, *attempt);
        }
        if !over.is_empty() {
            self.push(id, Outgoing::Superseded(over));
            self.offer_room(id);
        }
        self.shard.reset_session_timer(id);
    }

    /// A session's row is committed: its actions and slots count from now on.
    pub(crate) fn offers_changed(&mut self, id: SessionId) {
        let Some(s) = self.shard.sessions.get(&id) else { return };
        let (tenant, actions) = (s.tenant, s.info.actions.clone());
        for action in actions {
            let key = QueueKey::of(tenant, action);
            let offer = self.shard.offers.entry(key.clone()).or_default();
            offer.refresh();
            if !offer.sessions.contains(&id) {
                offer.sessions.push(id);
            }
            self.shard.queues.entry(key.clone()).or_default().offers_changed();
            self.refill(&key);
            if !self.shard.pauses.is_empty() {
                self.open_parts(&key);
            }
        }
        self.offer_room(id);
    }

    pub(crate) fn withdraw_offers(&mut self, tenant: helve_domain::id::TenantId, id: SessionId, actions: &[Arc<str>]) {
        for action in actions {
            let key = QueueKey::of(tenant, Arc::clone(action));
            let Some(offer) = self.shard.offers.get_mut(&key) else { continue };
            offer.sessions.retain(|s| *s != id);
            if offer.sessions.is_empty() {
                self.shard.offers.remove(&key);
                self.close_queue(&key);
                self.close_parts(&key);
            } else if let Some(queue) = self.shard.queues.get_mut(&key) {
                queue.offers_changed();
                self.shard.parts_changed(&key);
            }
        }
    }

    /// The process stops: workers open a socket elsewhere, and nothing new is assigned.
    pub(crate) fn drain(&mut self, deadline: Duration) {
        self.shard.draining = true;
        let mut sockets: Vec<Transport> = Vec::new();
        for s in self.shard.sessions.values_mut() {
            s.draining = true;
            sockets.extend(s.transport);
        }
        sockets.sort_unstable();
        for transport in sockets {
            self.out.push(Effect::Push(transport, Outgoing::Reconnect(deadline)));
        }
    }
}

impl Shard {
    /// Sets the session's timer to what comes first.
    pub(crate) fn reset_session_timer(&mut self, id: SessionId) {
        let grace = self.settings.grace;
        let Some(s) = self.sessions.get(&id) else { return };
        let lost = s.lost_at.filter(|_| s.transport.is_none()).map(|at| at.plus(grace));
        let stop = s.holds.values().filter_map(|h| h.until.map(|u| u.0)).min();
        self.set_session_timer(id, [lost, stop].into_iter().flatten().min());
    }

    fn set_session_timer(&mut self, id: SessionId, at: Option<Timestamp>) {
        let Some(s) = self.sessions.get_mut(&id) else { return };
        if let Some(old) = s.timer.take() {
            self.session_timers.remove(&(old, id));
        }
        s.timer = at;
        if let Some(at) = at {
            self.session_timers.insert((at, id));
        }
    }

    pub(crate) fn offers_refresh(&mut self, id: SessionId) {
        let Some(s) = self.sessions.get(&id) else { return };
        for action in &s.info.actions {
            if let Some(offer) = self.offers.get_mut(&QueueKey::of(s.tenant, Arc::clone(action))) {
                offer.refresh();
            }
        }
    }
}
