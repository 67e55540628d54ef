//! Workers: sessions that open, resume, go silent, drain and leave.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Attempt, Close, Outcome, Outgoing, Reason};
use helve_domain::error::Error;
use helve_domain::id::SessionId;
use helve_domain::pause::Target;

use super::flight::Step;
use super::session::{Budget, Session};
use super::state::{Shard, refuse};
use super::task::{Deferred, Delivery, TakeBack};
use super::turn::Turn;
use super::types::{Answer, Effect, NewSession, QueueKey, Rows, Ticket, Transport, WorkerChange, WorkerMessage};

impl Turn<'_> {
    /// A worker's hello: it goes on with its session, or gets a new one.
    pub(super) fn connect(&mut self, hello: NewSession, ticket: Ticket) {
        if self.shard.draining {
            let error = Error::unavailable("the engine stops and takes no more workers");
            return self.out.push(Effect::Answer(ticket, Answer::Failed(error)));
        }
        let known = hello.resume.and_then(|(id, secret)| {
            let s = self.shard.sessions.get(&id)?;
            (s.tenant == hello.tenant && s.ready && s.is_secret(&secret)).then_some(id)
        });
        match known {
            Some(session) => self.resume(session, hello, ticket),
            None => self.open(hello, ticket),
        }
    }

    fn open(&mut self, hello: NewSession, ticket: Ticket) {
        let superseded = hello.holding.iter().map(|a| (*a, Reason::Reassigned)).collect();
        let session = Session {
            worker: hello.worker,
            tenant: hello.tenant,
            secret: hello.secret.1,
            former: None,
            info: hello.info,
            used: BTreeMap::new(),
            transport: Some(hello.transport),
            lost_at: None,
            ready: false,
            draining: false,
            congested: false,
            paused: false,
            holds: HashMap::new(),
            timer: None,
            lookups: Budget::full(self.now),
        };
        let row = session.row(hello.session);
        self.shard.sessions.insert(hello.session, session);
        let step =
            Step::Worker { session: hello.session, ticket: Some(ticket), secret: hello.secret.0, unknown: superseded };
        self.write(hello.tenant, Rows::Worker(WorkerChange::Put(Box::new(row))), vec![step]);
    }

    fn resume(&mut self, id: SessionId, hello: NewSession, ticket: Ticket) {
        let Some(s) = self.shard.sessions.get_mut(&id) else { return };
        let replaced = s.transport.replace(hello.transport);
        s.lost_at = None;
        s.congested = false;
        s.draining = false;
        // The secret changes with every socket: who overheard an old one cannot take the session over. The one that
        // was shown stays valid until the new one is used.
        s.former = hello.resume.map(|r| r.1);
        s.secret = hello.secret.1;
        let old = std::mem::replace(&mut s.info, hello.info);
        let row = s.row(id);
        let tenant = s.tenant;
        if let Some(old) = replaced {
            self.out.push(Effect::Push(old, Outgoing::Close(Close::Replaced)));
        }
        self.withdraw_offers(tenant, id, &old.actions);
        self.shard.reset_session_timer(id);
        let superseded = self.reconcile(id, &hello.holding);
        let step = Step::Worker { session: id, ticket: Some(ticket), secret: hello.secret.0, unknown: superseded };
        self.write(tenant, Rows::Worker(WorkerChange::Put(Box::new(row))), vec![step]);
    }

    /// Both sides compare what the worker holds: what it never got is sent again, what it lost goes to
    /// others, and what is no longer its is named.
    fn reconcile(&mut self, id: SessionId, holding: &[Attempt]) -> Vec<(Attempt, Reason)> {
        let holding: BTreeSet<Attempt> = holding.iter().copied().collect();
        let Some(s) = self.shard.sessions.get(&id) else { return Vec::new() };
        let mut holds: Vec<(Attempt, bool)> = s.holds.iter().map(|(a, h)| (*a, h.until.is_some())).collect();
        holds.sort_unstable_by_key(|h| h.0);
        let mut superseded = Vec::new();
        for attempt in &holding {
            match holds.binary_search_by_key(attempt, |h| h.0) {
                Err(_) => superseded.push((*attempt, Reason::Reassigned)),
                Ok(at) if holds[at].1 => superseded.push((*attempt, Reason::Requested)),
                Ok(_) => {
                    self.confirm(id, *attempt);
                }
            }
        }
        for (attempt, stopping) in holds {
            if holding.contains(&attempt) {
                continue;
            }
            if stopping {
                // It has let go of what it was told to stop.
                self.shard.release(id, attempt);
                continue;
            }
            self.not_held(id, attempt);
        }
        superseded
    }

    fn not_held(&mut self, id: SessionId, attempt: Attempt) {
        let Some(task) = self.shard.tasks.get(&attempt.run).filter(|t| t.is_held_by(id, attempt.number)) else {
            return;
        };
        let never_received = task.held().is_some_and(|h| h.delivery != Delivery::Received);
        if never_received && task.body.is_some() && task.flight.is_none() {
            return self.send_again(attempt.run);
        }
        let reason = if never_received { TakeBack::Undelivered } else { TakeBack::Lost };
        self.on_run(attempt.run, Deferred::TakeBack { session: id, reason });
    }

    /// A worker's message; those of a replaced socket are ignored.
    pub(super) fn worker(&mut self, id: SessionId, transport: Transport, message: WorkerMessage) {
        let Some(s) = self.shard.sessions.get_mut(&id).filter(|s| s.transport == Some(transport)) else { return };
        match message {
            WorkerMessage::Received(attempts) => self.received(id, attempts),
            WorkerMessage::Results(results) => {
                for (attempt, outcome) in results {
                    self.report(id, attempt, outcome);
                }
            }
            WorkerMessage::Extend(attempt, by) => {
                if s.holds.contains_key(&attempt) {
                    self.on_run(attempt.run, Deferred::Extend { session: id, attempt, by });
                } else {
                    self.push(id, Outgoing::Superseded(vec![(attempt, Reason::Unknown)]));
                }
            }
            WorkerMessage::FreeSlot(attempt) => self.wants_free(id, attempt),
            WorkerMessage::Capacity(slots) => {
                s.info.slots = slots;
                self.put_worker(id);
            }
            WorkerMessage::Labels(labels) => {
                s.info.labels = labels;
                self.put_worker(id);
            }
            WorkerMessage::Drain => s.draining = true,
            WorkerMessage::Goodbye => self.goodbye(id),
            WorkerMessage::Lost => {
                s.transport = None;
                s.lost_at = Some(self.now);
                self.shard.reset_session_timer(id);
            }
            WorkerMessage::CaughtUp => {
                s.congested = false;
                self.shard.offers_refresh(id);
                self.offer_room(id);
            }
        }
    }

    /// Writes a session as it is now; what waits for that is looked at after the commit.
    fn put_worker(&mut self, id: SessionId) {
        let Some(s) = self.shard.sessions.get(&id) else { return };
        let (tenant, row) = (s.tenant, s.row(id));
        let step = Step::Worker { session: id, ticket: None, secret: String::new(), unknown: Vec::new() };
        self.write(tenant, Rows::Worker(WorkerChange::Put(Box::new(row))), vec![step]);
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
    pub(super) fn unwritten(&mut self, id: SessionId) {
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
    pub(super) fn remove_session(&mut self, id: SessionId) {
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
    pub(super) fn session_due(&mut self, id: SessionId) {
        let grace = self.shard.settings.grace;
        let Some(s) = self.shard.sessions.get(&id) else { return };
        if s.transport.is_none() && s.lost_at.is_some_and(|at| at.plus(grace) <= self.now) {
            return self.finish_session(id, TakeBack::Lost);
        }
        let mut over: Vec<(Attempt, Reason)> =
            s.holds.iter().filter_map(|(a, h)| h.until.filter(|(at, _)| *at <= self.now).map(|u| (*a, u.1))).collect();
        over.sort_unstable_by_key(|o| o.0);
        for (attempt, _) in &over {
            self.shard.release(id, *attempt);
        }
        if !over.is_empty() {
            self.push(id, Outgoing::Superseded(over));
            self.offer_room(id);
        }
        self.shard.reset_session_timer(id);
    }

    /// A session's row is committed: its actions and slots count from now on.
    pub(super) fn offers_changed(&mut self, id: SessionId) {
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

    /// Welcomes the workers whose queues are known: from the first trigger on, a free slot is found.
    pub(super) fn greet(&mut self) {
        for (ticket, welcome) in std::mem::take(&mut self.shard.welcomes) {
            let Some(s) = self.shard.sessions.get(&welcome.session) else {
                refuse(Some(ticket), Error::unavailable("the session has ended"), self.out);
                continue;
            };
            let loaded = |action: &Arc<str>| {
                let key = QueueKey::of(s.tenant, Arc::clone(action));
                self.shard.queues.get(&key).is_some_and(|q| q.loaded)
            };
            if s.info.actions.iter().all(loaded) {
                self.out.push(Effect::Answer(ticket, Answer::Welcome(welcome)));
            } else {
                self.shard.welcomes.push((ticket, welcome));
            }
        }
    }

    fn withdraw_offers(&mut self, tenant: helve_domain::id::TenantId, id: SessionId, actions: &[Arc<str>]) {
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
    pub(super) fn drain(&mut self, deadline: Duration) {
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
    pub(super) fn reset_session_timer(&mut self, id: SessionId) {
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

    pub(super) fn offers_refresh(&mut self, id: SessionId) {
        let Some(s) = self.sessions.get(&id) else { return };
        for action in &s.info.actions {
            if let Some(offer) = self.offers.get_mut(&QueueKey::of(s.tenant, Arc::clone(action))) {
                offer.refresh();
            }
        }
    }

    /// The tenant's sessions with what they hold, for `GET /v1/workers`.
    pub fn workers(&self, tenant: helve_domain::id::TenantId) -> Vec<crate::WorkerState> {
        let mut workers: Vec<_> = self
            .sessions
            .values()
            .filter(|s| s.tenant == tenant && s.ready)
            .map(|s| crate::WorkerState {
                id: s.worker,
                info: s.info.clone(),
                used: s.used.clone(),
                connected: s.transport.is_some(),
                draining: s.draining,
                lost_at: s.lost_at,
                pause: self.pauses.get(tenant, &Target::Worker(s.worker)).map(Arc::clone),
            })
            .collect();
        workers.sort_unstable_by_key(|w| w.id);
        workers
    }
}
