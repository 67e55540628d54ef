//! A run is parked when its attempts are spent, not earlier, and keeps counting them after it is unparked.

use std::collections::BTreeSet;

use super::{Finding, Report, Row};
use crate::oracle::ledger::plays::PARK_RETRIES;
use crate::oracle::ledger::{Execution, Facts, Plan, Sent};

/// The attempts that a run has spent when it is parked after this many stays in the queue.
pub(super) fn spent(parks: u32) -> usize {
    usize::try_from(parks.saturating_mul(1 + PARK_RETRIES)).unwrap_or(usize::MAX)
}

impl Report {
    pub(super) fn judge_park(&mut self, facts: &Facts, row: &Row, executions: &[(i64, &Execution)]) {
        let Row { id, parks, unparks, status, .. } = row;
        let plan = row.nonce.and_then(|nonce| facts.plan(nonce)).filter(|plan| plan.parks());
        let Some(plan) = plan else {
            if *parks > 0 || *unparks > 0 {
                self.add(Finding::WrongPark, format!("{id}: parked {parks} times, and nothing of it is"));
            }
            return;
        };
        let parking = facts.parkings.get(id).copied().unwrap_or_default();
        let after = if plan == Plan::Parked { (1, 1, "succeeded") } else { (2, 1, "parked") };
        let is = (*parks, *unparks, status.as_str());
        // An unpark whose answer is missing may or may not have been carried out.
        let as_planned = (parking.asked && is == after) || (!parking.answered && is == (1, 0, "parked"));
        if !as_planned {
            let what = format!("{id}: {plan:?}, {parking:?}, is {status}, parked {parks} times, unparked {unparks}");
            self.add(Finding::WrongPark, what);
        }
        let failed = executions.iter().filter(|(_, e)| e.sent == Some(Sent::Failed)).map(|(attempt, _)| attempt);
        let failed = failed.collect::<BTreeSet<_>>().len();
        if failed < spent(*parks) {
            self.add(Finding::WrongPark, format!("{id}: parked {parks} times after {failed} failures"));
        }
        let counted = usize::try_from(row.attempt).unwrap_or(0);
        if counted < spent(*parks) + usize::from(status == "succeeded") {
            self.add(Finding::WrongPark, format!("{id}: parked {parks} times, and its attempt is {counted}"));
        }
    }
}
