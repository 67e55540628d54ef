//! What PostgreSQL does with single rows: the stories' store and the model's are made of it, and add what each of them
//! checks.

use std::sync::Arc;

use helve_domain::id::RunId;
use helve_domain::status::RunStatus;

use crate::{Guard, InsertRow, Mark, MoveRow, OpenRow, RunFacts};

/// The row of a run that was created.
pub fn created(row: &InsertRow) -> OpenRow {
    let facts = RunFacts {
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
    };
    OpenRow { facts, spec: Arc::clone(&row.run.spec) }
}

/// The row of a run goes to another place.
pub fn relocate(r: &mut RunFacts, row: &MoveRow) {
    r.freed &= row.place.attempt == r.attempt;
    (r.state, r.attempt, r.retries, r.due) = (row.place.state, row.place.attempt, row.place.retries, row.place.due);
    (r.holder, r.started_at) = (row.place.worker, row.place.started_at);
    match row.mark {
        Mark::None => {}
        Mark::Freed => r.freed = true,
        Mark::Unparked { rank } => (r.rank, r.unparked) = (rank, row.place.attempt),
    }
}

/// Whether the row is as the writer expects it.
pub fn is_expected(row: &OpenRow, guard: &Guard) -> bool {
    row.state == guard.state
        && row.attempt == guard.attempt
        && guard.session.is_none_or(|session| row.holder.is_some_and(|holder| holder.1 == session))
}

/// The queued ones from a place in the queue on, in order, and whether these are all.
pub fn window<'a>(
    rows: impl Iterator<Item = &'a OpenRow>,
    from: Option<(i64, RunId)>,
    limit: usize,
) -> (Vec<OpenRow>, bool) {
    let queued = |r: &&OpenRow| r.state == RunStatus::Queued && from.is_none_or(|from| (r.rank, r.run) >= from);
    let mut rows: Vec<OpenRow> = rows.filter(queued).cloned().collect();
    rows.sort_by_key(|r| (r.rank, r.run));
    rows.truncate(limit);
    let all = rows.len() < limit;
    (rows, all)
}
