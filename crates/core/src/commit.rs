//! What a commit means: only now callers, workers and waiting commands hear of a decision.

use std::sync::Arc;

use helve_domain::delivery::{Attempt, Outgoing, Welcome};
use helve_domain::error::Error;
use helve_domain::id::RunId;
use helve_domain::status::RunStatus;

use super::flight::{Farewell, InFlight, Note, Placed, Start, Step};
use super::state::{Shard, refuse};
use super::task::{Deferred, Phase};
use super::types::{Answer, Body, Context, CreateKey, Effect, EndRow, Flight, QueueKey, RowOutcome, Seen, Ticket};

impl Shard {
    /// A transition is committed.
    pub(super) fn committed(&mut self, flight: Flight, outcomes: Vec<RowOutcome>, cx: Context, out: &mut Vec<Effect>) {
        let Some(InFlight { steps }) = self.flights.remove(&flight) else { return };
        helve_domain::invariant!(steps.len() == outcomes.len(), "G3 a transition has an outcome for each of its rows");
        let mut touched = Vec::with_capacity(steps.len());
        let mut keys = Vec::new();
        for (step, outcome) in steps.into_iter().zip(outcomes) {
            if let Some(run) = step.run() {
                touched.push(run);
                if let Some(task) = self.tasks.get_mut(&run) {
                    task.flight = None;
                }
            }
            self.commit_step(step, outcome, &mut keys, cx, out);
        }
        let mut queues: Vec<QueueKey> = Vec::new();
        for run in touched {
            if let Some(task) = self.tasks.get(&run)
                && matches!(task.phase, Phase::Queued { .. })
            {
                let key = self.pauses.queue_of(task.tenant, &task.spec);
                if !queues.contains(&key) {
                    queues.push(key);
                }
            }
            self.settle(run, cx, out);
        }
        for key in keys {
            self.unlock_key(Some(&key), cx, out);
        }
        for key in queues {
            self.fill_queue(&key, cx, out);
        }
        if !self.pauses.unanswered.is_empty() {
            self.pauses_landed(flight, out);
        }
    }

    fn commit_step(
        &mut self,
        step: Step,
        outcome: RowOutcome,
        keys: &mut Vec<CreateKey>,
        cx: Context,
        out: &mut Vec<Effect>,
    ) {
        let applied = matches!(outcome, RowOutcome::Applied(_));
        if applied && cx.watched {
            self.announce(&step, cx, out);
        }
        if applied && self.settings.traced {
            self.spans_over(&step, cx, out);
        }
        match step {
            Step::Create { run, ticket, start, key } => {
                self.created(run, ticket, start, key.as_ref(), applied, cx, out);
                keys.extend(key);
            }
            Step::Event { event, runs, ticket, key, .. } => {
                let answer = match (applied, &key) {
                    (true, _) => Answer::EventCreated(event, runs),
                    (false, Some(key)) => Answer::KeyTaken(key.clone()),
                    (false, None) => Answer::Failed(Error::Internal("an event was not written".into())),
                };
                out.push(Effect::Answer(ticket, answer));
                keys.extend(key);
            }
            Step::Assign { run, to } => {
                let RowOutcome::Applied(body) = outcome else {
                    return self.claim_missed(run, to.session, cx, out);
                };
                self.assigned(run, body);
                self.deliver(run, to, cx, out);
            }
            Step::Place { run, place, note, .. } => self.placed(run, place, &note, applied, cx, out),
            Step::End { run, row, note } => self.ended(run, *row, &note, applied, cx, out),
            Step::Extend { run, attempt, deadline, by } => {
                if let Some(task) = self.tasks.get_mut(&run).filter(|_| applied)
                    && let Phase::Running(held) = &mut task.phase
                {
                    let session = held.session;
                    held.deadline = Some(deadline);
                    held.delivery = super::task::Delivery::Received;
                    self.set_timer(run, Some(deadline));
                    self.push(session, Outgoing::Extended(attempt, by), out);
                }
            }
            Step::FreeSlot { run, session, attempt } => self.freed(run, session, attempt, applied, cx, out),
            Step::Worker { session, ticket, secret, unknown } => {
                self.worker_written(session, ticket, secret, unknown, cx, out);
            }
            Step::Gone => {}
            Step::Pause { tenant, target, after, ticket } => self.pause_written(tenant, target, after, ticket, out),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one step")]
    fn created(
        &mut self,
        run: RunId,
        ticket: Option<Ticket>,
        start: Start,
        key: Option<&CreateKey>,
        applied: bool,
        cx: Context,
        out: &mut Vec<Effect>,
    ) {
        self.end_create(run);
        if let Start::Assigned(_) = start {
            self.optimistic -= 1;
        }
        if !applied {
            self.uncreate(run, start);
            if let Some(ticket) = ticket {
                let answer = match key {
                    Some(key) => Answer::KeyTaken(key.clone()),
                    None => Answer::Failed(Error::Internal("a run was not written".into())),
                };
                out.push(Effect::Answer(ticket, answer));
            }
            return;
        }
        self.counters.created += 1;
        match start {
            Start::Assigned(to) => {
                self.counters.optimistic += 1;
                self.deliver(run, to, cx, out);
            }
            Start::Queued { expires } => self.settle_down(run, Placed::Queued { expires, retries: 0 }),
            Start::Scheduled { due } => self.settle_down(run, Placed::Scheduled { due, retries: 0 }),
        }
        if let Some(ticket) = ticket {
            let answer = match self.view(run) {
                Some(view) => Answer::Created(view),
                None => Answer::Failed(Error::Internal("a run that was just written is not known".into())),
            };
            out.push(Effect::Answer(ticket, answer));
        }
        // After the answer: behind a full window the run leaves memory at once.
        if let Start::Queued { .. } = start {
            self.enqueue(run, out);
        }
        self.trim_body(run);
    }

    /// Forgets a run that was not created, and what was reserved for it.
    pub(super) fn uncreate(&mut self, run: RunId, start: Start) {
        self.dequeue(run);
        if let Start::Assigned(to) = start {
            self.release(to.session, Attempt { run, number: 1 });
        }
        self.tasks.remove(&run);
    }

    /// A committed run rests: in its queue, or until its time.
    fn rest(&mut self, run: RunId, place: Placed, out: &mut Vec<Effect>) {
        self.settle_down(run, place);
        if let Placed::Queued { .. } = place {
            self.enqueue(run, out);
        }
    }

    /// As [`Shard::rest`], without its place in the queue.
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

    /// The row was not as the window had it (a read's snapshot may be old): the slot is free again.
    fn claim_missed(&mut self, run: RunId, session: helve_domain::id::SessionId, cx: Context, out: &mut Vec<Effect>) {
        if let Some(number) = self.tasks.get(&run).map(|t| t.attempt + 1) {
            self.release(session, Attempt { run, number });
        }
        self.forget(run, out);
        self.offer_room(session, cx, out);
    }

    fn placed(&mut self, run: RunId, place: Placed, note: &Note, applied: bool, cx: Context, out: &mut Vec<Effect>) {
        let status = match place {
            Placed::Queued { .. } => RunStatus::Queued,
            Placed::Scheduled { .. } => RunStatus::Scheduled,
            Placed::Parked { .. } => RunStatus::Parked,
        };
        if applied {
            self.rest(run, place, out);
            self.trim_body(run);
        } else {
            self.dequeue(run);
            self.forget(run, out);
        }
        self.farewell(note, applied, status, cx, out);
        match note.ticket {
            Some((_, ticket)) if applied => out.push(Effect::Answer(ticket, Answer::Unparked)),
            // The row was not as memory had it: decide again on what it is.
            Some((tenant, ticket)) => self.on_run(run, Deferred::Unpark { tenant, ticket }, cx, out),
            None => {}
        }
    }

    fn ended(&mut self, run: RunId, row: EndRow, note: &Note, applied: bool, cx: Context, out: &mut Vec<Effect>) {
        let (state, mut view) = (row.state, None);
        if applied {
            self.counters.finished += 1;
            let started = self.tasks.get(&run).and_then(|task| Some(task.held()?.started_at));
            let ran = started.map(|at| row.finished_at.since(at));
            out.push(Effect::Seen(Seen::Ended { status: state, ran }));
            view = Some(self.ended_view(run, row));
            self.note_gone(run);
        }
        self.forget(run, out);
        self.farewell(note, applied, state, cx, out);
        // After the worker's confirmation, which nobody waits for: the runtime runs first whom the owner woke last.
        out.extend(view.map(|view| Effect::Ended(run, view)));
        match note.ticket {
            Some((_, ticket)) if applied => out.push(Effect::Answer(ticket, Answer::Cancelled)),
            // The row was not as memory had it: decide again on what it is.
            Some((tenant, ticket)) => self.on_run(run, Deferred::Cancel { tenant, ticket }, cx, out),
            None => {}
        }
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

    /// The holder of an attempt that is over learns of it, and its slot is freed or kept for the grace.
    fn farewell(&mut self, note: &Note, applied: bool, status: RunStatus, cx: Context, out: &mut Vec<Effect>) {
        let Some((session, attempt, how)) = note.holder else { return };
        let how = if applied { how } else { Farewell::Superseded(helve_domain::delivery::Reason::Reassigned) };
        match how {
            Farewell::Stored => self.push(session, Outgoing::Stored(vec![(attempt, status)]), out),
            Farewell::Superseded(reason) => self.push(session, Outgoing::Superseded(vec![(attempt, reason)]), out),
            Farewell::Silent => {}
            Farewell::Stop(reason) => {
                let grace = self.settings.cancel_grace;
                if let Some(hold) = self.sessions.get_mut(&session).and_then(|s| s.holds.get_mut(&attempt)) {
                    hold.until = Some((cx.now.plus(grace), reason));
                }
                self.reset_session_timer(session);
                return self.push(session, Outgoing::Cancel(vec![(attempt, reason)], grace), out);
            }
        }
        self.let_go(session, attempt, cx, out);
    }

    fn trim_body(&mut self, run: RunId) {
        if let Some(task) = self.tasks.get_mut(&run)
            && !matches!(task.phase, Phase::Running(_))
        {
            task.trim();
        }
    }

    fn worker_written(
        &mut self,
        session: helve_domain::id::SessionId,
        ticket: Option<Ticket>,
        secret: String,
        superseded: Vec<(Attempt, helve_domain::delivery::Reason)>,
        cx: Context,
        out: &mut Vec<Effect>,
    ) {
        let Some(s) = self.sessions.get_mut(&session) else {
            return refuse(ticket, Error::unavailable("the socket was closed"), out);
        };
        let first = !s.ready;
        s.ready = true;
        let worker = s.worker;
        self.offers_changed(session, cx, out);
        if let Some(ticket) = ticket {
            let welcome = Welcome { worker, session, secret, resumed: !first, superseded };
            self.welcomes.push((ticket, Box::new(welcome)));
            self.greet(out);
        }
    }
}
