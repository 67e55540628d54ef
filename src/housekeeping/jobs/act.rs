//! What a job does to its runs, through the scheduler as everybody else.

use futures_util::{StreamExt, stream};
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::RunId;
use helve_domain::job::{ItemOutcome, JobKind};
use sha2::{Digest, Sha256};

use super::replay;
use crate::db;
use crate::db::Pool;
use crate::db::jobs::{Item, Job};
use crate::ops::definitions::Definitions;
use crate::sched::{Created, Idempotency, NewRun, Scheduler};

/// Runs that are cancelled, or read to be replayed, at once: a share of a batch, so that others have room in it.
const AT_ONCE: usize = 16;

pub(super) struct Actor {
    pub pool: Pool,
    pub scheduler: Scheduler,
    pub definitions: Definitions,
}

impl Actor {
    /// Does to the runs what the job is for. What must be tried again is not among the outcomes. It may have been
    /// done already by an engine that died: doing it again changes nothing.
    pub async fn act(&self, job: &Job, runs: &[RunId]) -> Vec<Item> {
        match job.kind {
            JobKind::Cancel => self.cancel(job, runs).await,
            JobKind::Replay => {
                let mut items = Vec::with_capacity(runs.len());
                // Inputs may be large: only some are in memory at once.
                for some in runs.chunks(AT_ONCE) {
                    items.extend(self.replay(job, some).await);
                }
                items
            }
        }
    }

    async fn cancel(&self, job: &Job, runs: &[RunId]) -> Vec<Item> {
        let cancelled = stream::iter(runs.iter().copied())
            .map(|run| async move { item(run, self.scheduler.cancel(job.tenant, run).await.map(|()| None)) });
        cancelled.buffered(AT_ONCE).filter_map(std::future::ready).collect().await
    }

    async fn replay(&self, job: &Job, runs: &[RunId]) -> Vec<Item> {
        let read = stream::iter(runs.iter().copied()).map(|run| self.read(job, run)).buffered(4);
        let read: Vec<Result<NewRun>> = read.collect().await;
        let (mut items, mut ready, mut new) = (Vec::with_capacity(runs.len()), Vec::new(), Vec::new());
        for (run, read) in runs.iter().copied().zip(read) {
            match read {
                Ok(run_again) => {
                    ready.push(run);
                    new.push(run_again);
                }
                Err(e) => items.extend(item(run, Err(e))),
            }
        }
        if new.is_empty() {
            return items;
        }
        // Without an answer nothing is known of any of them: they come again, with the same keys.
        let Ok(created) = self.scheduler.create_many(new, None).await else { return items };
        for (run, created) in ready.into_iter().zip(created) {
            let made = created.map(|created| match created {
                Created::New { run, .. } => Some(run.id),
                Created::Existing(id) => Some(id),
            });
            items.extend(item(run, made));
        }
        items
    }

    async fn read(&self, job: &Job, id: RunId) -> Result<NewRun> {
        let run = db::runs::get(&self.pool, job.tenant, id).await?.ok_or_else(|| Error::not_found("run", id))?;
        // No client's key has a space: this one belongs to the job and the run alone.
        let key = format!("{} {id}", job.id);
        let idempotency = Idempotency { body_hash: Sha256::digest(&key).into(), key };
        replay::of(run, job.request.version, Some(idempotency), None, &self.definitions).await
    }
}

/// The outcome of one run; `None` when it must be tried again.
fn item(run: RunId, result: Result<Option<RunId>>) -> Option<Item> {
    let (outcome, replay, error) = match result {
        Ok(replay) => (ItemOutcome::Done, replay, None),
        Err(Error::Unavailable { .. } | Error::OutcomeUnknown | Error::Limited { .. }) => return None,
        Err(e) => {
            let gone = matches!(e.code(), Code::AlreadyFinished | Code::NotFound);
            let outcome = if gone { ItemOutcome::Skipped } else { ItemOutcome::Failed };
            (outcome, None, Some((e.code().as_str().to_owned(), e.client_text())))
        }
    };
    Some(Item { run, outcome: Some(outcome), replay, error })
}
