//! The scheduler's reads, one after another on a connection of their own, tried again until they succeed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use helve_core::{Command, Found, OpenRow, QueueKey, Ticket};
use helve_domain::backoff::Backoff;
use helve_domain::change::{CreateKey, WorkerRow};
use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::RunId;
use helve_domain::labels::Requirements;
use helve_domain::pause::Paused;
use helve_domain::stored::{Stored, StoredRun};
use helve_domain::trace::Sampler;
use helve_postgres::Database;
use tracing::{error, warn};

use super::shards::Tenure;
use crate::db::scan::Reader;
use crate::ops::definitions::Definitions;

/// Rows of one shard that one read of timers brings.
const TIMERS: usize = 10_000;
/// Runs that one read by id brings.
const RUNS: usize = 1_000;

/// How long it waits after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Something to read.
pub(in crate::sched) enum ReadJob {
    Queue {
        of: Tenure,
        key: QueueKey,
        from: Option<(i64, RunId)>,
        limit: usize,
        /// Workflows that are left out.
        apart: Vec<Arc<str>>,
    },
    Timers {
        of: Vec<Tenure>,
        until: Timestamp,
    },
    Key {
        key: CreateKey,
        ticket: Ticket,
    },
    /// What a former owner left of these shards.
    LeftBehind {
        shards: Vec<usize>,
    },
}

/// What was read.
pub(in crate::sched) enum ReadDone {
    /// Commands for shards.
    Commands(Vec<(Tenure, Command)>),
    /// Timers of every shard.
    Timers(Vec<(Tenure, Command)>),
    /// What a former owner left, in the order in which it is to be taken up.
    LeftBehind(Vec<(usize, Vec<Command>)>),
    /// Who holds a create key: its target, if the body is the same.
    Key { ticket: Ticket, holder: Option<(uuid::Uuid, bool)> },
}

/// Reads that wait.
#[derive(Default)]
pub(in crate::sched) struct ReadQueue {
    jobs: VecDeque<ReadJob>,
    runs: Vec<(Tenure, RunId)>,
}

/// What one turn reads.
pub(in crate::sched) enum Reading {
    One(ReadJob),
    Runs(Vec<(Tenure, RunId)>),
}

impl ReadQueue {
    pub fn push(&mut self, job: ReadJob) {
        self.jobs.push_back(job);
    }

    /// Single runs are read together.
    pub fn push_run(&mut self, of: Tenure, run: RunId) {
        self.runs.push((of, run));
    }

    pub fn next(&mut self) -> Option<Reading> {
        if !self.runs.is_empty() {
            let n = self.runs.len().min(RUNS);
            return Some(Reading::Runs(self.runs.drain(..n).collect()));
        }
        self.jobs.pop_front().map(Reading::One)
    }
}

/// Reads for the owner.
pub(in crate::sched) struct Reads {
    database: Database,
    definitions: Definitions,
    /// Whose trace is recorded.
    sampler: Option<Sampler>,
    reader: Option<Reader>,
}

impl Reads {
    pub const fn new(database: Database, definitions: Definitions, sampler: Option<Sampler>) -> Self {
        Self { database, definitions, sampler, reader: None }
    }

    /// Reads, again and again until it succeeds: whoever waits has a limit of their own.
    pub async fn run(&mut self, what: &Reading) -> ReadDone {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match tokio::time::timeout(Duration::from_secs(20), self.read(what)).await {
                Ok(Ok(done)) => return done,
                Ok(Err(e)) => warn!(error = %e, "the scheduler could not read, trying again"),
                Err(_) => warn!("the scheduler's read got no answer, trying again"),
            }
            self.reader = None;
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn reader(&mut self) -> Result<&mut Reader> {
        match &mut self.reader {
            Some(reader) => Ok(reader),
            empty => Ok(empty.insert(Reader::open(&self.database).await?)),
        }
    }

    async fn read(&mut self, what: &Reading) -> Result<ReadDone> {
        match what {
            Reading::Runs(runs) => self.runs(runs).await.map(ReadDone::Commands),
            Reading::One(ReadJob::Queue { of, key, from, limit, apart }) => {
                let rows = self
                    .reader()
                    .await?
                    .queue(key.tenant, (&key.action, key.part.as_deref(), apart), *from, *limit)
                    .await?;
                let all = rows.len() < *limit;
                let rows = self.open_rows(rows).await?;
                Ok(ReadDone::Commands(vec![(*of, Command::QueueLoaded(key.clone(), rows, all))]))
            }
            Reading::One(ReadJob::Timers { of, until }) => self.timers(of, *until).await,
            Reading::One(ReadJob::LeftBehind { shards }) => self.left_behind(shards).await.map(ReadDone::LeftBehind),
            Reading::One(ReadJob::Key { key, ticket }) => {
                let holder = self.reader().await?.key(key).await?;
                let holder = holder.map(|(target, hash)| (target, hash == key.body_hash));
                Ok(ReadDone::Key { ticket: *ticket, holder })
            }
        }
    }

    async fn runs(&mut self, runs: &[(Tenure, RunId)]) -> Result<Vec<(Tenure, Command)>> {
        let ids: Vec<RunId> = runs.iter().map(|r| r.1).collect();
        let mut found = self.reader().await?.runs(&ids).await?;
        let mut commands = Vec::with_capacity(runs.len());
        for (of, run) in runs {
            let found = match found.remove(run) {
                Some(Stored::Open(row)) => match self.open_rows(vec![row]).await?.pop() {
                    Some(row) => Found::Open(Box::new(row)),
                    None => Found::Nothing,
                },
                Some(Stored::Ended(ended)) => Found::Ended(ended),
                None => Found::Nothing,
            };
            commands.push((*of, Command::RunsLoaded(vec![(*run, found)])));
        }
        Ok(commands)
    }

    async fn timers(&mut self, of: &[Tenure], until: Timestamp) -> Result<ReadDone> {
        let shards = numbers(of.iter().map(|tenure| tenure.shard));
        let rows = self.reader().await?.timers(&shards, until, TIMERS).await?;
        let rows = self.open_rows(rows).await?;
        let mut of_shard: HashMap<usize, Vec<OpenRow>> = HashMap::new();
        for row in rows {
            of_shard.entry(shard_of(&row)).or_default().push(row);
        }
        let commands = of.iter().map(|tenure| {
            let rows = of_shard.remove(&tenure.shard).unwrap_or_default();
            let all = rows.len() < TIMERS;
            (*tenure, Command::TimersLoaded(rows, until, all))
        });
        Ok(ReadDone::Timers(commands.collect()))
    }

    /// What a former owner left: workers and held runs of each shard.
    async fn left_behind(&mut self, shards: &[usize]) -> Result<Vec<(usize, Vec<Command>)>> {
        let ids = numbers(shards.iter().copied());
        let workers = self.reader().await?.workers(&ids).await?;
        let held = self.reader().await?.held(&ids).await?;
        let held = self.open_rows(held).await?;
        let mut of_shard: HashMap<usize, (Vec<WorkerRow>, Vec<OpenRow>)> = HashMap::new();
        for row in workers {
            let shard = usize::try_from(row.tenant.shard()).unwrap_or(0);
            of_shard.entry(shard).or_default().0.push(row);
        }
        for row in held {
            of_shard.entry(shard_of(&row)).or_default().1.push(row);
        }
        let mut paused = self.pauses(&ids).await?;
        let left = |shard: &usize| {
            let (workers, held) = of_shard.remove(shard).unwrap_or_default();
            let paused = paused.remove(shard).map(Command::PausesFound);
            (*shard, paused.into_iter().chain([Command::Recovered(workers, held)]).collect())
        };
        Ok(shards.iter().map(left).collect())
    }

    /// What is paused; it comes before everything else, so that nothing is assigned against it.
    async fn pauses(&mut self, shards: &[i16]) -> Result<HashMap<usize, Vec<Paused>>> {
        let mut of_shard: HashMap<usize, Vec<Paused>> = HashMap::new();
        for paused in self.reader().await?.pauses(shards).await? {
            let shard = usize::try_from(paused.tenant.shard()).unwrap_or(0);
            of_shard.entry(shard).or_default().push(paused);
        }
        Ok(of_shard)
    }

    /// Rows with their compiled definitions. Versions are never deleted, so a missing one is a defect of the
    /// rows: its run is left alone and a human is told.
    async fn open_rows(&self, rows: Vec<StoredRun>) -> Result<Vec<OpenRow>> {
        let mut open = Vec::with_capacity(rows.len());
        for row in rows {
            let run = row.facts.run;
            let spec = match self.definitions.version(row.facts.tenant, &row.workflow, row.version).await {
                Ok(spec) => spec,
                Err(Error::NotFound { code: Code::WorkflowNotFound, .. }) => {
                    error!(run = %run, workflow = row.workflow, version = row.version, "a run's version is missing");
                    continue;
                }
                Err(e) => return Err(e),
            };
            let spec = match row.labels.as_deref().map(Requirements::stored) {
                None => spec,
                Some(Ok(labels)) => Arc::new(Spec { labels, ..(*spec).clone() }),
                Some(Err(e)) => {
                    error!(run = %run, error = %e, "a run is left alone");
                    continue;
                }
            };
            let trace = self.sampler.and_then(|sampler| sampler.trace_of(run, row.traceparent.as_deref()));
            let mut facts = row.facts;
            facts.extra = facts.extra.traced(trace);
            open.push(OpenRow { facts, spec });
        }
        Ok(open)
    }
}

fn numbers(shards: impl Iterator<Item = usize>) -> Vec<i16> {
    shards.filter_map(|shard| i16::try_from(shard).ok()).collect()
}

fn shard_of(row: &OpenRow) -> usize {
    usize::try_from(row.tenant.shard()).unwrap_or(0)
}
