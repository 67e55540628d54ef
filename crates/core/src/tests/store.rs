//! What the database does with the rows of a transition.

use std::collections::HashSet;
use std::sync::Arc;

use helve_domain::id::RunId;
use helve_domain::status::RunStatus;

use super::rows;
use super::world::{Load, Stored, World};
use crate::{CreateRow, FinishRow, Provided, QueueKey, RowOutcome, Rows, Write};

impl World {
    /// A window of a queue as the rows are now; what it brings comes later.
    pub(super) fn read_queue(
        &self,
        key: QueueKey,
        from: Option<(i64, RunId)>,
        limit: usize,
        apart: &[Arc<str>],
    ) -> Load {
        let mine = |w: &Arc<str>| key.part.as_ref().is_none_or(|p| p == w) && !apart.contains(w);
        let stored = self.open.values().map(|stored| &stored.row);
        let of_queue = stored.filter(|row| row.spec.action == key.action && mine(&row.spec.workflow));
        let (rows, all) = rows::window(of_queue, from, limit);
        Load::Queue(key, rows, all)
    }

    pub(super) fn win_keys(&mut self, write: &Write) -> HashSet<RunId> {
        let mut won = HashSet::new();
        for row in write.rows.creates() {
            if let CreateRow::Run(row) = row
                && let Some(key) = &row.run.key
                && !self.keys.contains_key(&*key.key)
            {
                self.keys.insert(key.key.to_string(), row.run.id);
                won.insert(row.run.id);
            }
        }
        won
    }

    /// What one statement does.
    pub(super) fn apply(&mut self, rows: &Rows, won: &HashSet<RunId>) -> Vec<RowOutcome> {
        match rows {
            Rows::Create(rows) => rows.iter().map(|row| self.create(row, won)).collect(),
            Rows::Finish(rows) => rows.iter().map(|row| self.change(row)).collect(),
            Rows::Worker(_) => vec![RowOutcome::Applied(None)],
            Rows::Pause(row) => {
                match &row.pause {
                    Some(pause) => drop(self.pauses.insert(row.target.clone(), pause.clone())),
                    None => drop(self.pauses.remove(&row.target)),
                }
                vec![RowOutcome::Applied(None)]
            }
        }
    }

    fn create(&mut self, row: &CreateRow, won: &HashSet<RunId>) -> RowOutcome {
        match row {
            CreateRow::Run(row) => {
                if row.provided != Provided::Always && !won.contains(&row.run.id) {
                    return RowOutcome::KeyTaken;
                }
                let open = rows::created(row);
                let before = self.open.insert(row.run.id, Stored { row: open, body: Arc::clone(&row.run.body) });
                assert!(before.is_none());
                self.may_start(row.run.id);
                RowOutcome::Applied(None)
            }
            CreateRow::Event(_) => RowOutcome::Applied(None),
        }
    }

    fn change(&mut self, row: &FinishRow) -> RowOutcome {
        match row {
            FinishRow::Move(row) => {
                let Some(stored) = self.open.get_mut(&row.run).filter(|s| rows::is_expected(&s.row, &row.guard)) else {
                    return RowOutcome::Missed;
                };
                let r = &mut stored.row.facts;
                assert!(row.place.attempt >= r.attempt, "I8 attempts never go back");
                rows::relocate(r, row);
                let body = row.want_body.then(|| Arc::clone(&stored.body));
                if row.guard.state != RunStatus::Running {
                    self.may_start(row.run);
                }
                RowOutcome::Applied(body)
            }
            FinishRow::End(row) => {
                if !self.open.get(&row.run).is_some_and(|s| rows::is_expected(&s.row, &row.guard)) {
                    return RowOutcome::Missed;
                }
                self.open.remove(&row.run);
                let before = self.ended.insert(row.run, (row.state, row.guard.attempt, row.guard.session));
                assert!(before.is_none(), "I3 {:?} ended twice", row.run);
                RowOutcome::Applied(None)
            }
        }
    }
}
