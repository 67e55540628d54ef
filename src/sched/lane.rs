//! Group commit: whatever arrived while the last commit ran becomes one statement. What a batch became is
//! known for certain before its lane goes on: committed, refused, or taken over.

mod rest;

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::config::Database;
use crate::db::lane::{CreateRows, FinishRows, LaneConnection, LaneError, LaneName};
use crate::failpoint::{self, Point};
use crate::id::{EventId, NodeId, RunId, WorkerId};
use crate::metrics::{LaneMetrics, Metrics};

use super::core::{Flight, Row, RowOutcome, Write};
use super::lease::Standing;

/// How long a statement may go unanswered before its outcome counts as unknown.
const PATIENCE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A transition in a batch, with the shard that it belongs to.
pub(super) struct Job {
    pub shard: usize,
    pub write: Write,
}

/// What became of a transition.
pub(super) enum Done {
    Committed(Vec<RowOutcome>),
    Rejected(String),
}

/// What became of a batch.
pub(super) struct BatchDone {
    pub results: Vec<(usize, Flight, Done)>,
    /// Answers that were lost on the way.
    pub unknown: u64,
    /// Statements.
    pub statements: u64,
    /// Another process owns everything now.
    pub fenced: bool,
}

/// One of the two writers.
pub(super) struct LaneWriter {
    name: LaneName,
    database: Database,
    node: NodeId,
    clock: Clock,
    standing: Standing,
    key_lifetime: Duration,
    metrics: Arc<Metrics>,
    conn: Option<LaneConnection>,
}

impl LaneWriter {
    pub fn new(
        name: LaneName,
        database: Database,
        node: NodeId,
        clock: Clock,
        standing: Standing,
        key_lifetime: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { name, database, node, clock, standing, key_lifetime, metrics, conn: None }
    }

    /// Opens the connection, at the start: the lane's backend must be known before anything is written.
    pub async fn open(&mut self) -> Result<(), LaneError> {
        self.conn = Some(LaneConnection::open(&self.database, self.node, self.name).await?);
        Ok(())
    }

    /// Commits a batch. Returns only when it is certain what became of each transition; meanwhile the
    /// lane takes nothing else.
    pub async fn run(&mut self, jobs: Vec<Job>) -> BatchDone {
        let (begun, rows) = (self.clock.instant(), jobs.iter().map(|job| job.write.rows.len()).sum::<usize>());
        let done = self.commit(jobs).await;
        let metrics = self.measured();
        metrics.rows.record(u64::try_from(rows).unwrap_or(u64::MAX));
        metrics.busy.observe(self.clock.instant().duration_since(begun));
        metrics.unknown.add(done.unknown);
        done
    }

    fn measured(&self) -> &LaneMetrics {
        match self.name {
            LaneName::Create => &self.metrics.create,
            LaneName::Finish => &self.metrics.finish,
        }
    }

    async fn commit(&mut self, jobs: Vec<Job>) -> BatchDone {
        let mut done = BatchDone { results: Vec::with_capacity(jobs.len()), unknown: 0, statements: 0, fenced: false };
        let mut rest = jobs;
        let mut pause = FIRST_PAUSE;
        while !rest.is_empty() {
            match self.attempt(&rest, &mut done).await {
                Ok(outcomes) => {
                    let committed = rest.into_iter().zip(outcomes);
                    done.results.extend(committed.map(|(j, o)| (j.shard, j.write.flight, Done::Committed(o))));
                    return done;
                }
                Err(LaneError::Fenced) => {
                    done.fenced = true;
                    return done;
                }
                Err(LaneError::Poison(why)) if rest.len() == 1 => {
                    error!(error = %why, lane = self.name.as_str(), "the database refuses a transition");
                    done.results.extend(rest.drain(..).map(|j| (j.shard, j.write.flight, Done::Rejected(why.clone()))));
                }
                Err(LaneError::Poison(_)) => {
                    if self.run_singly(&mut rest, &mut done).await.is_err() {
                        done.fenced = true;
                        return done;
                    }
                }
                Err(LaneError::Aborted(why) | LaneError::Unknown(why)) => {
                    warn!(error = %why, lane = self.name.as_str(), "a batch was not written, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        done
    }

    /// One of the batch is poisoned: each transition alone, in order, since later ones build on earlier
    /// ones. What cannot be decided now stays in `rest`.
    async fn run_singly(&mut self, rest: &mut Vec<Job>, done: &mut BatchDone) -> Result<(), ()> {
        let mut jobs = std::mem::take(rest).into_iter();
        while let Some(job) = jobs.next() {
            let one = [job];
            let outcome = self.attempt(&one, done).await;
            let [job] = one;
            match outcome {
                Ok(mut outcomes) => {
                    let outcome = outcomes.pop().unwrap_or_default();
                    done.results.push((job.shard, job.write.flight, Done::Committed(outcome)));
                }
                Err(LaneError::Poison(why)) => {
                    error!(error = %why, lane = self.name.as_str(), "the database refuses a transition");
                    done.results.push((job.shard, job.write.flight, Done::Rejected(why)));
                }
                Err(LaneError::Fenced) => return Err(()),
                Err(LaneError::Aborted(_) | LaneError::Unknown(_)) => {
                    rest.push(job);
                    rest.extend(jobs);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends a batch once. A lost answer is resolved before this returns: `Unknown` never leaves it, except
    /// that nothing of the batch was written.
    async fn attempt(&mut self, jobs: &[Job], done: &mut BatchDone) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
        self.standing.wait().await;
        let since = self.clock.now();
        if self.conn.is_none() {
            self.open().await?;
        }
        done.statements += 1;
        let sent = tokio::time::timeout(PATIENCE, self.send(jobs)).await;
        match sent.unwrap_or_else(|_| Err(LaneError::Unknown(format!("no answer within {} s", PATIENCE.as_secs())))) {
            Err(LaneError::Unknown(why)) => {
                done.unknown += 1;
                warn!(error = %why, lane = self.name.as_str(), "the answer to a batch is lost");
                self.resolve(jobs, since).await
            }
            other => other,
        }
    }

    async fn send(&mut self, jobs: &[Job]) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
        let now = self.clock.now();
        let Some(conn) = self.conn.as_mut() else { return Err(LaneError::Aborted("not connected".to_owned())) };
        let about = about(&jobs[0]);
        let (before, after) = match self.name {
            LaneName::Create => (Point::BeforeCreate, Point::AfterCreate),
            LaneName::Finish if about == About::Workers => (Point::BeforeWorkers, Point::AfterWorkers),
            LaneName::Finish => (Point::BeforeFinish, Point::AfterFinish),
        };
        failpoint::hit(before).await;
        let sent = match self.name {
            LaneName::Create => send_creates(conn, jobs, now, self.key_lifetime).await,
            LaneName::Finish if about == About::Workers => send_workers(conn, jobs).await,
            LaneName::Finish if about == About::Pause => send_pauses(conn, jobs).await,
            LaneName::Finish => send_finishes(conn, jobs, now).await,
        };
        if sent.is_ok() && failpoint::loses_answer(after).await {
            return Err(LaneError::Unknown("a failpoint".to_owned()));
        }
        sent
    }

    /// The answer is lost. A new connection first makes sure that nothing of the batch can be written any
    /// more; then the rows tell what was.
    async fn resolve(&mut self, jobs: &[Job], since: Timestamp) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
        let mut pause = FIRST_PAUSE;
        let traces = loop {
            failpoint::hit(Point::BeforeReadback).await;
            self.conn = None;
            self.standing.wait().await;
            let read = async {
                self.open().await?;
                let Some(conn) = self.conn.as_mut() else { return Err(LaneError::Aborted("not connected".to_owned())) };
                let (runs, events) = ids(jobs);
                conn.traces(&runs, &events, earliest_end(jobs, since)).await
            };
            match tokio::time::timeout(PATIENCE, read).await {
                Ok(Ok(traces)) => break traces,
                Ok(Err(LaneError::Fenced)) => return Err(LaneError::Fenced),
                Ok(Err(e)) => warn!(error = ?e, lane = self.name.as_str(), "cannot resolve a batch yet"),
                Err(_) => warn!(lane = self.name.as_str(), "cannot resolve a batch yet: no answer"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        failpoint::hit(Point::AfterReadback).await;
        let outcomes: Vec<Vec<RowOutcome>> = jobs.iter().map(|job| trace(&job.write.rows, &traces)).collect();
        // One statement: if any of its rows is there, it was committed, and the others had missed.
        let committed = outcomes.iter().flatten().any(|o| matches!(o, RowOutcome::Applied(_)));
        info!(lane = self.name.as_str(), committed, "the batch with the lost answer is resolved");
        if committed { Ok(outcomes) } else { Err(LaneError::Unknown("it was not written".to_owned())) }
    }
}

/// What a transition is about: runs, or something that has a statement of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Runs,
    Workers,
    /// One at a time: they are rare.
    Pause,
}

pub(super) fn about(job: &Job) -> About {
    match job.write.rows.first() {
        Some(Row::PutWorker(_) | Row::DropWorker(_)) => About::Workers,
        Some(Row::Pause(_)) => About::Pause,
        Some(Row::Insert(_) | Row::InsertEvent(_) | Row::Move(_) | Row::End(_)) | None => About::Runs,
    }
}

async fn send_creates(
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
    let outcome = |row: &Row| if won.admits(gate(row)) { RowOutcome::Applied(None) } else { RowOutcome::KeyTaken };
    Ok(jobs.iter().map(|j| j.write.rows.iter().map(outcome).collect()).collect())
}

fn gate(row: &Row) -> Option<Uuid> {
    match row {
        Row::Insert(row) => row.gate,
        Row::InsertEvent(event) => event.create_key.as_ref().map(|_| event.id.uuid()),
        Row::Move(_) | Row::End(_) | Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => None,
    }
}

async fn send_finishes(
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
                return RowOutcome::Missed;
            }
        };
        found.take(run).map_or(RowOutcome::Missed, RowOutcome::Applied)
    };
    Ok(jobs.iter().map(|j| j.write.rows.iter().map(&mut outcome).collect()).collect())
}

async fn send_workers(conn: &mut LaneConnection, jobs: &[Job]) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    let (mut put, mut gone): (Vec<_>, Vec<WorkerId>) = (Vec::new(), Vec::new());
    for row in jobs.iter().flat_map(|j| &j.write.rows) {
        match row {
            Row::PutWorker(row) => put.push(&**row),
            Row::DropWorker(worker) => gone.push(*worker),
            Row::Insert(_) | Row::InsertEvent(_) | Row::Move(_) | Row::End(_) | Row::Pause(_) => {}
        }
    }
    conn.workers(&put, &gone).await?;
    Ok(jobs.iter().map(|j| vec![RowOutcome::Applied(None); j.write.rows.len()]).collect())
}

async fn send_pauses(conn: &mut LaneConnection, jobs: &[Job]) -> Result<Vec<Vec<RowOutcome>>, LaneError> {
    for row in jobs.iter().flat_map(|j| &j.write.rows) {
        if let Row::Pause(row) = row {
            conn.pause(row).await?;
        }
    }
    Ok(jobs.iter().map(|j| vec![RowOutcome::Applied(None); j.write.rows.len()]).collect())
}

fn ids(jobs: &[Job]) -> (Vec<RunId>, Vec<EventId>) {
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
fn earliest_end(jobs: &[Job], since: Timestamp) -> Timestamp {
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
fn trace(rows: &[Row], traces: &crate::db::lane::Traces) -> Vec<RowOutcome> {
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
