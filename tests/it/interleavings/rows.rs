//! Rows as the scheduler would write them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helve::db::lane::{CreateRows, FinishRows, LaneConnection, LaneError};
use helve_domain::change::{
    Body, CreateKey, EndRow, Extra, Guard, InsertRow, Mark, MoveRow, NewRunRow, Placement, Provided,
};
use helve_domain::clock::{Clock, Timestamp};
use helve_domain::definition::WorkflowDefinition;
use helve_domain::id::{RunId, SessionId, TenantId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::run::{Priority, RunError};
use helve_domain::status::RunStatus;

/// Larger than what stands in a row: it must come and go with its row.
pub fn large() -> Payload {
    Payload::trusted(Bytes::from(format!("\"{}\"", "x".repeat(2_000))))
}

/// The session that holds a run.
pub fn holder() -> (WorkerId, SessionId) {
    let now = Clock::system().now();
    (WorkerId::generate(now), SessionId::generate(now))
}

/// A place without a worker.
pub fn place(state: RunStatus, attempt: i32) -> Placement {
    Placement { state, attempt, retries: 0, due: None, worker: None, started_at: None, error: None }
}

/// A place with a worker.
pub fn running(attempt: i32, holder: (WorkerId, SessionId)) -> Placement {
    let started_at = Some(Clock::system().now());
    Placement { worker: Some(holder), started_at, ..place(RunStatus::Running, attempt) }
}

/// A new run, provided by its key if it has one.
pub fn new_run(tenant: TenantId, place: Placement, key: Option<CreateKey>, input: Payload) -> InsertRow {
    let now = Clock::system().now();
    let definition: WorkflowDefinition = serde_json::from_str(r#"{"tasks": [{"name": "work"}]}"#).unwrap();
    let id = RunId::generate(now);
    let provided = key.as_ref().map_or(Provided::Always, |_| Provided::Won(id.uuid()));
    let body = Arc::new(Body { input, metadata: Payload::empty_object(), traceparent: None });
    let run = NewRunRow {
        id,
        tenant,
        spec: Arc::new(definition.compile("work", 1).unwrap()),
        body,
        priority: Priority::DEFAULT,
        run_at: None,
        key,
        extra: Extra::default(),
    };
    InsertRow { run, place, rank: Priority::DEFAULT.rank(now), provided }
}

/// Creates it. Gives whether its key was won.
pub async fn create(lane: &mut LaneConnection, row: &InsertRow) -> Result<bool, LaneError> {
    let now = Clock::system().now();
    let mut rows = CreateRows::at(now);
    if let Some(key) = &row.run.key {
        rows.key(key, row.run.id.uuid(), now.plus(Duration::from_secs(3_600)));
    }
    rows.run(row);
    lane.create(&rows).await.map(|won| won.admits(row.provided))
}

/// What the finish lane does to a run.
#[derive(Debug, Clone)]
pub enum Change {
    End(Box<EndRow>),
    Move(Box<MoveRow>),
}

impl Change {
    /// Carries it out. Gives whether the run was as expected.
    pub async fn apply(&self, lane: &mut LaneConnection) -> Result<bool, LaneError> {
        let mut rows = FinishRows::at(Clock::system().now());
        self.add_to(&mut rows);
        lane.finish(&rows).await.map(|mut outcome| outcome.take(self.run()).is_some())
    }

    /// One row more in a batch.
    pub fn add_to<'a>(&'a self, rows: &mut FinishRows<'a>) {
        match self {
            Self::End(end) => rows.end(end),
            Self::Move(to) => rows.moves(to),
        }
    }

    fn run(&self) -> RunId {
        match self {
            Self::End(end) => end.run,
            Self::Move(to) => to.run,
        }
    }
}

/// An open run as both sides of a race know it.
pub struct Known {
    pub run: RunId,
    pub tenant: TenantId,
    pub guard: Guard,
}

impl Known {
    /// What `row` inserts.
    pub fn of(row: &InsertRow) -> Self {
        let Placement { state, attempt, worker, .. } = row.place;
        Self { run: row.run.id, tenant: row.run.tenant, guard: Guard { state, attempt, session: worker.map(|w| w.1) } }
    }

    fn end(&self, state: RunStatus) -> EndRow {
        let finished_at: Timestamp = Clock::system().now();
        let Self { run, tenant, guard } = *self;
        EndRow { run, tenant, guard, state, output: None, error: None, finished_at, reason: None }
    }

    /// The worker's result.
    pub fn end_with(&self, state: RunStatus, output: Payload) -> Change {
        Change::End(Box::new(EndRow { output: Some(output), ..self.end(state) }))
    }

    /// The worker's result, with an output that stands apart.
    pub fn finish(&self) -> Change {
        Change::End(Box::new(EndRow { output: Some(large()), ..self.end(RunStatus::Succeeded) }))
    }

    /// Its execution timeout, without a retry left.
    pub fn time_out(&self) -> Change {
        let error = Some(RunError::of_engine("timeout", "too long"));
        Change::End(Box::new(EndRow { error, reason: Some("timeout"), ..self.end(RunStatus::Failed) }))
    }

    /// A cancel.
    pub fn cancel(&self) -> Change {
        Change::End(Box::new(EndRow { reason: Some("cancelled"), ..self.end(RunStatus::Cancelled) }))
    }

    fn moves(&self, place: Placement) -> MoveRow {
        let Self { run, tenant, guard } = *self;
        MoveRow { run, tenant, guard, place, mark: Mark::None, worker: None, want_body: true, reason: None }
    }

    /// Its worker gives the slots back and goes on.
    pub fn free_slot(&self) -> Change {
        let place = Placement { worker: None, ..place(RunStatus::Running, self.guard.attempt) };
        Change::Move(Box::new(MoveRow { mark: Mark::Freed, ..self.moves(place) }))
    }

    /// A slot is taken for it.
    pub fn claim(&self, holder: (WorkerId, SessionId)) -> Change {
        Change::Move(Box::new(self.moves(running(self.guard.attempt + 1, holder))))
    }

    /// A person sends it to its queue again.
    pub fn unpark(&self) -> Change {
        let to = self.moves(place(RunStatus::Queued, self.guard.attempt));
        Change::Move(Box::new(MoveRow { mark: Mark::Unparked { rank: 7 }, reason: Some("unparked"), ..to }))
    }

    /// A failed attempt, to be tried again in a minute.
    pub fn retry(&self) -> Change {
        let due = Some(Clock::system().now().plus(Duration::from_secs(60)));
        let place = Placement { retries: 1, due, ..place(RunStatus::Scheduled, self.guard.attempt) };
        Change::Move(Box::new(MoveRow { reason: Some("retry"), ..self.moves(place) }))
    }
}
