//! Transitions that something of theirs alone holds up, such as a row that somebody has locked: the lane goes on without
//! them, and tries them again by themselves.

use std::time::{Duration, Instant};

use helve_core::{Rows, WorkerChange};
use helve_domain::id::{TenantId, WorkerId};
use helve_domain::pause::Target;

use super::rows::{About, about};
use super::writer::Job;

/// How long they wait before the first try, and before each that follows one without success. A try takes up to 0.2 s of
/// the lane's time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// How many are tried together.
const TOGETHER: usize = 250;

/// What was set aside, in the order in which it came.
#[derive(Default)]
pub(in crate::sched) struct Aside {
    jobs: Vec<Job>,
    next: Option<Instant>,
    pause: Duration,
    /// Whose turn it is to be tried alone.
    turn: usize,
}

/// Something of which a later transition must not overtake an earlier one. Of a run there is one at a time anyway.
#[derive(PartialEq, Eq)]
enum Subject<'a> {
    Worker(WorkerId),
    Pause(TenantId, &'a Target),
}

fn subject(job: &Job) -> Option<Subject<'_>> {
    match &job.write.rows {
        Rows::Worker(WorkerChange::Put(row)) => Some(Subject::Worker(row.worker)),
        Rows::Worker(WorkerChange::Gone(worker)) => Some(Subject::Worker(*worker)),
        Rows::Pause(row) => Some(Subject::Pause(row.tenant, &row.target)),
        Rows::Create(_) | Rows::Finish(_) => None,
    }
}

impl Aside {
    pub const fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub const fn len(&self) -> usize {
        self.jobs.len()
    }

    /// When the next try is due.
    pub const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Takes out of a batch what must not overtake something that was set aside.
    pub fn keep_back(&mut self, batch: Vec<Job>) -> Vec<Job> {
        if self.jobs.iter().all(|job| subject(job).is_none()) {
            return batch;
        }
        let (back, goes): (Vec<Job>, Vec<Job>) = batch.into_iter().partition(|job| {
            subject(job).is_some_and(|of| self.jobs.iter().any(|earlier| subject(earlier).as_ref() == Some(&of)))
        });
        self.jobs.extend(back);
        goes
    }

    /// What is to be tried now: first what may be tried alone if together they fail.
    pub fn take(&mut self, now: Instant) -> Option<Vec<Job>> {
        self.next.filter(|at| *at <= now)?;
        self.next = None;
        let first_of_its_kind = |at: &usize| {
            let of = subject(&self.jobs[*at]);
            of.is_none() || !self.jobs[..*at].iter().any(|earlier| subject(earlier) == of)
        };
        let leads: Vec<usize> = (0..self.jobs.len()).filter(first_of_its_kind).collect();
        let at = *leads.get(self.turn % leads.len().max(1))?;
        self.turn = self.turn.wrapping_add(1);
        let kind = about(&self.jobs[at]);
        let goes_too = |other: usize| kind != About::Pause && about(&self.jobs[other]) == kind;
        let mut group = vec![at];
        group.extend(leads.into_iter().filter(|other| *other != at && goes_too(*other)).take(TOGETHER - 1));
        let mut left: Vec<Option<Job>> = std::mem::take(&mut self.jobs).into_iter().map(Some).collect();
        let taken = group.into_iter().filter_map(|at| left[at].take()).collect();
        self.jobs = left.into_iter().flatten().collect();
        Some(taken)
    }

    /// These are held up still, or again. `landed`: others went through.
    pub fn put(&mut self, jobs: Vec<Job>, landed: bool, now: Instant) {
        // They were the first of their kind.
        let later = std::mem::replace(&mut self.jobs, jobs);
        self.jobs.extend(later);
        if self.jobs.is_empty() {
            *self = Self { turn: self.turn, ..Self::default() };
        } else if self.next.is_none() {
            // Where one went through, the others may go as well.
            self.pause = if landed { Duration::ZERO } else { (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) };
            self.next = Some(now + self.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use helve_core::{FinishRow, Guard, MoveRow, Placement, Write};
    use helve_domain::clock::{Clock, Timestamp};

    use super::*;

    fn job(flight: u64, rows: Rows) -> Job {
        let tenant = TenantId::generate(Timestamp::from_micros(1));
        Job { shard: 0, write: Write { flight, tenant, rows } }
    }

    fn worker(n: i64) -> WorkerId {
        WorkerId::generate(Timestamp::from_micros(n * 1_000_000))
    }

    fn gone(worker: WorkerId) -> Rows {
        Rows::Worker(WorkerChange::Gone(worker))
    }

    fn run(n: i64) -> Rows {
        use helve_domain::status::RunStatus::Queued;
        let place =
            Placement { state: Queued, attempt: 0, retries: 0, due: None, worker: None, started_at: None, error: None };
        Rows::Finish(vec![FinishRow::Move(Box::new(MoveRow {
            run: helve_domain::id::RunId::generate(Timestamp::from_micros(n)),
            tenant: TenantId::generate(Timestamp::from_micros(1)),
            guard: Guard { state: Queued, attempt: 0, session: None },
            place,
            mark: helve_core::Mark::None,
            worker: None,
            want_body: false,
            reason: None,
        }))])
    }

    fn flights(jobs: &[Job]) -> Vec<u64> {
        jobs.iter().map(|job| job.write.flight).collect()
    }

    #[test]
    fn what_fails_again_waits_longer_and_each_has_its_turn() {
        let mut aside = Aside::default();
        let mut now = Clock::system().instant();
        aside.put(vec![job(1, run(1)), job(2, run(2)), job(3, run(3))], false, now);
        assert!(aside.take(now).is_none());
        let mut alone = Vec::new();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let at = aside.next().unwrap();
            pauses.push((at - now).as_secs());
            now = at;
            let tried = aside.take(now).unwrap();
            assert_eq!(tried.len(), 3);
            alone.push(tried[0].write.flight);
            aside.put(tried, false, now);
        }
        assert_eq!(pauses, [1, 2, 4, 4, 4, 4]);
        alone.sort_unstable();
        alone.dedup();
        assert_eq!(alone, [1, 2, 3]);
        now = aside.next().unwrap();
        let mut tried = aside.take(now).unwrap();
        tried.pop();
        aside.put(tried, true, now);
        assert_eq!((aside.next(), aside.len()), (Some(now), 2), "where one went through, the others are tried at once");
    }

    #[test]
    fn a_worker_that_leaves_does_not_overtake_its_own_hello() {
        let mut aside = Aside::default();
        let now = Clock::system().instant();
        let [one, other] = [1, 2].map(worker);
        aside.put(vec![job(1, gone(one))], false, now);
        let goes = aside.keep_back(vec![job(2, gone(one)), job(3, gone(other))]);
        assert_eq!(flights(&goes), [3]);
        // However often the first is tried, the second stays behind it.
        for _ in 0..3 {
            let tried = aside.take(aside.next().unwrap()).unwrap();
            assert_eq!(flights(&tried), [1]);
            aside.put(tried, false, now);
        }
        drop(aside.take(aside.next().unwrap()));
        aside.put(Vec::new(), true, now);
        assert_eq!(flights(&aside.take(aside.next().unwrap()).unwrap()), [2]);
        aside.put(Vec::new(), true, now);
        assert!(aside.is_empty() && aside.next().is_none());
    }
}
