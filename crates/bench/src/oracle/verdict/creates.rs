//! Each accepted trigger is in the store once, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Report, Row};
use crate::oracle::ledger::{Facts, Fate, Nonce};

impl Report {
    pub(super) const fn counts(&mut self, fate: Fate, exists: bool) {
        match fate {
            Fate::Accepted => self.accepted += 1,
            Fate::Maybe => {
                self.maybe += 1;
                if exists {
                    self.recovered += 1;
                }
            }
            Fate::Refused => self.refused += 1,
        }
    }

    pub(super) fn judge_creates(&mut self, facts: &Facts, rows: &[Row]) {
        let mut by_nonce = BTreeMap::<Nonce, BTreeSet<&str>>::new();
        // Runs of events are judged with their events.
        for row in rows.iter().filter(|row| row.event.is_none()) {
            match row.nonce.filter(|n| facts.creates.contains_key(n)) {
                Some(nonce) => {
                    by_nonce.entry(nonce).or_default().insert(&row.id);
                }
                None => self.add(Finding::Unexpected, format!("{}: nobody asked for it", row.id)),
            }
        }
        for (nonce, create) in &facts.creates {
            let found = by_nonce.get(nonce).cloned().unwrap_or_default();
            let what = || format!("{:?} create {nonce}, answers {:?}, store {found:?}", create.kind, create.runs);
            self.counts(create.fate, !found.is_empty());
            if create.fate == Fate::Accepted && !create.runs.iter().all(|run| found.contains(run.as_str())) {
                self.add(Finding::Lost, what());
            }
            if create.fate == Fate::Refused && !found.is_empty() {
                self.add(Finding::Unexpected, what());
            }
            if found.len() > 1 || create.runs.len() > 1 {
                self.add(Finding::OneKeyTwoRuns, what());
            }
        }
    }
}
