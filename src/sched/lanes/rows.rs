//! What a batch's rows become in a statement, and what the rows of the database say of a batch whose answer was lost.

use std::time::Duration;

use helve_core::{Row, RowOutcome};
use helve_domain::clock::Timestamp;
use helve_domain::id::{EventId, RunId, WorkerId};
use uuid::Uuid;

use super::writer::Job;
use crate::db::lane::{CreateRows, FinishRows, LaneConnection, LaneError, Traces};

/// What a transition is about: runs, or something that has a statement of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sched) enum About {
    Runs,
    Workers,
    /// One at a time: they are rare.
    Pause,
}

pub(in crate::sched) fn about(job: &Job) -> About {
    match job.write.rows.first() {
        Some(Row::PutWorker(_) | Row::DropWorker(_)) => About::Workers,
        Some(Row::Pause(_)) => About::Pause,
        Some(Row::Insert(_) | Row::InsertEvent(_) | Row::Move(_) | Row::End(_)) | None => About::Runs,
    }
}

pub(in crate::sched) async fn send_creates(
    conn: &mut LaneConnection,
    jobs: &[Job],
    now: Timestamp,
    key_lifetime: Duration,
) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    let mut batch = CreateRows::at(now);
    for row in jobs.iter().flat_map(|j| &j.write.rows) {
        match row {
            Row::Insert(row) => {
                if let Some(key) = &row.run.key {
                    batch.key(key, row.run.id.uuid(), now.plus(key_lifetime));
                }
                batch.run(row);
            }
            Row::InsertEvent(event) => {
                if let Some(key) = &event.create_key {
                    batch.key(key, event.id.uuid(), now.plus(key_lifetime));
                }
                batch.event(event);
            }
            Row::Move(_) | Row::End(_) | Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => {}
        }
    }
    let won = conn.create(&batch).await?;
    let outcome = |row: &Row| match row {
        Row::Insert(_) | Row::InsertEvent(_) if won.admits(gate(row)) => RowOutcome::Applied(None),
        Row::Insert(_) | Row::InsertEvent(_) => RowOutcome::KeyTaken,
        Row::Move(_) | Row::End(_) | Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => stray(),
    };
    Ok(jobs.iter().map(|j| j.write.rows.iter().map(outcome).collect()).collect())
}

fn gate(row: &Row) -> Option<Uuid> {
    match row {
        Row::Insert(row) => row.gate,
        Row::InsertEvent(event) => event.create_key.as_ref().map(|_| event.id.uuid()),
        Row::Move(_) | Row::End(_) | Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => None,
    }
}

pub(in crate::sched) async fn send_finishes(
    conn: &mut LaneConnection,
    jobs: &[Job],
    now: Timestamp,
) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    let mut batch = FinishRows::at(now);
    for row in jobs.iter().flat_map(|j| &j.write.rows) {
        match row {
            Row::Move(row) => batch.moves(row),
            Row::End(row) => batch.end(row),
            Row::Insert(_) | Row::InsertEvent(_) | Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => {}
        }
    }
    let mut found = conn.finish(&batch).await?;
    let mut outcome = |row: &Row| {
        let run = match row {
            Row::Move(row) => row.run,
            Row::End(row) => row.run,
            Row::Insert(_) | Row::InsertEvent(_) | Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => {
                return stray();
            }
        };
        found.take(run).map_or(RowOutcome::Missed, RowOutcome::Applied)
    };
    Ok(jobs.iter().map(|j| j.write.rows.iter().map(&mut outcome).collect()).collect())
}

pub(in crate::sched) async fn send_workers(
    conn: &mut LaneConnection,
    jobs: &[Job],
) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    let (mut put, mut gone): (Vec<_>, Vec<WorkerId>) = (Vec::new(), Vec::new());
    for row in jobs.iter().flat_map(|j| &j.write.rows) {
        match row {
            Row::PutWorker(row) => put.push(&**row),
            Row::DropWorker(worker) => gone.push(*worker),
            Row::Insert(_) | Row::InsertEvent(_) | Row::Move(_) | Row::End(_) | Row::Pause(_) => {}
        }
    }
    conn.workers(&put, &gone).await?;
    let outcome = |row: &Row| match row {
        Row::PutWorker(_) | Row::DropWorker(_) => RowOutcome::Applied(None),
        Row::Insert(_) | Row::InsertEvent(_) | Row::Move(_) | Row::End(_) | Row::Pause(_) => stray(),
    };
    Ok(jobs.iter().map(|j| j.write.rows.iter().map(outcome).collect()).collect())
}

pub(in crate::sched) async fn send_pauses(
    conn: &mut LaneConnection,
    jobs: &[Job],
) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    for row in jobs.iter().flat_map(|j| &j.write.rows) {
        if let Row::Pause(row) = row {
            conn.pause(row).await?;
        }
    }
    let outcome = |row: &Row| if matches!(row, Row::Pause(_)) { RowOutcome::Applied(None) } else { stray() };
    Ok(jobs.iter().map(|j| j.write.rows.iter().map(outcome).collect()).collect())
}

/// A row in a batch of another kind: nothing was written for it, and nobody may be told otherwise.
fn stray() -> RowOutcome {
    helve_domain::invariant!(false, "a row is in a batch of another kind");
    RowOutcome::Missed
}

/// Times whose weeks the rows need.
pub(in crate::sched) fn times(jobs: &[Job], now: Timestamp) -> Vec<Timestamp> {
    let rows = jobs.iter().flat_map(|j| &j.write.rows);
    let of_rows = rows.flat_map(|row| match row {
        Row::Insert(row) => [Some(row.run.id.created_at()), None],
        Row::InsertEvent(event) => [Some(event.id.created_at()), None],
        Row::Move(row) => [Some(row.run.created_at()), None],
        Row::End(row) => [Some(row.run.created_at()), Some(row.finished_at)],
        Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => [None, None],
    });
    [now].into_iter().chain(of_rows.flatten()).collect()
}

pub(in crate::sched) fn ids(jobs: &[Job]) -> (Vec<RunId>, Vec<EventId>) {
    let (mut runs, mut events) = (Vec::new(), Vec::new());
    for row in jobs.iter().flat_map(|j| &j.write.rows) {
        match row {
            Row::Insert(row) => runs.push(row.run.id),
            Row::InsertEvent(event) => events.push(event.id),
            Row::Move(row) => runs.push(row.run),
            Row::End(row) => runs.push(row.run),
            Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => {}
        }
    }
    (runs, events)
}

/// Nothing of the batch ended before this; partitions of the history before it need not be read.
pub(in crate::sched) fn earliest_end(jobs: &[Job], since: Timestamp) -> Timestamp {
    let ends = jobs.iter().flat_map(|j| &j.write.rows).filter_map(|row| match row {
        Row::End(row) => Some(row.finished_at),
        Row::Insert(_)
        | Row::InsertEvent(_)
        | Row::Move(_)
        | Row::PutWorker(_)
        | Row::DropWorker(_)
        | Row::Pause(_) => None,
    });
    ends.min().unwrap_or(since).min(since)
}

/// What the rows say of a transition whose answer was lost.
pub(in crate::sched) fn trace(rows: &[Row], traces: &Traces) -> Vec<RowOutcome> {
    let applied = |yes: bool, otherwise| if yes { RowOutcome::Applied(None) } else { otherwise };
    rows.iter()
        .map(|row| match row {
            Row::Insert(row) => applied(traces.has_run(row.run.id), RowOutcome::KeyTaken),
            Row::InsertEvent(event) => applied(traces.has_event(event.id), RowOutcome::KeyTaken),
            Row::End(row) => applied(traces.has_end(row), RowOutcome::Missed),
            Row::Move(row) => match traces.has_place(row) {
                Some(body) => RowOutcome::Applied(body.filter(|_| row.want_body)),
                None => RowOutcome::Missed,
            },
            // Writing a worker or a pause again changes nothing.
            Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => RowOutcome::Missed,
        })
        .collect()
}
