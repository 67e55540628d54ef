//! What waits for a lane: fair over tenants, bounded in rows and bytes.

use std::collections::{HashMap, VecDeque};

use crate::id::TenantId;

use super::core::Row;
use super::lane::{About, Job, about};

/// Rows of one statement: past this a batch only adds latency.
const MAX_ROWS: usize = 250;
/// Payload bytes of one statement.
const MAX_BYTES: usize = 1 << 20;
/// Rows that bulk requests may fill while single ones wait, or did lately.
const MAX_BULK_ROWS: usize = 32;

/// Rows of bulk requests that one tenant has waiting at most, and a piece more: enough for the next batch. All others
/// wait undecided, where they are small.
const BULK_AHEAD: usize = 256;
/// Batches after one with single rows that are kept short of bulk: the next single one must not find a full batch
/// underway.
const SHORT: u8 = 32;

/// Who takes turns: the single and the bulk work of each tenant.
type Source = (TenantId, bool);

/// Transitions that wait for their lane, round robin over tenants.
#[derive(Default)]
pub(super) struct Waiting {
    queues: HashMap<Source, VecDeque<Job>>,
    turns: VecDeque<Source>,
    singles: usize,
    len: usize,
    /// Batches that are still kept short of bulk.
    short: u8,
}

impl Waiting {
    /// Whether more of a tenant's bulk requests should be decided.
    pub fn has_room(&self, tenant: TenantId) -> bool {
        self.queues.get(&(tenant, true)).is_none_or(|q| q.len() < BULK_AHEAD)
    }

    pub fn push(&mut self, job: Job, bulk: bool) {
        let source = (job.write.tenant, bulk);
        let queue = self.queues.entry(source).or_default();
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back(job);
        self.len += 1;
        self.singles += usize::from(!bulk);
    }

    /// Transitions that wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next batch: whole transitions in turn, until a bound. A larger one goes alone. Transitions about
    /// workers have a statement of their own, and never two of one worker in it.
    pub fn next_batch(&mut self) -> Vec<Job> {
        let (mut batch, mut rows, mut bytes, mut bulk_rows) = (Vec::new(), 0, 0, 0);
        self.short = if self.singles > 0 { SHORT } else { self.short.saturating_sub(1) };
        let short = self.short > 0;
        let mut passed = 0;
        while passed < self.turns.len() {
            let Some(source) = self.turns.pop_front() else { break };
            let Some(head) = self.queues.get(&source).and_then(VecDeque::front) else { continue };
            let (more_rows, more_bytes) = (head.write.rows.len(), size(&head.write.rows));
            let fits = batch.is_empty()
                || (rows + more_rows <= MAX_ROWS
                    && bytes + more_bytes <= MAX_BYTES
                    && !(source.1 && short && bulk_rows + more_rows > MAX_BULK_ROWS)
                    && goes_with(&batch, head));
            if !fits {
                self.turns.push_back(source);
                passed += 1;
                continue;
            }
            passed = 0;
            rows += more_rows;
            bytes += more_bytes;
            bulk_rows += if source.1 { more_rows } else { 0 };
            if let Some(job) = self.take(source) {
                batch.push(job);
            }
            if rows >= MAX_ROWS {
                break;
            }
        }
        batch
    }

    fn take(&mut self, source: Source) -> Option<Job> {
        let queue = self.queues.get_mut(&source)?;
        let job = queue.pop_front()?;
        self.len -= 1;
        self.singles -= usize::from(!source.1);
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

fn worker(job: &Job) -> Option<crate::id::WorkerId> {
    match job.write.rows.first()? {
        Row::PutWorker(row) => Some(row.worker),
        Row::DropWorker(worker) => Some(*worker),
        Row::Insert(_) | Row::InsertEvent(_) | Row::Move(_) | Row::End(_) | Row::Pause(_) => None,
    }
}

fn size(rows: &[Row]) -> usize {
    rows.iter()
        .map(|row| match row {
            Row::Insert(row) => row.run.body.input.len() + row.run.body.metadata.len(),
            Row::InsertEvent(event) => event.body.input.len() + event.body.metadata.len(),
            Row::End(row) => row.output.as_ref().map_or(0, |o| o.len()),
            Row::Move(_) | Row::PutWorker(_) | Row::DropWorker(_) | Row::Pause(_) => 0,
        })
        .sum()
}
