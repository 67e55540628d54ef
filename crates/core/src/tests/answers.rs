//! What comes back to the shard: commits and refusals of the lanes, rows of the reader, and time.

use std::collections::HashSet;
use std::time::Duration;

use helve_domain::id::RunId;

use super::world::{Load, Stored, World};
use crate::turn::Turn;
use crate::{Command, EndedRun, Found, OpenRow};

impl World {
    /// Commits the oldest transition of a lane. False: nothing waits.
    pub fn commit(&mut self, lane: usize) -> bool {
        let Some(write) = self.lanes[lane].pop_front() else { return false };
        let won: HashSet<RunId> = self.win_keys(&write);
        let outcomes = self.apply(&write.rows, &won);
        self.step(Command::Committed(write.flight, outcomes));
        true
    }

    pub fn reject(&mut self, lane: usize) -> bool {
        let write = self.lanes[lane].pop_front();
        self.again_by = self.now.plus(Duration::from_secs(6));
        write.map(|w| self.step(Command::Rejected(w.flight, "poison".into()))).is_some()
    }

    /// Answers the oldest read.
    pub fn load(&mut self) -> bool {
        match self.loads.pop_front() {
            Some(Load::Queue(key, rows, all)) => self.step(Command::QueueLoaded(key, rows, all)),
            Some(Load::Run(run)) => {
                let found = match (self.open.get(&run), self.ended.get(&run)) {
                    (Some(s), _) => Found::Open(Box::new(s.row.clone())),
                    (None, Some((state, attempt, session))) => Found::Ended(EndedRun {
                        run,
                        tenant: self.tenant,
                        state: *state,
                        attempt: *attempt,
                        session: *session,
                    }),
                    (None, None) => Found::Nothing,
                };
                self.step(Command::RunsLoaded(vec![(run, found)]));
            }
            None => return false,
        }
        true
    }

    pub fn load_timers(&mut self) {
        self.ask_timers();
        self.deliver_timers();
    }

    /// A read of timers takes its snapshot; what it brings comes later.
    pub fn ask_timers(&mut self) {
        let until = self.now.plus(Duration::from_secs(60));
        self.step(Command::TimersAsked(until));
        let due = |s: &&Stored| s.row.due.is_some_and(|d| d <= until);
        let mut rows: Vec<OpenRow> = self.open.values().filter(due).map(|s| s.row.clone()).collect();
        rows.sort_by_key(|r| r.due);
        self.timers = Some((rows, until));
    }

    pub fn deliver_timers(&mut self) {
        if let Some((rows, until)) = self.timers.take() {
            self.step(Command::TimersLoaded(rows, until, true));
        }
    }

    /// Commits and reads until nothing waits.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !(self.commit(0) || self.commit(1) || self.load()) {
                let silent: Vec<_> = self.asked.iter().filter(|ticket| !self.answers.contains_key(ticket)).collect();
                assert!(silent.is_empty(), "triggers that nobody answers: {silent:?}");
                if self.now > self.again_by {
                    assert_eq!(self.waits_in_vain(), None, "a run waits, and a worker has room for it");
                }
                return;
            }
        }
        panic!("the shard does not come to rest");
    }

    fn waits_in_vain(&self) -> Option<RunId> {
        let (mut shard, mut out) = (self.shard.clone(), Vec::new());
        let (now, creating) = (self.now, shard.creates_in_flight());
        let mut turn = Turn { shard: &mut shard, now, optimistic_room: 0, creating, watched: false, out: &mut out };
        turn.waits_in_vain()
    }

    pub fn advance(&mut self, by: Duration) {
        let end = self.now.plus(by);
        while let Some(at) = self.shard.next_timer().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Command::Tick);
            self.settle();
        }
        self.now = end;
        self.load_timers();
        self.settle();
    }
}
