//! From the answer to a pause until the resume, no run of the workflow starts.

use helve_domain::clock::Timestamp;

use super::{CLOCKS, FRAMES_UNDER_WAY, Finding, Report, Row, Terms};
use crate::oracle::ledger::plays::PAUSING;
use crate::oracle::ledger::{Execution, Facts};

impl Report {
    pub(super) fn judge_pauses(&mut self, facts: &Facts, row: &Row, executions: &[(i64, &Execution)], terms: &Terms) {
        if row.workflow != PAUSING {
            return;
        }
        for (attempt, e) in executions {
            // The store knows when the last attempt was assigned. An earlier one is known by its delivery, which may
            // come late, or again after a fault.
            let last = row.started.filter(|_| *attempt == row.attempt);
            let (at, late) = match last {
                Some(at) => (at, CLOCKS),
                None if Self::may_be_late(facts, e, terms) => continue,
                None => (e.from, FRAMES_UNDER_WAY),
            };
            let within =
                |from: Timestamp, until: Option<Timestamp>| at > from.plus(late) && until.is_none_or(|u| at < u);
            if let Some(pause) = facts.pauses.iter().find(|pause| within(pause.from, pause.until)) {
                let what = format!("{} attempt {attempt} started at {at} at {}, within {pause:?}", row.id, e.name);
                self.add(Finding::StartedWhilePaused, what);
            }
        }
    }

    fn may_be_late(facts: &Facts, e: &Execution, terms: &Terms) -> bool {
        facts.faults.iter().any(|f| {
            let strikes = f.worker.as_ref().is_none_or(|worker| *worker == e.name);
            strikes && f.from <= e.from && e.from <= f.until.plus(terms.repair)
        })
    }
}
