//! Each accepted event is stored once, with exactly the runs that it starts.

use std::collections::{BTreeMap, BTreeSet};

use super::{EventRow, Finding, Report, Row, Stored};
use crate::oracle::ledger::plays::{EventId, Push, Topic};
use crate::oracle::ledger::{Facts, Fate, Nonce};

impl Report {
    pub(super) fn judge_events(&mut self, facts: &Facts, stored: &Stored) {
        let mut runs = BTreeMap::<&str, Vec<&Row>>::new();
        for row in &stored.runs {
            if let Some(event) = &row.event {
                runs.entry(event).or_default().push(row);
            }
        }
        let mut found = BTreeMap::<Nonce, Vec<&EventRow>>::new();
        for event in &stored.events {
            let started = runs.remove(event.id.as_str()).unwrap_or_default();
            match event.nonce.and_then(|nonce| Some((nonce, facts.pushes.get(&nonce)?))) {
                Some((nonce, push)) => {
                    found.entry(nonce).or_default().push(event);
                    self.judge_started(event, push, &started);
                }
                None => self.add(Finding::EventUnexpected, format!("{}: nobody pushed it", event.id)),
            }
        }
        for (event, rows) in runs {
            let rows: Vec<_> = rows.iter().map(|row| &row.id).collect();
            self.add(Finding::EventRuns, format!("{rows:?} are runs of {event}, which is not in the store"));
        }
        for (nonce, push) in &facts.pushes {
            self.judge_push(*nonce, push, found.get(nonce).map_or(&[][..], Vec::as_slice));
        }
    }

    /// The runs in the store are those that the event's row names, one of each workflow that matches, with its payload.
    fn judge_started(&mut self, event: &EventRow, push: &Push, started: &[&Row]) {
        let (named, stored): (BTreeSet<_>, BTreeSet<_>) =
            (event.runs.iter().collect(), started.iter().map(|row| &row.id).collect());
        let mut workflows: Vec<_> = started.iter().map(|row| row.workflow.as_str()).collect();
        workflows.sort_unstable();
        let theirs = started.iter().all(|row| row.nonce == event.nonce);
        if named != stored || event.runs.len() != started.len() || workflows != push.topic.workflows() || !theirs {
            let what = format!("{:?} {}: names {named:?}, started {stored:?} of {workflows:?}", push.topic, event.id);
            self.add(Finding::EventRuns, what);
        }
    }

    fn judge_push(&mut self, nonce: Nonce, push: &Push, found: &[&EventRow]) {
        let stored: BTreeSet<&EventId> = found.iter().map(|event| &event.id).collect();
        let what = || format!("{:?} event {nonce}, answers {:?}, store {stored:?}", push.topic, push.events);
        self.counts(push.fate, !found.is_empty());
        if push.fate == Fate::Accepted && !push.events.iter().all(|event| stored.contains(event)) {
            self.add(Finding::EventLost, what());
        } else if push.fate == Fate::Accepted {
            let runs: BTreeSet<_> = found.iter().flat_map(|event| &event.runs).collect();
            if runs != push.runs.iter().collect() {
                self.add(Finding::EventRuns, format!("{}: answered {:?}, stored {runs:?}", what(), push.runs));
            }
        }
        if (push.fate == Fate::Refused || push.topic == Topic::Wrong) && !found.is_empty() {
            self.add(Finding::EventUnexpected, what());
        }
        if found.len() > 1 || push.events.len() > 1 {
            self.add(Finding::EventTwice, what());
        }
    }
}
