//! The trigger path: a free slot and nothing ahead means that the run is created already assigned.

use std::collections::VecDeque;
use std::time::Duration;

use helve_domain::delivery::Attempt;
use helve_domain::error::Error;
use helve_domain::id::{RunId, TenantId};
use helve_domain::run::Run;
use helve_domain::status::RunStatus;

use crate::state::flight::{Creation, Draft, Start, Step};
use crate::state::task::{Phase, Task};
use crate::state::{Shard, refuse};
use crate::turn::Turn;
use crate::types::{Command, CreateKey, CreateRow, InsertRow, NewEventRow, NewRunRow, Placement, Provided, Ticket};

/// Creates that may wait behind one create key.
const MAX_BEHIND_KEY: usize = 1_000;

impl Turn<'_> {
    pub(crate) fn create(&mut self, run: NewRunRow, ticket: Option<Ticket>) {
        if let Some(key) = &run.key
            && self.shard.keys.contains_key(&key.identity())
        {
            let identity = key.identity();
            return self.wait_for_key(&identity, Command::Create(Box::new(run), ticket), ticket);
        }
        if !self.may_create(run.tenant) {
            return refuse(ticket, too_many_creates(), self.out);
        }
        let provided = run.provided();
        self.shard.lock_key(run.key.as_ref());
        let tenant = run.tenant;
        let creation = self.admit(run, ticket, provided);
        self.write_creates(tenant, creation.into());
    }

    pub(crate) fn create_event(&mut self, event: NewEventRow, ticket: Ticket) {
        if let Some(key) = &event.create_key
            && self.shard.keys.contains_key(&key.identity())
        {
            let identity = key.identity();
            return self.wait_for_key(&identity, Command::CreateEvent(Box::new(event), ticket), Some(ticket));
        }
        if !self.may_create(event.tenant) {
            return refuse(Some(ticket), too_many_creates(), self.out);
        }
        self.shard.lock_key(event.create_key.as_ref());
        let tenant = event.tenant;
        let provided = event.provided();
        let ids = event.runs.iter().map(|r| r.id).collect();
        let (key, of) = (event.create_key.clone(), (tenant, event.key.as_str().into()));
        let step = Step::Event { event: event.id, runs: ids, ticket, key, of };
        let runs = event.runs.clone();
        let mut draft = Draft::from((CreateRow::Event(Box::new(event)), step));
        for run in runs {
            draft.push(self.admit(run, None, provided));
        }
        self.write_creates(tenant, draft);
    }

    /// Whether there is room for one more create. One tenant may have half of it: when the database is slow, a
    /// tenant that floods the engine must not have everybody refused.
    fn may_create(&mut self, tenant: TenantId) -> bool {
        let own = self.shard.creating_of.get(&tenant).copied().unwrap_or(0);
        self.creating < self.shard.settings.pending && own < self.shard.settings.pending.div_ceil(2)
    }

    /// Decides where a new run starts, reserves what it takes, and says what to write.
    fn admit(&mut self, run: NewRunRow, ticket: Option<Ticket>, provided: Provided) -> Creation {
        let later = run.run_at.filter(|at| *at > self.now);
        let rank = run.priority.rank(later.unwrap_or(self.now));
        let key = self.shard.pauses.queue_of(run.tenant, &run.spec);
        let optimistic = self.shard.settings.optimistic && !self.shard.draining && self.optimistic_room > 0;
        let to = match later {
            None if optimistic => self.start_of(&key, (rank, run.id), &run.spec),
            None | Some(_) => None,
        };
        let start = match (later, to) {
            (Some(due), _) => Start::Scheduled { due },
            (None, None) => Start::Queued { expires: run.spec.schedule_timeout.map(|d| self.now.plus(d)) },
            (None, Some(to)) => Start::Assigned(to),
        };
        let place = placement(start);
        self.shard.creating += 1;
        *self.shard.creating_of.entry(run.tenant).or_default() += 1;
        let task = Task {
            tenant: run.tenant,
            spec: run.spec.clone(),
            priority: run.priority.number(),
            rank,
            retries: 0,
            attempt: place.attempt,
            unparked: 0,
            extra: run.extra.clone(),
            body: Some(run.body.clone()),
            phase: Phase::New,
            flight: None,
            deferred: VecDeque::new(),
            timer: None,
        };
        self.shard.tasks.insert(run.id, task);
        match start {
            Start::Assigned(to) => {
                self.shard.optimistic += 1;
                self.seize(run.tenant, Attempt { run: run.id, number: 1 }, &run.spec, to);
            }
            Start::Queued { .. } => self.shard.announce(run.id),
            Start::Scheduled { .. } => {}
        }
        let step = Step::Create { run: run.id, ticket, start, key: run.key.clone() };
        (CreateRow::Run(Box::new(InsertRow { run, place, rank, provided })), step)
    }

    fn wait_for_key(
        &mut self,
        key: &(helve_domain::id::TenantId, std::sync::Arc<str>, std::sync::Arc<str>),
        command: Command,
        ticket: Option<Ticket>,
    ) {
        let Some(waiting) = self.shard.keys.get_mut(key) else { return };
        if waiting.len() >= MAX_BEHIND_KEY {
            return refuse(ticket, limited("too many requests with this idempotency key at once"), self.out);
        }
        waiting.push_back(command);
    }

    /// The create under a key is decided: who waited behind it goes on and meets the committed row.
    pub(crate) fn unlock_key(&mut self, key: Option<&CreateKey>) {
        let Some(waiting) = key.and_then(|k| self.shard.keys.remove(&k.identity())) else { return };
        for command in waiting {
            self.run(command);
        }
    }
}

impl Shard {
    /// A create is committed or refused.
    pub(crate) fn end_create(&mut self, run: RunId) {
        self.creating -= 1;
        let Some(tenant) = self.tasks.get(&run).map(|t| t.tenant) else { return };
        if let Some(own) = self.creating_of.get_mut(&tenant) {
            *own -= 1;
            if *own == 0 {
                self.creating_of.remove(&tenant);
            }
        }
    }

    fn lock_key(&mut self, key: Option<&CreateKey>) {
        if let Some(key) = key {
            self.keys.insert(key.identity(), VecDeque::new());
        }
    }

    /// A run as the interface shows it, from memory; `None` when memory lacks its payloads.
    pub(crate) fn view(&self, run: RunId) -> Option<Box<Run>> {
        let task = self.tasks.get(&run)?;
        let body = task.body.as_ref()?;
        let (status, due, held) = match &task.phase {
            Phase::New => return None,
            Phase::Scheduled { due } => (RunStatus::Scheduled, Some(*due), None),
            Phase::Queued { .. } => (RunStatus::Queued, None, None),
            Phase::Running(held) => (RunStatus::Running, None, Some(held)),
            Phase::Parked => (RunStatus::Parked, None, None),
        };
        Some(Box::new(Run {
            id: run,
            tenant: task.tenant,
            workflow: task.spec.workflow.clone(),
            version: task.spec.version,
            status,
            attempt: task.attempt,
            retries: task.retries,
            priority: task.priority,
            input: body.input.clone(),
            output: None,
            error: None,
            metadata: body.metadata.clone(),
            worker: held.map(|h| h.worker),
            event: task.extra.event(),
            replay_of: task.extra.replay_of(),
            due,
            started_at: held.map(|h| h.started_at),
            finished_at: None,
            traceparent: body.traceparent.clone(),
            progress: None,
        }))
    }
}

const fn placement(start: Start) -> Placement {
    let (state, due) = match start {
        Start::Scheduled { due } => (RunStatus::Scheduled, Some(due)),
        Start::Queued { expires } => (RunStatus::Queued, expires),
        Start::Assigned(_) => (RunStatus::Running, None),
    };
    let place = Placement { state, attempt: 0, retries: 0, due, worker: None, started_at: None, error: None };
    match start {
        Start::Assigned(to) => {
            Placement { attempt: 1, worker: Some((to.worker, to.session)), started_at: Some(to.at), ..place }
        }
        Start::Scheduled { .. } | Start::Queued { .. } => place,
    }
}

fn too_many_creates() -> Error {
    limited("too many triggers wait for their commit")
}

fn limited(message: &str) -> Error {
    Error::Limited { message: message.to_owned(), retry_after: Duration::from_secs(1) }
}
