//! A worker's hello: a session is opened, or goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use helve_domain::delivery::{Attempt, Close, Outgoing, Reason};
use helve_domain::error::Error;
use helve_domain::id::SessionId;

use crate::state::flight::Step;
use crate::state::refuse;
use crate::state::session::{Budget, Session};
use crate::state::task::{Deferred, Delivery, TakeBack};
use crate::turn::Turn;
use crate::types::{Answer, Effect, NewSession, QueueKey, Rows, Ticket, WorkerChange};

impl Turn<'_> {
    /// A worker's hello: it goes on with its session, or gets a new one.
    pub(crate) fn connect(&mut self, hello: NewSession, ticket: Ticket) {
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
                Ok(at) if holds[at].1 => {
                    // As with every word of this kind: it is over, and the slot is free.
                    superseded.push((*attempt, Reason::Requested));
                    self.shard.loosen(id, *attempt);
                }
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
                self.shard.loosen(id, attempt);
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

    /// Welcomes the workers whose queues are known: from the first trigger on, a free slot is found.
    pub(crate) fn greet(&mut self) {
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

    /// Writes a session as it is now; what waits for that is looked at after the commit.
    pub(crate) fn put_worker(&mut self, id: SessionId) {
        let Some(s) = self.shard.sessions.get(&id) else { return };
        let (tenant, row) = (s.tenant, s.row(id));
        let step = Step::Worker { session: id, ticket: None, secret: String::new(), unknown: Vec::new() };
        self.write(tenant, Rows::Worker(WorkerChange::Put(Box::new(row))), vec![step]);
    }
}
