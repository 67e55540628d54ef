//! What the database does with the rows of a transition.

use std::collections::HashSet;
use std::sync::Arc;

use helve_domain::id::RunId;
use helve_domain::status::RunStatus;

use super::world::{Load, Stored, World};
use crate::{CreateRow, FinishRow, Mark, OpenRow, Provided, QueueKey, RowOutcome, Rows, RunFacts, Write};

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
        let mut rows: Vec<OpenRow> = self
            .open
            .values()
            .filter(|s| s.row.state == RunStatus::Queued && s.row.spec.action == key.action)
            .filter(|s| mine(&s.row.spec.workflow) && from.is_none_or(|f| (s.row.rank, s.row.run) >= f))
            .map(|s| s.row.clone())
            .collect();
        rows.sort_by_key(|r| (r.rank, r.run));
        rows.truncate(limit);
        let all = rows.len() < limit;
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
                let open = OpenRow {
                    facts: RunFacts {
                        run: row.run.id,
                        tenant: row.run.tenant,
                        state: row.place.state,
                        attempt: row.place.attempt,
                        retries: 0,
                        unparked: 0,
                        freed: false,
                        priority: row.run.priority.number(),
                        rank: row.rank,
                        due: row.place.due,
                        holder: row.place.worker,
                        started_at: row.place.started_at,
                        extra: row.run.extra.clone(),
                    },
                    spec: Arc::clone(&row.run.spec),
                };
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
                let Some(stored) = self.open.get_mut(&row.run).filter(|s| matches(s, &row.guard)) else {
                    return RowOutcome::Missed;
                };
                let r = &mut stored.row.facts;
                assert!(row.place.attempt >= r.attempt, "I8 attempts never go back");
                r.freed &= row.place.attempt == r.attempt;
                (r.state, r.attempt, r.retries, r.due) =
                    (row.place.state, row.place.attempt, row.place.retries, row.place.due);
                (r.holder, r.started_at) = (row.place.worker, row.place.started_at);
                match row.mark {
                    Mark::None => {}
                    Mark::Freed => r.freed = true,
                    Mark::Unparked { rank } => (r.rank, r.unparked) = (rank, row.place.attempt),
                }
                let body = row.want_body.then(|| Arc::clone(&stored.body));
                if row.guard.state != RunStatus::Running {
                    self.may_start(row.run);
                }
                RowOutcome::Applied(body)
            }
            FinishRow::End(row) => {
                if !self.open.get(&row.run).is_some_and(|s| matches(s, &row.guard)) {
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

fn matches(stored: &Stored, guard: &crate::Guard) -> bool {
    let r = &stored.row;
    r.state == guard.state
        && r.attempt == guard.attempt
        && guard.session.is_none_or(|s| r.holder.is_some_and(|h| h.1 == s))
}
