//! How the world pauses, resumes, works and dies.

use std::sync::Arc;
use std::time::Duration;

use helve_domain::definition::{Spec, WorkflowDefinition};
use helve_domain::id::{RunId, TokenId, WorkerId};
use helve_domain::pause::{Pause, Target};
use helve_domain::status::RunStatus::Running;

use super::world::{World, settings};
use crate::{Command, PauseChange, PauseOrder, Shard, Ticket, Transport};

const SEC: Duration = Duration::from_secs(1);

pub fn flow(name: &str, definition: &str) -> Arc<Spec> {
    let definition: WorkflowDefinition = serde_json::from_str(definition).unwrap();
    Arc::new(definition.compile(name, 1).unwrap())
}

pub fn workflow() -> Target {
    Target::Workflow("w".into())
}

pub fn action() -> Target {
    Target::Action("a".into())
}

pub fn reason(w: &World, expires: Option<Duration>) -> Pause {
    Pause {
        reason: "maintenance".into(),
        by: TokenId::from_uuid(uuid::Uuid::nil()),
        by_name: "ops".into(),
        since: w.now,
        expires_at: expires.map(|d| w.now.plus(d)),
        resumed: None,
    }
}

impl World {
    /// After the answer of a pause nothing of it is written as running any more.
    pub(super) fn may_start(&self, run: RunId) {
        let row = &self.open[&run].row;
        let (spec, Some((worker, _))) = (&row.spec, row.holder) else { return };
        let targets =
            [Target::Workflow(spec.workflow.clone()), Target::Action(spec.action.clone()), Target::Worker(worker)];
        for target in targets.iter().filter(|t| self.shut.contains(*t)) {
            let paused = self.shard.pauses.get(self.tenant, target).is_some_and(|p| p.resumed.is_none());
            assert!(!paused, "{run} starts although its {target} is paused");
        }
    }

    pub fn order(&mut self, target: Target, change: PauseChange) -> Ticket {
        let ticket = self.ticket();
        self.shut.remove(&target);
        self.ordered.insert(target.clone(), ticket);
        self.step(Command::Pause(Box::new(PauseOrder { tenant: self.tenant, target, change }), ticket));
        ticket
    }

    pub fn pause(&mut self, target: Target, expires: Option<Duration>) -> Ticket {
        let pause = reason(self, expires);
        self.order(target, PauseChange::Pause(pause))
    }

    pub fn resume(&mut self, target: Target, rate: Option<f64>) -> Ticket {
        self.order(target, PauseChange::Resume { rate, actions: vec!["a".into()] })
    }

    pub fn trigger_of(&mut self, spec: &Arc<Spec>) -> RunId {
        self.trigger_with(|r| r.spec = Arc::clone(spec)).0
    }

    pub fn worker_of(&self, transport: Transport) -> WorkerId {
        self.shard.sessions[&self.sessions[&transport].0].worker
    }

    /// Time passes while a worker confirms what comes.
    pub fn listen(&mut self, transport: Transport, seconds: u32) {
        for _ in 0..seconds {
            self.receive(transport);
            self.advance(SEC);
        }
    }

    /// Takes what comes and reports its success, until nothing comes any more.
    pub fn work(&mut self, transport: Transport) -> Vec<RunId> {
        let mut done = Vec::new();
        loop {
            let got = self.receive(transport);
            if got.is_empty() {
                return done;
            }
            for attempt in got {
                done.push(attempt.run);
                self.succeed(transport, attempt);
                self.settle();
            }
        }
    }

    /// The process dies and another one starts from the rows.
    pub fn take_over(&mut self, transports: &[Transport]) {
        let rows = transports.iter().map(|t| {
            let session = self.sessions[t].0;
            self.shard.sessions[&session].row(session)
        });
        let workers = rows.collect();
        self.shard = Shard::new(settings());
        self.lanes.iter_mut().for_each(std::collections::VecDeque::clear);
        self.loads.clear();
        let found = self.pauses.iter().map(|(target, pause)| helve_domain::pause::Paused {
            tenant: self.tenant,
            target: target.clone(),
            pause: pause.clone(),
        });
        let found = found.collect();
        self.step(Command::PausesFound(found));
        let held = self.open.values().map(|s| s.row.clone()).filter(|r| r.state == Running).collect();
        self.step(Command::Recovered(workers, held));
        self.load_timers();
    }
}
