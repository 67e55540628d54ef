//! A run that requires a label starts only on a worker that had it when it was assigned.

use helve_domain::clock::Timestamp;

use super::{CLOCKS, FRAMES_UNDER_WAY, Finding, Report, Row, Terms};
use crate::oracle::ledger::plays::Required;
use crate::oracle::ledger::{Execution, Facts};

impl Report {
    pub(super) fn judge_labels(&mut self, facts: &Facts, row: &Row, executions: &[(i64, &Execution)], terms: &Terms) {
        let create = row.nonce.and_then(|nonce| facts.creates.get(&nonce));
        let Some(required) = create.and_then(|create| create.requires) else { return };
        for (attempt, e) in executions {
            // A stalled worker's change waits in its socket, and so does what was assigned before it.
            let stalled = facts.faults.iter().any(|f| f.worker.as_ref() == Some(&e.name));
            if stalled && required.key == Required::SHIFT {
                continue;
            }
            // The store knows when the last attempt was assigned; an earlier one may have been delivered again after a
            // fault.
            let assigned = match row.started.filter(|_| *attempt == row.attempt) {
                Some(at) => (at.minus(FRAMES_UNDER_WAY), at.plus(CLOCKS)),
                None => (e.from.minus(terms.repair), e.from),
            };
            if !had(facts, &e.worker, required, assigned) {
                let what = format!("{} attempt {attempt} requires {required:?}, started at {}", row.id, e.name);
                self.add(Finding::WrongLabels, what);
            }
        }
    }
}

/// Whether the worker had the label at some moment in this period.
fn had(facts: &Facts, worker: &str, required: Required, (from, until): (Timestamp, Timestamp)) -> bool {
    let history = facts.labels.get(worker).map_or(&[][..], Vec::as_slice);
    let ends = history.iter().skip(1).map(|(since, _)| Some(*since)).chain([None]);
    history
        .iter()
        .zip(ends)
        .any(|((since, labels), end)| *since <= until && end.is_none_or(|end| end >= from) && labels.fit(required))
}
