//! Rows and tables that somebody else has locked: the lane goes round them. What they hold up is set aside, and while
//! such locks last the lane waits for them only as long as costs nobody anything.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use helve_core::{CreateRow, FinishRow};
use tracing::warn;
use uuid::Uuid;

use super::{BatchDone, Job, LaneError, LaneWriter, PATIENCE, Taken};
use crate::db::lane::{INLINE, LOCK, LaneName};

/// How long a statement waits for a lock once one was in the way: others wait behind it.
const SHORT_LOCK: Duration = Duration::from_millis(20);
/// So long after the last one that was in the way.
const CALM: Duration = Duration::from_secs(5);

/// What a transition writes to besides `open_run`: somebody may have locked one of these tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Tables(u8);

impl Tables {
    const KEYS: u8 = 1;
    const EVENTS: u8 = 2;
    const PAYLOADS: u8 = 4;
    const HISTORY: u8 = 8;
    const TRANSITIONS: u8 = 16;

    fn of(job: &Job) -> Self {
        let when = |is: bool, table| if is { table } else { 0 };
        let created = job.write.rows.creates().iter().map(|row| match row {
            CreateRow::Run(row) => {
                let large = row.run.extra.event().is_none() && row.run.body.input.len() > INLINE;
                when(row.run.key.is_some(), Self::KEYS) | when(large, Self::PAYLOADS)
            }
            CreateRow::Event(event) => Self::EVENTS | when(event.create_key.is_some(), Self::KEYS),
        });
        let changed = job.write.rows.finishes().iter().map(|row| match row {
            FinishRow::Move(row) => when(row.reason.is_some(), Self::TRANSITIONS),
            FinishRow::End(row) => {
                let large = row.output.as_ref().is_some_and(|output| output.len() > INLINE);
                Self::HISTORY | when(row.reason.is_some(), Self::TRANSITIONS) | when(large, Self::PAYLOADS)
            }
        });
        Self(created.chain(changed).fold(0, |all, one| all | one))
    }
}

/// Somebody has locked the table of open runs: that is nobody's own fault.
struct TableLocked(Vec<Job>);

/// Open runs that a transition changes.
fn runs_of(job: &Job) -> impl Iterator<Item = Uuid> {
    job.write.rows.finishes().iter().map(|row| row.run().uuid())
}

/// What is known of locks that somebody else holds.
#[derive(Default)]
pub(super) struct Locks {
    /// Until when a statement waits only shortly.
    hurry: Option<Instant>,
    /// Sets of tables of which one is locked: what needs them waits until that went through again.
    in_the_way: HashSet<u8>,
}

impl Locks {
    /// A new connection waits as usual.
    pub fn opened(&mut self) {
        *self = Self::default();
    }

    /// These went through.
    pub fn are_free(&mut self, jobs: &[Job]) {
        if !self.in_the_way.is_empty() {
            for job in jobs {
                self.in_the_way.remove(&Tables::of(job).0);
            }
        }
    }
}

impl LaneWriter {
    /// From now on a statement waits only shortly for a lock.
    pub(super) async fn hurry(&mut self) {
        if self.locks.hurry.is_none() {
            self.wait_for_locks(SHORT_LOCK).await;
        }
        self.locks.hurry = Some(self.clock.instant() + CALM);
    }

    /// Before a batch: what needs a table that is locked is set aside at once; what is left goes. After a while without
    /// locks a statement waits as usual.
    pub(super) async fn go_or_wait(&mut self, jobs: Vec<Job>, done: &mut BatchDone) -> Vec<Job> {
        let Some(until) = self.locks.hurry else { return jobs };
        if self.clock.instant() >= until {
            self.locks = Locks::default();
            self.wait_for_locks(LOCK).await;
            return jobs;
        }
        if self.locks.in_the_way.is_empty() {
            return jobs;
        }
        let (stuck, goes): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| self.locks.in_the_way.contains(&Tables::of(job).0));
        done.aside.extend(stuck);
        goes
    }

    /// A batch was held up by a lock: first those of which somebody has locked the row are left out, then those that
    /// need a table which others do not. Gives back what cannot be decided now.
    pub(super) async fn go_round_locks(&mut self, jobs: Vec<Job>, done: &mut BatchDone) -> Result<Vec<Job>, Taken> {
        self.hurry().await;
        if jobs.len() == 1 {
            return self.run_singly(jobs, done).await;
        }
        let jobs = match self.leave_locked_rows(jobs, done).await {
            Ok(jobs) => jobs,
            Err(TableLocked(jobs)) => return Ok(jobs),
        };
        let mut groups: BTreeMap<Tables, Vec<Job>> = BTreeMap::new();
        for job in jobs {
            groups.entry(Tables::of(&job)).or_default().push(job);
        }
        let (mut stuck, mut landed) = (Vec::new(), false);
        while let Some((tables, group)) = groups.pop_first() {
            match self.attempt(&group, done).await {
                Ok(outcomes) => {
                    done.commit(group, outcomes);
                    self.measured().go_on(self.clock.now());
                    landed = true;
                }
                Err(LaneError::Fenced) => return Err(Taken),
                Err(LaneError::Aborted(refusal)) if refusal.is_locked() => stuck.push((tables, group)),
                // It is decided in the batch's own way, as is what has not been tried.
                Err(_) => {
                    let untried = groups.into_values().flatten();
                    return Ok(stuck.into_iter().flat_map(|(_, group)| group).chain(group).chain(untried).collect());
                }
            }
        }
        let mut left = Vec::new();
        for (tables, group) in stuck {
            let before = done.results.len();
            let rest = self.run_singly(group, done).await?;
            // As many as may be single ones' fault failed, and others go: it is what these need.
            if landed && tables != Tables::default() && !rest.is_empty() && done.results.len() == before {
                warn!(lane = self.name.as_str(), transitions = rest.len(), "a table is locked: they are set aside");
                self.locks.in_the_way.insert(tables.0);
                done.aside.extend(rest);
            } else {
                left.extend(rest);
            }
        }
        Ok(left)
    }

    /// Sets aside whose row somebody has locked, if those of others are not.
    async fn leave_locked_rows(&mut self, jobs: Vec<Job>, done: &mut BatchDone) -> Result<Vec<Job>, TableLocked> {
        let runs: Vec<_> = jobs.iter().flat_map(runs_of).collect();
        let Some(conn) = self.conn.as_mut().filter(|_| self.name == LaneName::Finish && !runs.is_empty()) else {
            return Ok(jobs);
        };
        let locked: HashSet<_> = match tokio::time::timeout(PATIENCE, conn.locked(runs)).await {
            Ok(Ok(locked)) => locked.into_iter().collect(),
            Ok(Err(LaneError::Aborted(refusal))) if refusal.is_locked() => return Err(TableLocked(jobs)),
            Ok(Err(_)) => return Ok(jobs),
            Err(_) => {
                self.conn = None;
                return Ok(jobs);
            }
        };
        let (stuck, goes): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| runs_of(job).any(|run| locked.contains(&run)));
        if goes.is_empty() {
            return Ok(stuck);
        }
        if !stuck.is_empty() {
            warn!(transitions = stuck.len(), "somebody has locked rows of runs: their transitions are set aside");
            done.aside.extend(stuck);
        }
        Ok(goes)
    }

    async fn wait_for_locks(&mut self, patience: Duration) {
        if let Some(conn) = self.conn.as_mut()
            && !matches!(tokio::time::timeout(PATIENCE, conn.wait_for_locks(patience)).await, Ok(Ok(())))
        {
            self.conn = None;
        }
    }
}
