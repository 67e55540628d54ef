//! What waits for a lane: fair over tenants, bounded in rows and bytes.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use helve_core::{CreateRow, FinishRow, Rows, WorkerChange};
use helve_domain::id::TenantId;

use super::rows::{About, about};
use super::writer::Job;

/// Rows of one statement: past this a batch only adds latency.
const MAX_ROWS: usize = 250;
/// Payload bytes of one statement.
const MAX_BYTES: usize = 1 << 20;
/// Rows that bulk requests may fill while single ones wait, or did lately.
const MAX_BULK_ROWS: usize = 16;

/// Rows of bulk requests that one tenant has waiting at most, and a piece more: enough for the next batch. All others
/// wait undecided, where they are small.
const BULK_AHEAD: usize = 256;
/// For so long after a single row bulk requests are held back: the next single one must find neither a full batch
/// underway nor a machine that works for others alone.
const LATELY: Duration = Duration::from_secs(1);
/// How long bulk rests then, in times of its last batch: it keeps a fifth of the lane's time.
const REST: u32 = 4;

/// Rows that timers may fill while single ones wait, or did lately.
const MAX_DUE_ROWS: usize = 64;
/// Transitions of timers that wait at most, and a piece more. The others stay with their timers.
const DUE_AHEAD: usize = 256;

/// Where a transition comes from: whose turn it is follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::sched) enum Class {
    /// Something single: a trigger, a result, a cancel.
    Single,
    /// An item of a bulk request.
    Bulk,
    /// A timer: thousands may be due at one instant.
    Due,
}

/// Who takes turns: each class of the work of each tenant.
type Source = (TenantId, Class);

/// Transitions that wait for their lane, round robin over tenants.
#[derive(Default)]
pub(in crate::sched) struct Waiting {
    queues: HashMap<Source, VecDeque<Job>>,
    turns: VecDeque<Source>,
    /// Transitions of each class.
    counts: [usize; 3],
    /// When a single row was last taken.
    single_at: Option<Instant>,
    /// Since when a batch with bulk rows is underway.
    bulk_since: Option<Instant>,
    /// While bulk is held back: its next rows are not taken before.
    bulk_from: Option<Instant>,
}

impl Waiting {
    /// Whether more of a tenant's bulk requests should be decided.
    pub fn has_room(&self, tenant: TenantId) -> bool {
        self.queues.get(&(tenant, Class::Bulk)).is_none_or(|q| q.len() < BULK_AHEAD)
    }

    /// Whether more timers should fire.
    pub const fn has_room_for_due(&self) -> bool {
        self.of(Class::Due) < DUE_AHEAD
    }

    pub fn push(&mut self, job: Job, class: Class) {
        // Of a worker or a pause a later transition must not overtake an earlier one: they have one queue.
        let class = if about(&job) == About::Runs { class } else { Class::Single };
        let source = (job.write.tenant, class);
        let queue = self.queues.entry(source).or_default();
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back(job);
        self.counts[class as usize] += 1;
    }

    const fn of(&self, class: Class) -> usize {
        self.counts[class as usize]
    }

    /// Transitions that wait.
    pub fn len(&self) -> usize {
        self.counts.iter().sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long nothing is taken although something waits: bulk requests that leave others their time.
    pub fn rests(&self, now: Instant) -> Option<Duration> {
        let only_bulk = self.of(Class::Bulk) > 0 && self.of(Class::Bulk) == self.len();
        let until = self.bulk_from.filter(|_| only_bulk && self.is_short(now))?;
        Some(until.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
    }

    /// The batch that was taken last is written. Beside single rows bulk rests after each of its batches, so that most
    /// of the lane's time is left to others, and the machine is not full of it.
    pub fn landed(&mut self, now: Instant) {
        if let Some(since) = self.bulk_since.take() {
            self.bulk_from = Some(now + now.saturating_duration_since(since) * REST);
        }
    }

    fn is_short(&self, now: Instant) -> bool {
        self.single_at.is_some_and(|at| now.saturating_duration_since(at) < LATELY)
    }

    /// Rows of a class that a batch may have.
    const fn most(class: Class, short: bool) -> usize {
        match class {
            Class::Bulk if short => MAX_BULK_ROWS,
            Class::Due if short => MAX_DUE_ROWS,
            Class::Single | Class::Bulk | Class::Due => MAX_ROWS,
        }
    }

    /// The next batch: whole transitions in turn, until a bound. A larger one goes alone. Transitions about
    /// workers have a statement of their own, and never two of one worker in it.
    pub fn next_batch(&mut self, now: Instant) -> Vec<Job> {
        let (mut batch, mut rows, mut bytes, mut rows_of) = (Vec::new(), 0, 0, [0_usize; 3]);
        if self.of(Class::Single) > 0 {
            self.single_at = Some(now);
        }
        let short = self.is_short(now);
        let rests = short && self.bulk_from.is_some_and(|from| now < from);
        let mut passed = 0;
        while passed < self.turns.len() {
            let Some(source) = self.turns.pop_front() else { break };
            let Some(head) = self.queues.get(&source).and_then(VecDeque::front) else { continue };
            let (more_rows, more_bytes) = (head.write.rows.len(), size(&head.write.rows));
            let goes_too = || {
                rows + more_rows <= MAX_ROWS
                    && bytes + more_bytes <= MAX_BYTES
                    && rows_of[source.1 as usize] + more_rows <= Self::most(source.1, short)
                    && goes_with(&batch, head)
            };
            let fits = !(source.1 == Class::Bulk && rests) && (batch.is_empty() || goes_too());
            if !fits {
                self.turns.push_back(source);
                passed += 1;
                continue;
            }
            passed = 0;
            rows += more_rows;
            bytes += more_bytes;
            rows_of[source.1 as usize] += more_rows;
            if let Some(job) = self.take(source) {
                batch.push(job);
            }
            if rows >= MAX_ROWS {
                break;
            }
        }
        self.bulk_since = (rows_of[Class::Bulk as usize] > 0).then_some(now);
        batch
    }

    fn take(&mut self, source: Source) -> Option<Job> {
        let queue = self.queues.get_mut(&source)?;
        let job = queue.pop_front()?;
        self.counts[source.1 as usize] -= 1;
        if queue.is_empty() {
            self.queues.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        Some(job)
    }
}

fn goes_with(batch: &[Job], job: &Job) -> bool {
    let Some(first) = batch.first() else { return true };
    if about(first) != about(job) {
        return false;
    }
    about(job) == About::Runs || !batch.iter().any(|b| worker(b) == worker(job))
}

fn worker(job: &Job) -> Option<helve_domain::id::WorkerId> {
    match &job.write.rows {
        Rows::Worker(WorkerChange::Put(row)) => Some(row.worker),
        Rows::Worker(WorkerChange::Gone(worker)) => Some(*worker),
        Rows::Create(_) | Rows::Finish(_) | Rows::Pause(_) => None,
    }
}

/// Payload bytes of a transition.
fn size(rows: &Rows) -> usize {
    let of_body = |body: &helve_core::Body| body.input.len() + body.metadata.len();
    let created = rows.creates().iter().map(|row| match row {
        CreateRow::Run(row) => of_body(&row.run.body),
        CreateRow::Event(event) => of_body(&event.body),
    });
    let changed = rows.finishes().iter().map(|row| match row {
        FinishRow::End(row) => row.output.as_ref().map_or(0, |o| o.len()),
        FinishRow::Move(_) => 0,
    });
    created.chain(changed).sum()
}

#[cfg(test)]
mod tests {
    use helve_core::Write;
    use helve_domain::clock::{Clock, Timestamp};
    use helve_domain::id::WorkerId;
    use helve_domain::status::RunStatus;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn job(tenant: TenantId) -> Job {
        let row = helve_core::EndRow {
            run: helve_domain::id::RunId::generate(Timestamp::from_micros(1)),
            tenant,
            guard: helve_core::Guard { state: RunStatus::Queued, attempt: 0, session: None },
            state: RunStatus::Cancelled,
            output: None,
            error: None,
            finished_at: Timestamp::from_micros(1),
            reason: None,
        };
        let rows = Rows::Finish(vec![FinishRow::End(Box::new(row))]);
        Job { shard: 0, write: Write { flight: 1, tenant, rows } }
    }

    fn filled(singles: usize, bulk: usize) -> (Waiting, [TenantId; 2]) {
        let tenants = [1, 2].map(|n| TenantId::generate(Timestamp::from_micros(n * 1_000_000)));
        let mut waiting = Waiting::default();
        (0..bulk).for_each(|_| waiting.push(job(tenants[0]), Class::Bulk));
        (0..singles).for_each(|_| waiting.push(job(tenants[1]), Class::Single));
        (waiting, tenants)
    }

    #[test]
    fn alone_bulk_fills_batch_after_batch() {
        let (mut waiting, _) = filled(0, 600);
        let now = Clock::system().instant();
        assert_eq!(waiting.next_batch(now).len(), MAX_ROWS);
        waiting.landed(now + MS * 5);
        assert_eq!((waiting.rests(now + MS * 5), waiting.next_batch(now + MS * 5).len()), (None, MAX_ROWS));
    }

    #[test]
    fn beside_single_rows_bulk_has_few_rows_and_little_of_the_time() {
        let (mut waiting, [_, other]) = filled(1, 600);
        let now = Clock::system().instant();
        assert_eq!(waiting.next_batch(now).len(), 1 + MAX_BULK_ROWS);
        waiting.landed(now + MS * 5);
        assert_eq!(waiting.rests(now + MS * 7), Some(MS * (5 * REST - 2)));
        // A single row does not wait for that, and goes alone.
        waiting.push(job(other), Class::Single);
        assert_eq!(waiting.rests(now + MS * 7), None);
        assert_eq!(waiting.next_batch(now + MS * 7).len(), 1);
        waiting.landed(now + MS * 8);
        assert_eq!(waiting.rests(now + MS * 8), Some(MS * (5 * REST - 3)), "its batch moves nothing");
        let rested = now + MS * (5 + 5 * REST);
        assert_eq!(waiting.rests(rested), None);
        assert_eq!(waiting.next_batch(rested).len(), MAX_BULK_ROWS);
        // When nobody else has come for long, bulk has everything again.
        waiting.landed(now + MS * 900);
        assert_eq!(waiting.rests(now + MS * 1_100), None);
        assert_eq!(waiting.next_batch(now + MS * 1_100).len(), MAX_ROWS);
    }

    #[test]
    fn timers_share_a_batch_with_what_is_single_and_fill_it_alone() {
        let (mut waiting, [timers, other]) = filled(0, 0);
        let now = Clock::system().instant();
        (0..600).for_each(|_| waiting.push(job(timers), Class::Due));
        assert!(!waiting.has_room_for_due());
        assert_eq!(waiting.next_batch(now).len(), MAX_ROWS);
        // Also what the same tenant asks for singly does not wait behind its timers.
        for tenant in [timers, other] {
            waiting.push(job(tenant), Class::Single);
        }
        assert_eq!(waiting.next_batch(now + MS).len(), MAX_DUE_ROWS + 2);
        waiting.landed(now + MS * 2);
        assert_eq!((waiting.rests(now + MS * 2), waiting.next_batch(now + MS * 2).len()), (None, MAX_DUE_ROWS));
        waiting.next_batch(now + MS * 3);
        waiting.next_batch(now + MS * 4);
        assert!(waiting.has_room_for_due());
    }

    #[test]
    fn what_is_about_a_worker_keeps_its_order_whoever_wants_it() {
        let (mut waiting, [tenant, _]) = filled(0, 0);
        let worker = WorkerId::generate(Timestamp::from_micros(1));
        let about_worker = |flight| {
            let rows = Rows::Worker(WorkerChange::Gone(worker));
            Job { shard: 0, write: Write { flight, tenant, rows } }
        };
        let now = Clock::system().instant();
        for (flight, class) in [(1, Class::Single), (2, Class::Due), (3, Class::Single)] {
            waiting.push(about_worker(flight), class);
        }
        let order: Vec<u64> = (0..3).flat_map(|_| waiting.next_batch(now)).map(|job| job.write.flight).collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
