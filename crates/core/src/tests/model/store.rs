//! The database of the model: rows with guards, create keys, an epoch for each lane, and the fence.

use std::collections::BTreeMap;
use std::sync::Arc;

use helve_domain::clock::Timestamp;
use helve_domain::id::{RunId, SessionId, WorkerId};
use helve_domain::pause::Pause;
use helve_domain::status::RunStatus;

use super::Protection;
use crate::tests::rows;
use crate::{
    Body, CreateRow, EndRow, EndedRun, FinishRow, Found, Guard, InsertRow, MoveRow, OpenRow, RowOutcome, Rows,
    WorkerChange, WorkerRow, Write,
};

/// How a run ended, and how often.
#[derive(Clone, Debug)]
pub struct Ended {
    pub state: RunStatus,
    pub attempt: i32,
    pub session: Option<SessionId>,
    /// What the worker wrote into its result.
    pub output: Option<String>,
    pub times: u32,
}

#[derive(Clone, Default)]
pub struct Store {
    pub open: BTreeMap<RunId, (OpenRow, Arc<Body>)>,
    pub ended: BTreeMap<RunId, Ended>,
    pub keys: BTreeMap<String, RunId>,
    /// Runs that were created under each key.
    pub under_key: BTreeMap<String, u32>,
    pub workers: BTreeMap<WorkerId, WorkerRow>,
    /// Of the one workflow.
    pub pause: Option<Pause>,
    pub epochs: [[u32; 2]; 2],
    /// The first node may write nothing more.
    pub fenced: bool,
}

impl Store {
    /// What one statement does; whether it may run at all is decided before.
    pub fn execute(&mut self, write: &Write, off: &[Protection]) -> Vec<RowOutcome> {
        match &write.rows {
            Rows::Create(rows) => rows.iter().map(|row| self.create(row, off)).collect(),
            Rows::Finish(rows) => rows.iter().map(|row| self.change(row, off)).collect(),
            Rows::Worker(WorkerChange::Put(row)) => {
                self.workers.insert(row.worker, (**row).clone());
                vec![RowOutcome::Applied(None)]
            }
            Rows::Worker(WorkerChange::Gone(worker)) => {
                self.workers.remove(worker);
                vec![RowOutcome::Applied(None)]
            }
            Rows::Pause(row) => {
                self.pause = row.pause.clone();
                vec![RowOutcome::Applied(None)]
            }
        }
    }

    fn create(&mut self, row: &CreateRow, off: &[Protection]) -> RowOutcome {
        match row {
            CreateRow::Run(row) => self.insert(row, off),
            CreateRow::Event(_) => unreachable!("the model has no events"),
        }
    }

    fn change(&mut self, row: &FinishRow, off: &[Protection]) -> RowOutcome {
        match row {
            FinishRow::Move(row) => self.relocate(row, off),
            FinishRow::End(row) => self.end(row, off),
        }
    }

    fn insert(&mut self, row: &InsertRow, off: &[Protection]) -> RowOutcome {
        let run = row.run.id;
        if let Some(key) = &row.run.key {
            let taken = self.keys.contains_key(&*key.key);
            if taken && !off.contains(&Protection::IdempotentCreate) {
                return RowOutcome::KeyTaken;
            }
            self.keys.insert(key.key.to_string(), run);
            *self.under_key.entry(key.key.to_string()).or_default() += 1;
        }
        if self.knows(run) {
            // The primary key: in the product this statement fails.
            return RowOutcome::KeyTaken;
        }
        self.open.insert(run, (rows::created(row), Arc::clone(&row.run.body)));
        RowOutcome::Applied(None)
    }

    fn relocate(&mut self, row: &MoveRow, off: &[Protection]) -> RowOutcome {
        let Some((r, body)) = self.open.get_mut(&row.run).filter(|(r, _)| matches(r, &row.guard, off)) else {
            return RowOutcome::Missed;
        };
        rows::relocate(&mut r.facts, row);
        RowOutcome::Applied(row.want_body.then(|| Arc::clone(body)))
    }

    fn end(&mut self, row: &EndRow, off: &[Protection]) -> RowOutcome {
        if !self.open.get(&row.run).is_some_and(|(r, _)| matches(r, &row.guard, off)) {
            return RowOutcome::Missed;
        }
        self.open.remove(&row.run);
        let output = row.output.as_ref().map(|p| String::from_utf8_lossy(p.bytes()).into_owned());
        let times = self.ended.get(&row.run).map_or(0, |e| e.times) + 1;
        let (state, attempt, session) = (row.state, row.guard.attempt, row.guard.session);
        self.ended.insert(row.run, Ended { state, attempt, session, output, times });
        RowOutcome::Applied(None)
    }

    pub fn knows(&self, run: RunId) -> bool {
        self.open.contains_key(&run) || self.ended.contains_key(&run)
    }

    /// What a lane reads back of a statement whose answer was lost. `None`: it left no trace.
    pub fn traces(&self, write: &Write) -> Option<Vec<RowOutcome>> {
        let outcomes: Vec<_> = match &write.rows {
            Rows::Create(rows) => rows.iter().map(|row| self.created(row)).collect(),
            Rows::Finish(rows) => rows.iter().map(|row| self.changed(row)).collect(),
            // Writing it again changes nothing.
            Rows::Worker(_) | Rows::Pause(_) => vec![RowOutcome::Missed],
        };
        outcomes.iter().any(|o| matches!(o, RowOutcome::Applied(_))).then_some(outcomes)
    }

    fn created(&self, row: &CreateRow) -> RowOutcome {
        match row {
            CreateRow::Run(row) if self.knows(row.run.id) => RowOutcome::Applied(None),
            CreateRow::Run(_) | CreateRow::Event(_) => RowOutcome::KeyTaken,
        }
    }

    fn changed(&self, row: &FinishRow) -> RowOutcome {
        match row {
            FinishRow::Move(row) => {
                let place = &row.place;
                let there = |r: &OpenRow| {
                    (r.state, r.attempt, r.holder, r.due) == (place.state, place.attempt, place.worker, place.due)
                };
                match self.open.get(&row.run).filter(|(r, _)| there(r)) {
                    Some((_, body)) => RowOutcome::Applied(row.want_body.then(|| Arc::clone(body))),
                    None => RowOutcome::Missed,
                }
            }
            FinishRow::End(row) if self.ended.get(&row.run).is_some_and(|e| e.attempt == row.guard.attempt) => {
                RowOutcome::Applied(None)
            }
            FinishRow::End(_) => RowOutcome::Missed,
        }
    }

    /// Queued rows from a place in the queue, in order; whether these are all.
    pub fn queue(
        &self,
        from: Option<(i64, RunId)>,
        limit: usize,
        gone: impl Fn(&Arc<str>) -> bool,
    ) -> (Vec<OpenRow>, bool) {
        let there = self.open.values().map(|(row, _)| row).filter(|row| !gone(&row.spec.workflow));
        rows::window(there, from, limit)
    }

    pub fn find(&self, run: RunId) -> Found {
        match (self.open.get(&run), self.ended.get(&run)) {
            (Some((row, _)), _) => Found::Open(Box::new(row.clone())),
            (None, Some(e)) => Found::Ended(EndedRun {
                run,
                tenant: super::system::tenant(),
                state: e.state,
                attempt: e.attempt,
                session: e.session,
            }),
            (None, None) => Found::Nothing,
        }
    }

    /// What a new owner reads: workers, what they hold, and what has a timer before a time.
    pub fn left_behind(&self, until: Timestamp) -> (Vec<WorkerRow>, Vec<OpenRow>, Vec<OpenRow>) {
        let rows = |of: &dyn Fn(&OpenRow) -> bool| -> Vec<OpenRow> {
            self.open.values().map(|(r, _)| r).filter(|r| of(r)).cloned().collect()
        };
        let held = rows(&|r| r.state == RunStatus::Running);
        let mut due = rows(&|r| r.state != RunStatus::Running && r.due.is_some_and(|d| d <= until));
        due.sort_by_key(|r| r.due);
        (self.workers.values().cloned().collect(), held, due)
    }

    /// Runs that each session holds by the rows.
    pub fn held(&self) -> BTreeMap<SessionId, usize> {
        let mut held = BTreeMap::new();
        for (_, session) in self.open.values().filter_map(|(r, _)| r.holder) {
            *held.entry(session).or_default() += 1;
        }
        held
    }
}

fn matches(row: &OpenRow, guard: &Guard, off: &[Protection]) -> bool {
    if off.contains(&Protection::Guard) { row.state == guard.state } else { rows::is_expected(row, guard) }
}
