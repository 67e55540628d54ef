//! Group commit: whatever arrived while the last commit ran becomes one statement. What a batch became is
//! known for certain before its lane goes on: committed, refused, set aside, or taken over.

mod locks;
mod rest;

use std::sync::Arc;
use std::time::Duration;

use helve_core::{Flight, RowOutcome, Write};
use helve_domain::clock::{Clock, Timestamp};
use helve_domain::id::NodeId;
use helve_postgres::Database;
use helve_supervisor::Supervisor;
use tracing::{error, info, warn};

use super::rows::{self, About, about};
use crate::cluster::Standing;
use crate::db::lane::{LaneConnection, LaneError, LaneName, Refusal};
use crate::db::{Pool, partitions};
use crate::failpoint::{self, Point};
use crate::metrics::{LaneMetrics, Metrics};
use locks::Locks;

/// How long a statement may go unanswered before its outcome counts as unknown.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest time from a row's id to its commit that is nothing unusual: it waits for a statement that hangs, and then its
/// own takes as long as a lane's `statement_timeout` allows. Who reads by the time of creation what was committed since
/// a time reaches back so far.
pub const LATEST_COMMIT: Duration = PATIENCE.saturating_add(STATEMENT);
/// The `statement_timeout` of a lane's connection.
const STATEMENT: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// So often a batch may be refused for one reason before its transitions go singly.
const REPEATS: u32 = 3;
/// So many transitions that fail alone, one after another and before any succeeds, are no longer single ones' fault.
const ALONE: usize = 3;

/// A transition in a batch, with the shard that it belongs to.
pub(in crate::sched) struct Job {
    pub shard: usize,
    pub write: Write,
}

/// What became of a transition.
pub(in crate::sched) enum Done {
    Committed(Vec<RowOutcome>),
    Rejected(String),
}

/// What became of a batch.
#[derive(Default)]
pub(in crate::sched) struct BatchDone {
    pub results: Vec<(usize, Flight, Done)>,
    /// Answers that were lost on the way.
    pub unknown: u64,
    /// Statements.
    pub statements: u64,
    /// Transitions that something of theirs alone holds up, a row that somebody has locked: the lane goes on without
    /// them, and they are tried again by themselves.
    pub aside: Vec<Job>,
    /// They had been set aside before.
    pub again: bool,
    /// Another process owns everything now.
    pub fenced: bool,
}

impl BatchDone {
    fn commit(&mut self, jobs: Vec<Job>, outcomes: Vec<Vec<RowOutcome>>) {
        let committed = jobs.into_iter().zip(outcomes);
        self.results.extend(committed.map(|(j, o)| (j.shard, j.write.flight, Done::Committed(o))));
    }

    /// No transition is dropped on the way: its run would wait for it for ever.
    fn accounts_for(&self, given: usize) {
        let decided = self.results.len() + self.aside.len();
        helve_domain::invariant!(self.fenced || decided == given, "G1 {decided} of {given} transitions came back");
    }
}

/// Another process has taken over.
struct Taken;

/// How often in a row a batch was refused for the same reason.
#[derive(Default)]
struct Repeats {
    last: Option<LaneError>,
    times: u32,
}

impl Repeats {
    /// Notes a refusal. True: it is here to stay.
    fn again(&mut self, failed: &LaneError) -> bool {
        let same = match (&self.last, failed) {
            (Some(LaneError::Aborted(last)), LaneError::Aborted(now)) => last.code == now.code,
            (Some(LaneError::NoWeek(_)), LaneError::NoWeek(_)) => true,
            _ => false,
        };
        self.times = if same { self.times + 1 } else { 1 };
        self.last = Some(failed.clone());
        self.times >= REPEATS
    }

    const fn is_first(&self) -> bool {
        self.times <= 1
    }
}

fn not_connected() -> LaneError {
    LaneError::Aborted(Refusal::unsent("not connected"))
}

/// One of the two writers.
pub(in crate::sched) struct LaneWriter {
    name: LaneName,
    database: Database,
    pool: Pool,
    supervisor: Supervisor,
    node: NodeId,
    clock: Clock,
    standing: Standing,
    key_lifetime: Duration,
    metrics: Arc<Metrics>,
    conn: Option<LaneConnection>,
    locks: Locks,
}

/// What a writer is made of.
pub(in crate::sched) struct WriterParts {
    pub database: Database,
    /// Makes weeks that are missing.
    pub pool: Pool,
    pub supervisor: Supervisor,
    pub node: NodeId,
    pub clock: Clock,
    pub standing: Standing,
    pub key_lifetime: Duration,
    pub metrics: Arc<Metrics>,
}

impl LaneWriter {
    pub fn new(name: LaneName, parts: WriterParts) -> Self {
        let WriterParts { database, pool, supervisor, node, clock, standing, key_lifetime, metrics } = parts;
        let (conn, locks) = (None, Locks::default());
        Self { name, database, pool, supervisor, node, clock, standing, key_lifetime, metrics, conn, locks }
    }

    /// Opens the connection, at the start: the lane's backend must be known before anything is written.
    pub async fn open(&mut self) -> Result<(), LaneError> {
        self.conn = Some(LaneConnection::open(&self.database, self.node, self.name).await?);
        self.locks.opened();
        Ok(())
    }

    /// Commits a batch. Returns only when it is certain what became of each transition; meanwhile the
    /// lane takes nothing else.
    pub async fn run(&mut self, jobs: Vec<Job>) -> BatchDone {
        let (begun, rows) = (self.clock.instant(), jobs.iter().map(|job| job.write.rows.len()).sum::<usize>());
        let given = jobs.len();
        self.measured().begin(self.clock.now());
        let done = self.commit(jobs).await;
        done.accounts_for(given);
        let metrics = self.measured();
        metrics.end(!done.results.is_empty());
        metrics.rows.record(u64::try_from(rows).unwrap_or(u64::MAX));
        metrics.busy.observe(self.clock.instant().duration_since(begun));
        metrics.unknown.add(done.unknown);
        done
    }

    /// Tries what was set aside once more: all of it, and when that fails the first of it alone.
    pub async fn run_aside(&mut self, jobs: Vec<Job>) -> BatchDone {
        let (mut done, given) = (BatchDone { again: true, ..BatchDone::default() }, jobs.len());
        self.hurry().await;
        let together = if jobs.len() > 1 { self.attempt(&jobs, &mut done).await } else { Err(not_connected()) };
        match together {
            Ok(outcomes) => {
                self.locks.are_free(&jobs);
                done.commit(jobs, outcomes);
            }
            Err(LaneError::Fenced) => done.fenced = true,
            Err(_) => {
                let mut others = jobs;
                let first: Vec<Job> = others.drain(..1).collect();
                match self.run_singly(first, &mut done).await {
                    Ok(left) => done.aside.extend(left),
                    Err(Taken) => done.fenced = true,
                }
                done.aside.extend(others);
            }
        }
        if !done.results.is_empty() {
            self.measured().end(true);
        }
        done.accounts_for(given);
        done
    }

    fn measured(&self) -> &LaneMetrics {
        match self.name {
            LaneName::Create => &self.metrics.create,
            LaneName::Finish => &self.metrics.finish,
        }
    }

    async fn commit(&mut self, jobs: Vec<Job>) -> BatchDone {
        let mut done = BatchDone::default();
        let jobs = self.go_or_wait(jobs, &mut done).await;
        let (mut rest, mut pause, mut repeats) = (jobs, FIRST_PAUSE, Repeats::default());
        while !rest.is_empty() {
            let failed = match self.attempt(&rest, &mut done).await {
                Ok(outcomes) => {
                    done.commit(rest, outcomes);
                    return done;
                }
                Err(failed) => failed,
            };
            let guilty_is_one = match &failed {
                LaneError::Fenced => {
                    done.fenced = true;
                    return done;
                }
                LaneError::Poison(_) => true,
                LaneError::NoWeek(why) => {
                    warn!(error = %why, lane = self.name.as_str(), "a week is missing and is made");
                    self.make_weeks(&rest).await;
                    repeats.again(&failed)
                }
                LaneError::Aborted(refusal) if refusal.is_locked() => {
                    match self.go_round_locks(rest, &mut done).await {
                        Ok(left) => rest = left,
                        Err(Taken) => {
                            done.fenced = true;
                            return done;
                        }
                    }
                    if !rest.is_empty() {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    continue;
                }
                LaneError::Aborted(refusal) => repeats.again(&failed) && refusal.may_be_of_one(),
                LaneError::Unknown(_) => false,
            };
            if guilty_is_one {
                self.hurry().await;
                match self.run_singly(rest, &mut done).await {
                    Ok(left) => rest = left,
                    Err(Taken) => {
                        done.fenced = true;
                        return done;
                    }
                }
                continue;
            }
            warn!(error = ?failed, lane = self.name.as_str(), "a batch was not written, trying again");
            let at_once = matches!(&failed, LaneError::Aborted(refusal) if refusal.is_conflict()) && repeats.is_first();
            if !at_once {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        done
    }

    /// One of the batch is guilty: each transition alone, in order. Gives back what cannot be decided now.
    async fn run_singly(&mut self, jobs: Vec<Job>, done: &mut BatchDone) -> Result<Vec<Job>, Taken> {
        let (mut jobs, mut failed, mut landed) = (jobs.into_iter(), 0, false);
        while failed < ALONE || landed {
            let Some(job) = jobs.next() else { return Ok(Vec::new()) };
            let one = [job];
            let mut outcome = self.attempt(&one, done).await;
            if matches!(outcome, Err(LaneError::NoWeek(_))) {
                // Another one may have been guilty when they went together: this one may still have its week made.
                self.make_weeks(&one).await;
                outcome = self.attempt(&one, done).await;
            }
            let [job] = one;
            failed += 1;
            match outcome {
                Ok(outcomes) => {
                    done.commit(vec![job], outcomes);
                    self.measured().go_on(self.clock.now());
                    landed = true;
                }
                Err(LaneError::Fenced) => return Err(Taken),
                Err(LaneError::Poison(why) | LaneError::NoWeek(why)) => self.reject(job, why, done),
                Err(LaneError::Aborted(refusal)) if refusal.may_be_of_one() => self.hold_up(job, refusal, done),
                Err(LaneError::Aborted(_) | LaneError::Unknown(_)) => {
                    return Ok([job].into_iter().chain(jobs).collect());
                }
            }
        }
        Ok(jobs.collect())
    }

    fn reject(&self, job: Job, why: String, done: &mut BatchDone) {
        error!(error = %why, lane = self.name.as_str(), "the database refuses a transition");
        done.results.push((job.shard, job.write.flight, Done::Rejected(why)));
    }

    /// This transition does not go through now, others do. Who wants something new is told so; what ends or moves a run
    /// must not be lost, and waits by itself.
    fn hold_up(&self, job: Job, refusal: Refusal, done: &mut BatchDone) {
        if self.name == LaneName::Create && !refusal.is_locked() {
            return self.reject(job, refusal.why, done);
        }
        warn!(error = %refusal.why, code = ?refusal.code, lane = self.name.as_str(), "a transition is set aside");
        done.aside.push(job);
    }

    /// Makes the weeks that the rows of a batch need.
    async fn make_weeks(&mut self, jobs: &[Job]) {
        let (pool, times) = (self.pool.clone(), rows::times(jobs, self.clock.now()));
        let make = async move { partitions::make_for(&pool, times).await };
        match tokio::time::timeout(PATIENCE, self.supervisor.shared(make)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!(error = %e, "a week could not be made"),
            Err(_) => warn!("a week could not be made in time"),
        }
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
        let Some(conn) = self.conn.as_mut() else { return Err(not_connected()) };
        let about = about(&jobs[0]);
        let (before, after) = match self.name {
            LaneName::Create => (Point::BeforeCreate, Point::AfterCreate),
            LaneName::Finish if about == About::Workers => (Point::BeforeWorkers, Point::AfterWorkers),
            LaneName::Finish => (Point::BeforeFinish, Point::AfterFinish),
        };
        failpoint::hit(before).await;
        let sent = match self.name {
            LaneName::Create => rows::send_creates(conn, jobs, now, self.key_lifetime).await,
            LaneName::Finish if about == About::Workers => rows::send_workers(conn, jobs).await,
            LaneName::Finish if about == About::Pause => rows::send_pauses(conn, jobs).await,
            LaneName::Finish => rows::send_finishes(conn, jobs, now).await,
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
                let Some(conn) = self.conn.as_mut() else { return Err(not_connected()) };
                let (runs, events) = rows::ids(jobs);
                conn.traces(&runs, &events, rows::earliest_end(jobs, since)).await
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
        let outcomes: Vec<Vec<RowOutcome>> = jobs.iter().map(|job| rows::trace(&job.write.rows, &traces)).collect();
        // One statement: if any of its rows is there, it was committed, and the others had missed.
        let committed = outcomes.iter().flatten().any(|o| matches!(o, RowOutcome::Applied(_)));
        info!(lane = self.name.as_str(), committed, "the batch with the lost answer is resolved");
        if committed { Ok(outcomes) } else { Err(LaneError::Unknown("it was not written".to_owned())) }
    }
}
