//! One attempt is at one worker, and a worker has no more work than slots.

use std::collections::BTreeMap;

use helve_domain::clock::Timestamp;

use super::{Finding, Report};
use crate::oracle::ledger::Facts;

impl Report {
    pub(super) fn judge_attempts(&mut self, facts: &Facts) {
        for ((run, attempt), executions) in &facts.executions {
            if executions.len() > 1 {
                let workers: Vec<_> = executions.iter().map(|e| (&e.name, &e.worker)).collect();
                self.add(Finding::OneAttemptTwoWorkers, format!("{run} attempt {attempt}: {workers:?}"));
            }
        }
    }

    pub(super) fn judge_slots(&mut self, facts: &Facts) {
        let mut edges = BTreeMap::<&str, Vec<(Timestamp, i32)>>::new();
        for e in facts.executions.values().flatten() {
            let of_worker = edges.entry(&e.worker).or_default();
            of_worker.push((e.from, 1));
            of_worker.extend(e.until.map(|until| (until, -1)));
        }
        for (worker, mut of_worker) in edges {
            // At the same instant, an end comes before a begin.
            of_worker.sort_unstable();
            let (mut now, mut most) = (0, 0);
            for (_, change) in of_worker {
                now += change;
                most = most.max(now);
            }
            let slots = facts.slots.get(worker).copied().unwrap_or(0);
            if most > i32::try_from(slots).unwrap_or(i32::MAX) {
                self.add(Finding::OverSlots, format!("{worker} held {most} at once and has {slots} slots"));
            }
        }
    }
}
