//! What a batch's rows become in a statement, and what the rows of the database say of a batch whose answer was lost.

use std::time::Duration;

use helve_core::{CreateRow, FinishRow, RowOutcome, Rows, WorkerChange};
use helve_domain::change::Provided;
use helve_domain::clock::Timestamp;
use helve_domain::id::{EventId, RunId, WorkerId};

use super::writer::Job;
use crate::db::lane::{CreateRows, FinishRows, LaneConnection, LaneError, Traces};

/// What a transition is about: runs, or something that has a statement of its own. A batch is about one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sched) enum About {
    Runs,
    Workers,
    /// One at a time: they are rare.
    Pause,
}

pub(in crate::sched) const fn about(job: &Job) -> About {
    match job.write.rows {
        Rows::Create(_) | Rows::Finish(_) => About::Runs,
        Rows::Worker(_) => About::Workers,
        Rows::Pause(_) => About::Pause,
    }
}

pub(in crate::sched) async fn send_creates(
    conn: &mut LaneConnection,
    jobs: &[Job],
    now: Timestamp,
    key_lifetime: Duration,
) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    let mut batch = CreateRows::at(now);
    for row in jobs.iter().flat_map(|job| job.write.rows.creates()) {
        match row {
            CreateRow::Run(row) => {
                if let Some(key) = &row.run.key {
                    batch.key(key, row.run.id.uuid(), now.plus(key_lifetime));
                }
                batch.run(row);
            }
            CreateRow::Event(event) => {
                if let Some(key) = &event.create_key {
                    batch.key(key, event.id.uuid(), now.plus(key_lifetime));
                }
                batch.event(event);
            }
        }
    }
    let won = conn.create(&batch).await?;
    let outcome =
        |row: &CreateRow| if won.admits(provided(row)) { RowOutcome::Applied(None) } else { RowOutcome::KeyTaken };
    let of_job = |job: &Job| job.write.rows.creates().iter().map(outcome).collect();
    Ok(jobs.iter().map(of_job).collect())
}

fn provided(row: &CreateRow) -> Provided {
    match row {
        CreateRow::Run(row) => row.provided,
        CreateRow::Event(event) => event.provided(),
    }
}

pub(in crate::sched) async fn send_finishes(
    conn: &mut LaneConnection,
    jobs: &[Job],
    now: Timestamp,
) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    let mut batch = FinishRows::at(now);
    for row in jobs.iter().flat_map(|job| job.write.rows.finishes()) {
        match row {
            FinishRow::Move(row) => batch.moves(row),
            FinishRow::End(row) => batch.end(row),
        }
    }
    let mut found = conn.finish(&batch).await?;
    let mut outcome = |row: &FinishRow| found.take(row.run()).map_or(RowOutcome::Missed, RowOutcome::Applied);
    Ok(jobs.iter().map(|job| job.write.rows.finishes().iter().map(&mut outcome).collect()).collect())
}

pub(in crate::sched) async fn send_workers(
    conn: &mut LaneConnection,
    jobs: &[Job],
) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    let (mut put, mut gone): (Vec<_>, Vec<WorkerId>) = (Vec::new(), Vec::new());
    for job in jobs {
        match &job.write.rows {
            Rows::Worker(WorkerChange::Put(row)) => put.push(&**row),
            Rows::Worker(WorkerChange::Gone(worker)) => gone.push(*worker),
            Rows::Create(_) | Rows::Finish(_) | Rows::Pause(_) => {}
        }
    }
    conn.workers(&put, &gone).await?;
    let of_job = |job: &Job| match job.write.rows {
        Rows::Worker(_) => vec![RowOutcome::Applied(None)],
        Rows::Create(_) | Rows::Finish(_) | Rows::Pause(_) => Vec::new(),
    };
    Ok(jobs.iter().map(of_job).collect())
}

pub(in crate::sched) async fn send_pauses(
    conn: &mut LaneConnection,
    jobs: &[Job],
) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        outcomes.push(match &job.write.rows {
            Rows::Pause(row) => {
                conn.pause(row).await?;
                vec![RowOutcome::Applied(None)]
            }
            Rows::Create(_) | Rows::Finish(_) | Rows::Worker(_) => Vec::new(),
        });
    }
    Ok(outcomes)
}

/// Times whose weeks the rows need.
pub(in crate::sched) fn times(jobs: &[Job], now: Timestamp) -> Vec<Timestamp> {
    let mut times = vec![now];
    for job in jobs {
        times.extend(job.write.rows.creates().iter().map(|row| match row {
            CreateRow::Run(row) => row.run.id.created_at(),
            CreateRow::Event(event) => event.id.created_at(),
        }));
        for row in job.write.rows.finishes() {
            times.push(row.run().created_at());
            if let FinishRow::End(row) = row {
                times.push(row.finished_at);
            }
        }
    }
    times
}

pub(in crate::sched) fn ids(jobs: &[Job]) -> (Vec<RunId>, Vec<EventId>) {
    let (mut runs, mut events) = (Vec::new(), Vec::new());
    for job in jobs {
        for row in job.write.rows.creates() {
            match row {
                CreateRow::Run(row) => runs.push(row.run.id),
                CreateRow::Event(event) => events.push(event.id),
            }
        }
        runs.extend(job.write.rows.finishes().iter().map(FinishRow::run));
    }
    (runs, events)
}

/// Nothing of the batch ended before this; partitions of the history before it need not be read.
pub(in crate::sched) fn earliest_end(jobs: &[Job], since: Timestamp) -> Timestamp {
    let ends = jobs.iter().flat_map(|job| job.write.rows.finishes()).filter_map(|row| match row {
        FinishRow::End(row) => Some(row.finished_at),
        FinishRow::Move(_) => None,
    });
    ends.min().unwrap_or(since).min(since)
}

/// What the rows say of a transition whose answer was lost.
pub(in crate::sched) fn trace(rows: &Rows, traces: &Traces) -> Vec<RowOutcome> {
    let applied = |yes: bool, otherwise| if yes { RowOutcome::Applied(None) } else { otherwise };
    match rows {
        Rows::Create(rows) => rows
            .iter()
            .map(|row| match row {
                CreateRow::Run(row) => applied(traces.has_run(row.run.id), RowOutcome::KeyTaken),
                CreateRow::Event(event) => applied(traces.has_event(event.id), RowOutcome::KeyTaken),
            })
            .collect(),
        Rows::Finish(rows) => rows
            .iter()
            .map(|row| match row {
                FinishRow::End(row) => applied(traces.has_end(row), RowOutcome::Missed),
                FinishRow::Move(row) => match traces.has_place(row) {
                    Some(body) => RowOutcome::Applied(body.filter(|_| row.want_body)),
                    None => RowOutcome::Missed,
                },
            })
            .collect(),
        // Writing a worker or a pause again changes nothing.
        Rows::Worker(_) | Rows::Pause(_) => vec![RowOutcome::Missed],
    }
}
