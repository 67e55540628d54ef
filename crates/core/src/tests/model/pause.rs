//! Somebody pauses the workflow of the model and resumes it.

use helve_domain::id::TokenId;
use helve_domain::pause::{Pause, Paused, Target};
use helve_domain::status::RunStatus;
use uuid::Uuid;

use super::store::Store;
use super::system::{System, spec, tenant};
use crate::{Answer, Command, CreateRow, FinishRow, PauseChange, PauseOrder, RowOutcome, Ticket, Write};

/// Tickets, above all others.
pub const PAUSE: Ticket = 1_000_000;
pub const RESUME: Ticket = 1_000_001;

/// How far the one who pauses is.
#[derive(Clone, Debug, Default)]
pub struct Pausing {
    /// May still happen.
    pub left: bool,
    pub asked: bool,
    /// It has the answer: nothing starts.
    pub shut: bool,
    /// Asked to resume: which node.
    pub resuming: Option<usize>,
    pub resumed: bool,
    /// Something started all the same.
    pub broken: bool,
}

impl Pausing {
    /// Who asked a node that is gone asks its successor.
    pub fn wants_resume(&self, owner: usize) -> bool {
        self.asked && !self.resumed && self.resuming != Some(owner)
    }
}

impl Store {
    pub fn paused(&self) -> Vec<Paused> {
        let paused = |pause: &Pause| Paused { tenant: tenant(), target: target(), pause: pause.clone() };
        self.pause.iter().map(paused).collect()
    }
}

fn target() -> Target {
    Target::Workflow(spec().workflow.clone())
}

impl System {
    fn order(&mut self, change: PauseChange, ticket: Ticket) {
        let order = PauseOrder { tenant: tenant(), target: target(), change };
        self.step(self.owner, Command::Pause(Box::new(order), ticket));
    }

    pub fn pause(&mut self) {
        self.pausing.left = false;
        self.pausing.asked = true;
        let pause = Pause {
            reason: "r".into(),
            by: TokenId::from_uuid(Uuid::nil()),
            by_name: "n".into(),
            since: self.now,
            expires_at: None,
            resumed: None,
        };
        self.order(PauseChange::Pause(pause), PAUSE);
    }

    pub fn resume(&mut self) {
        self.pausing.resuming = Some(self.owner);
        self.pausing.shut = false;
        self.order(PauseChange::Resume { rate: None, actions: Vec::new() }, RESUME);
    }

    pub fn pause_answered(&mut self, answer: &Answer) {
        match answer {
            Answer::Paused(_) => self.pausing.shut = self.pausing.resuming.is_none(),
            Answer::Resumed(_) => self.pausing.resumed = true,
            _ => {}
        }
    }

    /// What one statement does; a start that nobody may see any more is noticed.
    pub fn execute(&mut self, write: Write) -> Vec<RowOutcome> {
        let outcomes = self.store.execute(&write, self.off);
        let created = write.rows.creates().iter().map(|row| match row {
            CreateRow::Run(row) => Some(row.place.state),
            CreateRow::Event(_) => None,
        });
        let changed = write.rows.finishes().iter().map(|row| match row {
            FinishRow::Move(row) => Some(row.place.state),
            FinishRow::End(_) => None,
        });
        let starts = created
            .chain(changed)
            .zip(&outcomes)
            .any(|(state, outcome)| state == Some(RunStatus::Running) && matches!(outcome, RowOutcome::Applied(_)));
        self.pausing.broken |= starts && self.pausing.shut;
        outcomes
    }
}
