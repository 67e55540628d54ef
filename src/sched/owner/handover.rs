//! Shards that come and go: rebuilt from the rows when they come; when they go, what is on its way is finished first.

use std::time::{Duration, Instant};

use helve_core::Command;
use helve_domain::delivery::{Close, Outgoing};
use helve_domain::error::Error;
use tracing::{error, info};

use super::Owner;
use super::reads::ReadJob;
use crate::cluster::{Order, Report};
use crate::failpoint::{self, Point};
use crate::sched::lanes::batch::Class;

/// How long a shard that is handed over still takes requests: those that were sent here before it was known.
const LAST_CALL: Duration = Duration::from_millis(100);
/// How long it waits for reads on which callers depend.
const LAST_READS: Duration = Duration::from_secs(1);
/// What workers of a shard that moves are told to take for it at most.
const RECONNECT: Duration = Duration::from_secs(5);

/// The answer for whom it is too late.
pub(in crate::sched) fn moved() -> Error {
    Error::unavailable("the work of this tenant is just moving to another engine; nothing was done")
}

impl Owner {
    /// Whether the shard is owned and takes what comes.
    pub fn takes(&self, shard: usize) -> bool {
        let last_call = |at: Instant| self.clock.instant() < at;
        self.shards.get(shard).is_some_and(|owned| owned.leaves_at.is_none_or(last_call))
    }

    pub fn order(&mut self, order: Order) {
        match order {
            Order::Gain(shards) => self.reads.push(ReadJob::LeftBehind { shards }),
            Order::Lose(shards) => {
                let leaves_at = self.clock.instant() + LAST_CALL;
                for shard in shards {
                    if let Some(owned) = self.shards.get_mut(shard) {
                        owned.leaves_at = Some(leaves_at);
                    }
                    // Workers open their next socket while this one still serves them.
                    self.step(shard, Command::Drain(RECONNECT), Class::Single);
                }
            }
        }
    }

    /// What former owners left is read: the shards are rebuilt and served from now on.
    pub fn gained(&mut self, left: Vec<(usize, Vec<Command>)>) {
        failpoint::hit_now(Point::BeforeRecover);
        let shards: Vec<usize> = left.iter().map(|(shard, _)| *shard).collect();
        for (shard, commands) in left {
            self.shards.insert(shard);
            for command in commands {
                self.step(shard, command, Class::Single);
            }
        }
        failpoint::hit_now(Point::AfterRecover);
        // Their timers are read at once.
        self.chores.read_at = self.clock.now();
        self.report(Report::Gained(shards));
    }

    /// How long until a shard that leaves needs attention.
    pub fn until_moves(&self) -> Option<Duration> {
        let now = self.clock.instant();
        let times = self.shards.all().filter_map(|(_, owned)| owned.leaves_at).flat_map(|at| [at, at + LAST_READS]);
        times.map(|at| at.saturating_duration_since(now)).filter(|rest| !rest.is_zero()).min()
    }

    /// Forgets shards that were told to leave and have nothing on its way any more.
    pub fn finish_moves(&mut self) {
        let now = self.clock.instant();
        let leaves = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let due: Vec<usize> =
            self.shards.all().filter(|(_, owned)| leaves(owned.leaves_at)).map(|(shard, _)| shard).collect();
        let mut lost = Vec::new();
        for shard in due {
            if self.is_done_with(shard, now) {
                self.forget_shard(shard);
                lost.push(shard);
            }
        }
        if !lost.is_empty() {
            info!(shards = lost.len(), "shards are left to another engine");
            self.report(Report::Lost(lost));
        }
    }

    /// Nothing of it may be written any more when it is given up; whatever else is missing has had its time.
    fn is_done_with(&self, shard: usize, now: Instant) -> bool {
        let Some(owned) = self.shards.get(shard) else { return false };
        let patient = owned.leaves_at.is_some_and(|at| now < at + LAST_READS);
        !owned.state.has_flights() && !(patient && (owned.state.has_reads() || self.has_bulk_of(shard)))
    }

    fn forget_shard(&mut self, shard: usize) {
        self.shards.remove(shard);
        // Whoever waits for the end of a run reads its row; the others hear that nothing was done.
        self.waiters.retain(|_, (of, _)| *of != shard);
        let late: Vec<_> = self.replies.iter().filter(|(_, (of, _))| *of == shard).map(|(t, _)| *t).collect();
        for ticket in late {
            if let Some((_, reply)) = self.replies.remove(&ticket) {
                self.fail(reply, moved());
            }
        }
        self.flush();
        self.sockets.retain(|_, socket| {
            if socket.shard == shard {
                let _ = socket.outbox.push(Outgoing::Close(Close::Draining));
            }
            socket.shard != shard
        });
    }

    fn report(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
            error!("nobody takes the owner's reports");
        }
    }
}
