//! What a worker says of an attempt that it holds: log lines and progress. Both pass by the core.

use helve_domain::delivery::{Attempt, Outgoing};
use helve_domain::error::Code;
use helve_domain::id::TenantId;
use helve_domain::live::{LogBatch, Progress};

use super::Owner;
use crate::sched::Connection;

/// Attempts that one message is told of; of the others it hears the number.
const TOLD: usize = 8;

impl Owner {
    /// Lines count for an attempt that this socket's session holds. Others are gone, and the worker is told.
    pub fn log(&mut self, shard: usize, from: Connection, batches: Vec<LogBatch>) {
        let mut strangers = Vec::new();
        for batch in batches {
            match self.holder(shard, from, batch.attempt) {
                Some(tenant) => self.live.desk().log(tenant, batch),
                None => strangers.push((batch.attempt, batch.lines.len())),
            }
        }
        let tell = |attempt: Attempt, lines: usize| {
            format!(
                "attempt {} of {} is not held by this worker: {lines} lines are dropped",
                attempt.number, attempt.run
            )
        };
        self.refuse(from, strangers.iter().map(|(attempt, lines)| tell(*attempt, *lines)));
    }

    /// The last progress of an attempt that this socket's session holds.
    pub fn progress(&mut self, shard: usize, from: Connection, items: Vec<Progress>) {
        let mut strangers = Vec::new();
        for progress in items {
            match self.holder(shard, from, progress.attempt) {
                Some(tenant) => {
                    self.live.progressed(&progress);
                    self.live.desk().progress(tenant, progress);
                }
                None => strangers.push(progress.attempt),
            }
        }
        let tell = |a: &Attempt| format!("attempt {} of {} is not held by this worker", a.number, a.run);
        self.refuse(from, strangers.iter().map(tell));
    }

    fn holder(&self, shard: usize, from: Connection, attempt: Attempt) -> Option<TenantId> {
        self.shards.get(shard)?.state.holder(from.session, from.transport, attempt)
    }

    fn refuse(&mut self, from: Connection, messages: impl ExactSizeIterator<Item = String>) {
        let more = messages.len().saturating_sub(TOLD);
        for message in messages.take(TOLD) {
            self.push(from.transport, Outgoing::Error(Code::NotHeld, message));
        }
        if more > 0 {
            let message = format!("{more} more attempts are not held by this worker");
            self.push(from.transport, Outgoing::Error(Code::NotHeld, message));
        }
    }
}
