//! Delivery: an assignment is pushed after its commit, confirmed by the worker, sent again, or taken back.

use helve_domain::delivery::{Assignment, Attempt, Close, Outgoing, Reason};
use helve_domain::error::Code;
use helve_domain::id::{RunId, SessionId};

use crate::state::flight::Assigned;
use crate::state::task::{Deferred, Delivery, Held, Phase, TakeBack};
use crate::turn::Turn;
use crate::types::{Effect, Seen};

/// How often an assignment is sent before it is taken back.
const SENDS: u32 = 3;

impl Turn<'_> {
    /// A committed assignment goes to its worker.
    pub(crate) fn deliver(&mut self, run: RunId, to: Assigned) {
        let Some(task) = self.shard.tasks.get_mut(&run) else { return };
        task.phase = Phase::Running(Held {
            session: to.session,
            worker: to.worker,
            started_at: to.at,
            pushed_at: self.now,
            delivery: Delivery::Sent { first: self.now, times: 0 },
            deadline: None,
        });
        if self.shard.sessions.contains_key(&to.session) {
            if task.attempt == 1 {
                let ready = task.ready_at();
                self.out.push(Effect::Seen(Seen::Started { ready, optimistic: to.at == ready }));
                self.out.extend(task.wait_over(run, to.at == ready, self.now));
            }
            return self.send(run);
        }
        // The session ended while the write was on its way.
        self.on_run(run, Deferred::TakeBack { session: to.session, reason: TakeBack::Undelivered });
    }

    /// Sends an unconfirmed assignment, and sets the time at which it is looked at again. Without a
    /// socket nothing is sent: the reconnect or the end of the grace decides.
    fn send(&mut self, run: RunId) {
        let ack = self.shard.settings.ack;
        let Some(task) = self.shard.tasks.get_mut(&run) else { return };
        let number = task.attempt;
        let Phase::Running(held) = &mut task.phase else { return };
        let Delivery::Sent { first, times } = &mut held.delivery else { return };
        let Some(transport) = self.shard.sessions.get(&held.session).and_then(|s| s.transport) else {
            return self.shard.set_timer(run, None);
        };
        if *times == 0 {
            *first = self.now;
        }
        *times += 1;
        let next = first.plus(ack * *times);
        if let Some(body) = &task.body {
            let assignment = Assignment {
                attempt: Attempt { run, number },
                workflow: task.spec.workflow.clone(),
                action: task.spec.action.clone(),
                input: body.input.clone(),
                metadata: body.metadata.clone(),
                timeout: task.spec.execution_timeout,
                traceparent: task.traceparent(run, body),
            };
            self.out.push(Effect::Push(transport, Outgoing::Assign(vec![assignment])));
        }
        self.shard.set_timer(run, Some(next));
    }

    /// The worker says that these attempts arrived.
    pub(crate) fn received(&mut self, session: SessionId, attempts: Vec<Attempt>) {
        let (mut strangers, mut flooded) = (Vec::new(), false);
        for attempt in attempts {
            let held_here = self.shard.sessions.get(&session).is_some_and(|s| s.holds.contains_key(&attempt));
            if !held_here {
                strangers.push((attempt, Reason::Unknown));
                continue;
            }
            // Saying it again is allowed, and counts as a look-up.
            flooded |= !self.confirm(session, attempt)
                && self.shard.sessions.get_mut(&session).is_some_and(|s| !s.lookups.take(self.now));
        }
        if flooded {
            let message = "more than 1000 confirmations a second of attempts that are confirmed";
            self.push(session, Outgoing::Error(Code::TooManyRequests, message.into()));
        }
        if !strangers.is_empty() && self.shard.sessions.get_mut(&session).is_some_and(|s| s.lookups.take(self.now)) {
            self.push(session, Outgoing::Superseded(strangers));
        }
    }

    /// From now on the attempt's time runs. False: nothing changed.
    pub(crate) fn confirm(&mut self, session: SessionId, attempt: Attempt) -> bool {
        let Some(task) = self.shard.tasks.get_mut(&attempt.run) else { return false };
        if !task.is_held_by(session, attempt.number) {
            return false;
        }
        let timeout = task.spec.execution_timeout;
        let Phase::Running(held) = &mut task.phase else { return false };
        if held.delivery == Delivery::Received {
            return false;
        }
        held.delivery = Delivery::Received;
        let deadline = *held.deadline.get_or_insert_with(|| self.now.plus(timeout));
        // It is not sent again: whoever waits for the end reads a large input from the rows.
        task.trim();
        self.shard.set_timer(attempt.run, Some(deadline));
        true
    }

    /// The time of an unconfirmed assignment has come: send it again, or take it back.
    pub(crate) fn unconfirmed(&mut self, run: RunId) {
        let Some(held) = self.shard.tasks.get(&run).and_then(|t| t.held()) else { return };
        let session = held.session;
        let Delivery::Sent { times, .. } = held.delivery else { return };
        if times < SENDS {
            self.shard.counters.resent += 1;
            return self.send(run);
        }
        if let Some((s, transport)) = self.shard.sessions.get_mut(&session).and_then(|s| s.transport.map(|t| (s, t))) {
            // It reads nothing, or loses what it reads: a fresh socket may help, this one does not.
            s.congested = true;
            self.out.push(Effect::Push(transport, Outgoing::Close(Close::TooSlow)));
        }
        self.on_run(run, Deferred::TakeBack { session, reason: TakeBack::Undelivered });
    }

    /// After a reconnect: what the worker never had is sent on the new socket.
    pub(crate) fn send_again(&mut self, run: RunId) {
        if let Some(task) = self.shard.tasks.get_mut(&run)
            && let Phase::Running(held) = &mut task.phase
        {
            held.delivery = Delivery::Sent { first: self.now, times: 0 };
        }
        self.send(run);
    }

    /// Tells a session something, if it has a socket.
    pub(crate) fn push(&mut self, session: SessionId, message: Outgoing) {
        if let Some(transport) = self.shard.sessions.get(&session).and_then(|s| s.transport) {
            self.out.push(Effect::Push(transport, message));
        }
    }
}
