//! One command on one shard: what it may look at, and what comes of it.

use std::collections::VecDeque;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::Outgoing;
use helve_domain::error::Code;
use helve_domain::id::{RunId, TenantId};

use crate::state::Shard;
use crate::state::flight::{Draft, InFlight, Step};
use crate::state::task::{Deferred, Phase};
use crate::types::{Command, CreateRow, Effect, FinishRow, Rows, Write};

/// What may wait behind a run's transition before more of its worker is refused. What else waits is bounded by callers,
/// or comes once.
const MAX_DEFERRED: usize = 64;

/// One command that a shard decides on. What decides is a method of it; what only reads or keeps the shard in order is
/// one of [`Shard`].
pub(crate) struct Turn<'a> {
    pub shard: &'a mut Shard,
    /// The engine's time.
    pub now: Timestamp,
    /// As in [`crate::Context`].
    pub optimistic_room: usize,
    /// As in [`crate::Context`].
    pub creating: usize,
    /// As in [`crate::Context`].
    pub watched: bool,
    /// What the shard wants done, in the order in which it must happen.
    pub out: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    /// Decides.
    pub fn run(&mut self, command: Command) {
        match command {
            Command::Create(run, ticket) => self.create(*run, ticket),
            Command::CreateEvent(event, ticket) => self.create_event(*event, ticket),
            Command::Cancel { tenant, run, ticket } => {
                self.on_run(run, Deferred::Cancel { tenant, ticket });
            }
            Command::Unpark { tenant, run, ticket } => {
                self.on_run(run, Deferred::Unpark { tenant, ticket });
            }
            Command::Connect(hello, ticket) => self.connect(*hello, ticket),
            Command::Worker { session, transport, message } => self.worker(session, transport, message),
            Command::Congested(session) => {
                if let Some(s) = self.shard.sessions.get_mut(&session) {
                    s.congested = true;
                }
            }
            Command::Committed(flight, outcomes) => self.committed(flight, outcomes),
            Command::Rejected(flight, why) => self.rejected(flight, &why),
            Command::QueueLoaded(key, rows, all) => self.queue_loaded(&key, rows, all),
            Command::RunsLoaded(found) => self.runs_loaded(found),
            Command::TimersAsked(until) => self.shard.timer_asked = until,
            Command::TimersLoaded(rows, until, all) => self.timers_loaded(rows, until, all),
            Command::Recovered(workers, held) => self.recovered(workers, held),
            Command::PausesFound(found) => self.pauses_found(found),
            Command::Pause(order, ticket) => self.pause(*order, ticket),
            Command::Tick => self.tick(),
            Command::Drain(grace) => self.drain(grace),
        }
    }
}

impl Turn<'_> {
    /// Sends new runs and events to the create lane, as one transition.
    pub(crate) fn write_creates(&mut self, tenant: TenantId, draft: Draft<CreateRow>) {
        self.write(tenant, Rows::Create(draft.rows), draft.steps);
    }

    /// Sends changes of open runs to the finish lane, as one transition.
    pub(crate) fn write_changes(&mut self, tenant: TenantId, draft: Draft<FinishRow>) {
        self.write(tenant, Rows::Finish(draft.rows), draft.steps);
    }

    /// Sends one transition to its lane, and remembers what its rows mean.
    pub(crate) fn write(&mut self, tenant: TenantId, rows: Rows, steps: Vec<Step>) {
        debug_assert_eq!(rows.len(), steps.len());
        let flight = self.shard.next_flight;
        self.shard.next_flight += 1;
        for run in steps.iter().filter_map(Step::run) {
            if let Some(task) = self.shard.tasks.get_mut(&run) {
                helve_domain::invariant!(task.flight.is_none(), "I7 two transitions of {run} at once");
                task.flight = Some(flight);
            }
        }
        self.shard.flights.insert(flight, InFlight { steps });
        self.out.push(Effect::Write(Write { flight, tenant, rows }));
    }

    /// Forgets a run; whoever waits behind it is answered from its row.
    pub(crate) fn forget(&mut self, run: RunId) {
        self.shard.set_timer(run, None);
        if let Some(task) = self.shard.tasks.remove(&run)
            && !task.deferred.is_empty()
        {
            self.load_run(run, task.deferred);
        }
    }

    /// Runs a command on a run: now, after its transition, or when its row is read.
    pub(crate) fn on_run(&mut self, run: RunId, command: Deferred) {
        match self.shard.tasks.get_mut(&run) {
            Some(task) if task.flight.is_some() => {
                if let Some(session) = command.of_worker()
                    && task.deferred.len() >= MAX_DEFERRED
                {
                    let message = "too many results or extensions of one attempt at once";
                    let refused = Outgoing::Error(Code::TooManyRequests, message.into());
                    return self.push(session, refused);
                }
                task.deferred.push_back(command);
            }
            Some(_) => self.apply(run, command),
            None => self.load_run(run, VecDeque::from([command])),
        }
    }

    fn load_run(&mut self, run: RunId, commands: VecDeque<Deferred>) {
        match self.shard.loading.get_mut(&run) {
            Some(waiting) => waiting.extend(commands),
            None => {
                self.shard.loading.insert(run, commands);
                self.out.push(Effect::LoadRun(run));
            }
        }
    }

    /// Runs a command on a run that is in memory and does not fly.
    pub(crate) fn apply(&mut self, run: RunId, command: Deferred) {
        match command {
            Deferred::Cancel { tenant, ticket } => self.cancel(run, tenant, ticket),
            Deferred::Unpark { tenant, ticket } => self.unpark(run, tenant, ticket),
            Deferred::Result { session, attempt, outcome } => self.result(session, attempt, outcome),
            Deferred::Extend { session, attempt, by } => self.extend(session, attempt, by),
            Deferred::FreeSlot { session, attempt } => self.free_slot(session, attempt),
            Deferred::TakeBack { session, reason } => self.take_back(run, session, reason),
            Deferred::Timer => self.fire(run),
        }
    }

    /// After a flight or a load: what waited, as far as it goes now; then whether memory keeps the run.
    pub(crate) fn settle(&mut self, run: RunId) {
        while let Some(task) = self.shard.tasks.get_mut(&run) {
            if task.flight.is_some() {
                return;
            }
            let Some(next) = task.deferred.pop_front() else { break };
            self.apply(run, next);
        }
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let keep = match &task.phase {
            Phase::New | Phase::Running(_) => true,
            Phase::Parked => false,
            // Without a timer it waits in the database.
            Phase::Scheduled { .. } => task.timer.is_some(),
            Phase::Queued { .. } => {
                let key = self.shard.pauses.queue_of(task.tenant, &task.spec);
                let entry = (task.rank, run);
                self.shard.queues.get(&key).is_some_and(|q| q.holds(&task.spec, entry)) || task.timer.is_some()
            }
        };
        if !keep {
            self.forget(run);
        }
    }
}
