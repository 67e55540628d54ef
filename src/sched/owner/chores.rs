//! What the owner does a piece at a time, so that nobody waits for all of it: timers that are due, and rows that were
//! read for them.

use std::collections::VecDeque;
use std::time::Duration;

use helve_core::Command;
use helve_domain::clock::Timestamp;

use super::Owner;
use super::reads::ReadJob;
use super::shards::Tenure;
use crate::failpoint::{self, Point};
use crate::sched::lanes::batch::Class;

/// How long one turn of the owner works on chores.
const BUDGET: Duration = Duration::from_millis(1);
/// Rows that a shard takes up at once.
const PIECE: usize = 500;
/// How far ahead timers are held in memory, and how often they are read.
const HORIZON: Duration = Duration::from_secs(60);
const READ_TIMERS: Duration = Duration::from_secs(25);
/// How soon they are read again when a read did not bring all, and how long before the first that is missing.
const READ_MORE: Duration = Duration::from_millis(250);
const READ_BEFORE: Duration = Duration::from_secs(5);

/// Chores that wait.
pub(in crate::sched) struct Chores {
    /// Timers that were read, in pieces.
    loaded: VecDeque<(Tenure, Command)>,
    /// When timers are read next.
    pub read_at: Timestamp,
    /// They are being read, or taken up.
    reading: bool,
    /// The shard whose timers fire first.
    first: usize,
}

impl Chores {
    /// None, and timers are read at once.
    pub const fn from(now: Timestamp) -> Self {
        Self { loaded: VecDeque::new(), read_at: now, reading: false, first: 0 }
    }

    /// Takes over what a read of timers brought.
    pub fn loaded(&mut self, commands: Vec<(Tenure, Command)>) {
        for (of, command) in commands {
            match command {
                Command::TimersLoaded(rows, until, all) => {
                    let pieces = pieces(rows, all).map(|(rows, all)| (of, Command::TimersLoaded(rows, until, all)));
                    self.loaded.extend(pieces);
                }
                command => self.loaded.push_back((of, command)),
            }
        }
        self.reading = !self.loaded.is_empty();
    }
}

/// Cuts what was read into pieces, at least one. Only the last can say that these are all.
fn pieces<T>(rows: Vec<T>, all: bool) -> impl Iterator<Item = (Vec<T>, bool)> {
    let (n, mut rows) = (rows.len().div_ceil(PIECE).max(1), rows.into_iter());
    (1..=n).map(move |piece| (rows.by_ref().take(PIECE).collect(), all && piece == n))
}

impl Owner {
    /// When a timer is due next; not while those that have fired wait for their lane, which wakes the owner.
    pub fn next_due(&self) -> Option<Timestamp> {
        if !self.finish_waiting().has_room_for_due() {
            return None;
        }
        let taken = self.shards.all().filter(|(shard, _)| self.takes(*shard));
        taken.filter_map(|(_, owned)| owned.state.next_timer()).min()
    }

    /// Whether there is something to do at once.
    pub fn chores_go_on(&self) -> bool {
        !self.chores.loaded.is_empty() || self.next_due().is_some_and(|at| at <= self.clock.now())
    }

    /// Does some of what is to be done.
    pub fn do_chores(&mut self) {
        let begun = self.clock.instant();
        while self.clock.instant().duration_since(begun) < BUDGET
            && let Some((of, command)) = self.chores.loaded.pop_front()
        {
            if self.shards.holds(of) {
                self.step(of.shard, command, Class::Due);
            }
            self.chores.reading = !self.chores.loaded.is_empty();
        }
        let (now, places) = (self.clock.now(), self.shards.places());
        for n in 0..places {
            let shard = (self.chores.first + n) % places;
            let due = self.shards.get(shard).and_then(|owned| owned.state.next_timer());
            if due.is_none_or(|at| at > now) || !self.takes(shard) {
                continue;
            }
            if !self.finish_waiting().has_room_for_due() || self.clock.instant().duration_since(begun) >= BUDGET {
                self.chores.first = shard;
                break;
            }
            failpoint::hit_now(Point::BeforeTimer);
            self.step(shard, Command::Tick, Class::Due);
            failpoint::hit_now(Point::AfterTimer);
        }
        self.read_timers(now);
    }

    /// Reads timers of the near future: now and then, and before the first that did not fit into memory.
    fn read_timers(&mut self, now: Timestamp) {
        if self.chores.reading {
            return;
        }
        let Some(nearest) = self.shards.all().map(|(_, owned)| owned.state.timer_horizon()).min() else {
            // Nothing is owned: there is nothing to wake up for before a shard comes.
            self.chores.read_at = self.chores.read_at.max(now.plus(READ_TIMERS));
            return;
        };
        let missing = nearest.minus(READ_BEFORE).max(self.chores.read_at.minus(READ_TIMERS).plus(READ_MORE));
        if self.chores.read_at.min(missing) > now {
            return;
        }
        self.chores.read_at = now.plus(READ_TIMERS);
        self.chores.reading = true;
        let until = now.plus(HORIZON);
        let of: Vec<_> = self.shards.numbers().into_iter().filter_map(|shard| self.shards.tenure(shard)).collect();
        for tenure in &of {
            self.step(tenure.shard, Command::TimersAsked(until), Class::Single);
        }
        self.reads.push(ReadJob::Timers { of, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_up_in_pieces_and_only_the_last_says_that_these_are_all() {
        for (rows, all, cut) in [
            (0, true, vec![(0, true)]),
            (500, false, vec![(500, false)]),
            (1_001, true, vec![(500, false), (500, false), (1, true)]),
        ] {
            let found: Vec<_> = pieces((0..rows).collect(), all).collect();
            assert_eq!(found.iter().map(|(piece, all)| (piece.len(), *all)).collect::<Vec<_>>(), cut);
            assert!(found.into_iter().flat_map(|piece| piece.0).eq(0..rows), "in order");
        }
    }
}
