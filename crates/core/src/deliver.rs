//! Delivery: an assignment is pushed after its commit, confirmed by the worker, sent again, or taken back.

use helve_domain::delivery::{Assignment, Attempt, Close, Outgoing, Reason};
use helve_domain::error::Code;
use helve_domain::id::{RunId, SessionId};

use super::flight::Assigned;
use super::state::Shard;
use super::task::{Deferred, Delivery, Held, Phase, TakeBack};
use super::types::{Context, Effect, Seen};

/// How often an assignment is sent before it is taken back.
const SENDS: u32 = 3;

impl Shard {
    /// A committed assignment goes to its worker.
    pub(super) fn deliver(&mut self, run: RunId, to: Assigned, cx: Context, out: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(&run) else { return };
        task.phase = Phase::Running(Held {
            session: to.session,
            worker: to.worker,
            started_at: to.at,
            pushed_at: cx.now,
            delivery: Delivery::Sent { first: cx.now, times: 0 },
            deadline: None,
        });
        if self.sessions.contains_key(&to.session) {
            if task.attempt == 1 {
                let ready = task.ready_at();
                out.push(Effect::Seen(Seen::Started { ready, optimistic: to.at == ready }));
                task.wait_over(run, to.at == ready, cx, out);
            }
            return self.send(run, cx, out);
        }
        // The session ended while the write was on its way.
        self.on_run(run, Deferred::TakeBack { session: to.session, reason: TakeBack::Undelivered }, cx, out);
    }

    /// Sends an unconfirmed assignment, and sets the time at which it is looked at again. Without a
    /// socket nothing is sent: the reconnect or the end of the grace decides.
    fn send(&mut self, run: RunId, cx: Context, out: &mut Vec<Effect>) {
        let ack = self.settings.ack;
        let Some(task) = self.tasks.get_mut(&run) else { return };
        let number = task.attempt;
        let Phase::Running(held) = &mut task.phase else { return };
        let Delivery::Sent { first, times } = &mut held.delivery else { return };
        let Some(transport) = self.sessions.get(&held.session).and_then(|s| s.transport) else {
            return self.set_timer(run, None);
        };
        if *times == 0 {
            *first = cx.now;
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
            out.push(Effect::Push(transport, Outgoing::Assign(vec![assignment])));
        }
        self.set_timer(run, Some(next));
    }

    /// The worker says that these attempts arrived.
    pub(super) fn received(&mut self, session: SessionId, attempts: Vec<Attempt>, cx: Context, out: &mut Vec<Effect>) {
        let (mut strangers, mut flooded) = (Vec::new(), false);
        for attempt in attempts {
            let held_here = self.sessions.get(&session).is_some_and(|s| s.holds.contains_key(&attempt));
            if !held_here {
                strangers.push((attempt, Reason::Unknown));
                continue;
            }
            // Saying it again is allowed, and counts as a look-up.
            flooded |= !self.confirm(session, attempt, cx)
                && self.sessions.get_mut(&session).is_some_and(|s| !s.lookups.take(cx.now));
        }
        if flooded {
            let message = "more than 1000 confirmations a second of attempts that are confirmed";
            self.push(session, Outgoing::Error(Code::TooManyRequests, message.into()), out);
        }
        if !strangers.is_empty() && self.sessions.get_mut(&session).is_some_and(|s| s.lookups.take(cx.now)) {
            self.push(session, Outgoing::Superseded(strangers), out);
        }
    }

    /// From now on the attempt's time runs. False: nothing changed.
    pub(super) fn confirm(&mut self, session: SessionId, attempt: Attempt, cx: Context) -> bool {
        let Some(task) = self.tasks.get_mut(&attempt.run) else { return false };
        if !task.is_held_by(session, attempt.number) {
            return false;
        }
        let timeout = task.spec.execution_timeout;
        let Phase::Running(held) = &mut task.phase else { return false };
        if held.delivery == Delivery::Received {
            return false;
        }
        held.delivery = Delivery::Received;
        let deadline = *held.deadline.get_or_insert_with(|| cx.now.plus(timeout));
        // It is not sent again: whoever waits for the end reads a large input from the rows.
        task.trim();
        self.set_timer(attempt.run, Some(deadline));
        true
    }

    /// The time of an unconfirmed assignment has come: send it again, or take it back.
    pub(super) fn unconfirmed(&mut self, run: RunId, cx: Context, out: &mut Vec<Effect>) {
        let Some(held) = self.tasks.get(&run).and_then(|t| t.held()) else { return };
        let session = held.session;
        let Delivery::Sent { times, .. } = held.delivery else { return };
        if times < SENDS {
            self.counters.resent += 1;
            return self.send(run, cx, out);
        }
        if let Some((s, transport)) = self.sessions.get_mut(&session).and_then(|s| s.transport.map(|t| (s, t))) {
            // It reads nothing, or loses what it reads: a fresh socket may help, this one does not.
            s.congested = true;
            out.push(Effect::Push(transport, Outgoing::Close(Close::TooSlow)));
        }
        self.on_run(run, Deferred::TakeBack { session, reason: TakeBack::Undelivered }, cx, out);
    }

    /// After a reconnect: what the worker never had is sent on the new socket.
    pub(super) fn send_again(&mut self, run: RunId, cx: Context, out: &mut Vec<Effect>) {
        if let Some(task) = self.tasks.get_mut(&run)
            && let Phase::Running(held) = &mut task.phase
        {
            held.delivery = Delivery::Sent { first: cx.now, times: 0 };
        }
        self.send(run, cx, out);
    }

    /// Tells a session something, if it has a socket.
    pub(super) fn push(&self, session: SessionId, message: Outgoing, out: &mut Vec<Effect>) {
        if let Some(transport) = self.sessions.get(&session).and_then(|s| s.transport) {
            out.push(Effect::Push(transport, message));
        }
    }
}
