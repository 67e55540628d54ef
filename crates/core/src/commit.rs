//! What a commit means: only now callers, workers and waiting commands hear of a decision.

use std::sync::Arc;

use helve_domain::delivery::{Attempt, Outgoing, Welcome};
use helve_domain::error::Error;
use helve_domain::id::RunId;
use helve_domain::status::RunStatus;

use crate::state::flight::{Farewell, InFlight, Note, Placed, Start, Step};
use crate::state::task::{Deferred, Phase};
use crate::state::{Shard, refuse};
use crate::turn::Turn;
use crate::types::{Answer, Body, CreateKey, Effect, EndRow, Flight, QueueKey, RowOutcome, Seen, Ticket};

impl Turn<'_> {
    /// A transition is committed.
    pub(crate) fn committed(&mut self, flight: Flight, outcomes: Vec<RowOutcome>) {
        let Some(InFlight { steps }) = self.shard.flights.remove(&flight) else { return };
        helve_domain::invariant!(steps.len() == outcomes.len(), "G3 a transition has an outcome for each of its rows");
        let mut touched = Vec::with_capacity(steps.len());
        let mut keys = Vec::new();
        for (step, outcome) in steps.into_iter().zip(outcomes) {
            if let Some(run) = step.run() {
                touched.push(run);
                if let Some(task) = self.shard.tasks.get_mut(&run) {
                    task.flight = None;
                }
            }
            self.commit_step(step, outcome, &mut keys);
        }
        let mut queues: Vec<QueueKey> = Vec::new();
        for run in touched {
            if let Some(task) = self.shard.tasks.get(&run)
                && matches!(task.phase, Phase::Queued { .. })
            {
                let key = self.shard.pauses.queue_of(task.tenant, &task.spec);
                if !queues.contains(&key) {
                    queues.push(key);
                }
            }
            self.settle(run);
        }
        for key in keys {
            self.unlock_key(Some(&key));
        }
        for key in queues {
            self.fill_queue(&key);
        }
        if !self.shard.pauses.unanswered.is_empty() {
            self.pauses_landed(flight);
        }
    }

    fn commit_step(&mut self, step: Step, outcome: RowOutcome, keys: &mut Vec<CreateKey>) {
        let applied = matches!(outcome, RowOutcome::Applied(_));
        if applied && self.watched {
            self.announce(&step);
        }
        if applied && self.shard.settings.traced {
            self.spans_over(&step);
        }
        match step {
            Step::Create { run, ticket, start, key } => {
                self.created(run, ticket, start, key.as_ref(), applied);
                keys.extend(key);
            }
            Step::Event { event, runs, ticket, key, .. } => {
                let answer = match (applied, &key) {
                    (true, _) => Answer::EventCreated(event, runs),
                    (false, Some(key)) => Answer::KeyTaken(key.clone()),
                    (false, None) => Answer::Failed(Error::Internal("an event was not written".into())),
                };
                self.out.push(Effect::Answer(ticket, answer));
                keys.extend(key);
            }
            Step::Assign { run, to } => {
                let RowOutcome::Applied(body) = outcome else {
                    return self.claim_missed(run, to.session);
                };
                self.shard.assigned(run, body);
                self.deliver(run, to);
            }
            Step::Place { run, place, note, .. } => self.placed(run, place, &note, applied),
            Step::End { run, row, note } => self.ended(run, *row, &note, applied),
            Step::Extend { run, attempt, deadline, by } => {
                if let Some(task) = self.shard.tasks.get_mut(&run).filter(|_| applied)
                    && let Phase::Running(held) = &mut task.phase
                {
                    let session = held.session;
                    held.deadline = Some(deadline);
                    held.delivery = crate::state::task::Delivery::Received;
                    self.shard.set_timer(run, Some(deadline));
                    self.push(session, Outgoing::Extended(attempt, by));
                }
            }
            Step::FreeSlot { run, session, attempt } => self.freed(run, session, attempt, applied),
            Step::Worker { session, ticket, secret, unknown } => {
                self.worker_written(session, ticket, secret, unknown);
            }
            Step::Gone => {}
            Step::Pause { tenant, target, after, ticket } => self.pause_written(tenant, target, after, ticket),
        }
    }

    fn created(&mut self, run: RunId, ticket: Option<Ticket>, start: Start, key: Option<&CreateKey>, applied: bool) {
        self.shard.end_create(run);
        if let Start::Assigned(_) = start {
            self.shard.optimistic -= 1;
        }
        if !applied {
            self.uncreate(run, start);
            if let Some(ticket) = ticket {
                let answer = match key {
                    Some(key) => Answer::KeyTaken(key.clone()),
                    None => Answer::Failed(Error::Internal("a run was not written".into())),
                };
                self.out.push(Effect::Answer(ticket, answer));
            }
            return;
        }
        self.shard.counters.created += 1;
        match start {
            Start::Assigned(to) => {
                self.shard.counters.optimistic += 1;
                self.deliver(run, to);
            }
            Start::Queued { expires } => self.shard.settle_down(run, Placed::Queued { expires, retries: 0 }),
            Start::Scheduled { due } => self.shard.settle_down(run, Placed::Scheduled { due, retries: 0 }),
        }
        if let Some(ticket) = ticket {
            let answer = match self.shard.view(run) {
                Some(view) => Answer::Created(view),
                None => Answer::Failed(Error::Internal("a run that was just written is not known".into())),
            };
            self.out.push(Effect::Answer(ticket, answer));
        }
        // After the answer: behind a full window the run leaves memory at once.
        if let Start::Queued { .. } = start {
            self.enqueue(run);
        }
        self.shard.trim_body(run);
    }

    /// Forgets a run that was not created. What was reserved for it goes to whoever waits.
    pub(crate) fn uncreate(&mut self, run: RunId, start: Start) {
        self.shard.dequeue(run);
        self.shard.tasks.remove(&run);
        if let Start::Assigned(to) = start {
            self.let_go(to.session, Attempt { run, number: 1 });
        }
    }

    /// A committed run rests: in its queue, or until its time.
    fn rest(&mut self, run: RunId, place: Placed) {
        self.shard.settle_down(run, place);
        if let Placed::Queued { .. } = place {
            self.enqueue(run);
        }
    }

    /// The row was not as the window had it (a read's snapshot may be old): the slot is free again.
    fn claim_missed(&mut self, run: RunId, session: helve_domain::id::SessionId) {
        let number = self.shard.tasks.get(&run).map(|t| t.attempt + 1);
        self.forget(run);
        if let Some(number) = number {
            self.let_go(session, Attempt { run, number });
        }
    }

    fn placed(&mut self, run: RunId, place: Placed, note: &Note, applied: bool) {
        let status = match place {
            Placed::Queued { .. } => RunStatus::Queued,
            Placed::Scheduled { .. } => RunStatus::Scheduled,
            Placed::Parked { .. } => RunStatus::Parked,
        };
        if applied {
            self.rest(run, place);
            self.shard.trim_body(run);
        } else {
            self.shard.dequeue(run);
            self.forget(run);
        }
        self.farewell(note, applied, status);
        match note.ticket {
            Some((_, ticket)) if applied => self.out.push(Effect::Answer(ticket, Answer::Unparked)),
            // The row was not as memory had it: decide again on what it is.
            Some((tenant, ticket)) => self.on_run(run, Deferred::Unpark { tenant, ticket }),
            None => {}
        }
    }

    fn ended(&mut self, run: RunId, row: EndRow, note: &Note, applied: bool) {
        let (state, mut view) = (row.state, None);
        if applied {
            self.shard.counters.finished += 1;
            let started = self.shard.tasks.get(&run).and_then(|task| Some(task.held()?.started_at));
            let ran = started.map(|at| row.finished_at.since(at));
            self.out.push(Effect::Seen(Seen::Ended { status: state, ran }));
            view = Some(self.shard.ended_view(run, row));
            self.shard.note_gone(run);
        }
        self.forget(run);
        self.farewell(note, applied, state);
        // After the worker's confirmation, which nobody waits for: the runtime runs first whom the owner woke last.
        self.out.extend(view.map(|view| Effect::Ended(run, view)));
        match note.ticket {
            Some((_, ticket)) if applied => self.out.push(Effect::Answer(ticket, Answer::Cancelled)),
            // The row was not as memory had it: decide again on what it is.
            Some((tenant, ticket)) => self.on_run(run, Deferred::Cancel { tenant, ticket }),
            None => {}
        }
    }

    /// The holder of an attempt that is over learns of it, and its slot is freed or kept for the grace.
    fn farewell(&mut self, note: &Note, applied: bool, status: RunStatus) {
        let Some((session, attempt, how)) = note.holder else { return };
        let how = if applied { how } else { Farewell::Superseded(helve_domain::delivery::Reason::Reassigned) };
        match how {
            Farewell::Stored => self.push(session, Outgoing::Stored(vec![(attempt, status)])),
            Farewell::Superseded(reason) => self.push(session, Outgoing::Superseded(vec![(attempt, reason)])),
            Farewell::Silent => {}
            Farewell::Stop(reason) => {
                let grace = self.shard.settings.cancel_grace;
                if let Some(hold) = self.shard.sessions.get_mut(&session).and_then(|s| s.holds.get_mut(&attempt)) {
                    hold.until = Some((self.now.plus(grace), reason));
                }
                self.shard.reset_session_timer(session);
                return self.push(session, Outgoing::Cancel(vec![(attempt, reason)], grace));
            }
        }
        self.let_go(session, attempt);
    }

    fn worker_written(
        &mut self,
        session: helve_domain::id::SessionId,
        ticket: Option<Ticket>,
        secret: String,
        superseded: Vec<(Attempt, helve_domain::delivery::Reason)>,
    ) {
        let Some(s) = self.shard.sessions.get_mut(&session) else {
            return refuse(ticket, Error::unavailable("the socket was closed"), self.out);
        };
        let first = !s.ready;
        s.ready = true;
        let worker = s.worker;
        self.offers_changed(session);
        if let Some(ticket) = ticket {
            let welcome = Welcome { worker, session, secret, resumed: !first, superseded };
            self.shard.welcomes.push((ticket, Box::new(welcome)));
            self.greet();
        }
    }
}

impl Shard {
    /// As [`Turn::rest`], without its place in the queue.
    fn settle_down(&mut self, run: RunId, place: Placed) {
        let Some(task) = self.tasks.get_mut(&run) else { return };
        let at = match place {
            Placed::Queued { expires, retries } => {
                task.retries = retries;
                if task.phase == Phase::Parked {
                    task.unparked = task.attempt;
                }
                task.phase = Phase::Queued { expires };
                expires
            }
            Placed::Scheduled { due, retries } => {
                task.retries = retries;
                task.phase = Phase::Scheduled { due };
                Some(due)
            }
            Placed::Parked { retries } => {
                task.retries = retries;
                task.phase = Phase::Parked;
                None
            }
        };
        // Later timers are read from the database when they come near.
        let at = at.filter(|at| self.keeps_timer(*at));
        self.set_timer(run, at);
    }

    fn assigned(&mut self, run: RunId, body: Option<Arc<Body>>) {
        let Some(task) = self.tasks.get_mut(&run) else { return };
        task.attempt += 1;
        if let Some(body) = body {
            task.body = Some(body);
        }
        helve_domain::invariant!(task.body.is_some(), "I2 the payloads of {run} are gone");
    }

    fn ended_view(&self, run: RunId, row: EndRow) -> Option<Box<helve_domain::run::Run>> {
        let mut view = self.view(run)?;
        view.status = row.state;
        view.output = row.output;
        view.error = row.error;
        view.due = None;
        view.finished_at = Some(row.finished_at);
        Some(view)
    }

    fn trim_body(&mut self, run: RunId) {
        if let Some(task) = self.tasks.get_mut(&run)
            && !matches!(task.phase, Phase::Running(_))
        {
            task.trim();
        }
    }
}
