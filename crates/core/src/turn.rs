//! One command on one shard: what it may look at, and what comes of it.

use helve_domain::clock::Timestamp;

use super::state::Shard;
use super::task::Deferred;
use super::types::{Command, Effect};

/// One command that a shard decides on. What decides is a method of it; what only reads or keeps the shard in order is
/// one of [`Shard`].
pub(super) struct Turn<'a> {
    pub shard: &'a mut Shard,
    /// The engine's time.
    pub now: Timestamp,
    /// As in [`super::Context`].
    pub optimistic_room: usize,
    /// As in [`super::Context`].
    pub creating: usize,
    /// As in [`super::Context`].
    pub watched: bool,
    /// What the shard wants done, in the order in which it must happen.
    pub out: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    /// Decides.
    pub fn run(&mut self, command: Command) {
        match command {
            Command::Create(run, ticket) => self.create(*run, ticket),
            Command::CreateEvent(event, ticket) => self.create_event(*event, ticket),
            Command::Cancel { tenant, run, ticket } => {
                self.on_run(run, Deferred::Cancel { tenant, ticket });
            }
            Command::Unpark { tenant, run, ticket } => {
                self.on_run(run, Deferred::Unpark { tenant, ticket });
            }
            Command::Connect(hello, ticket) => self.connect(*hello, ticket),
            Command::Worker { session, transport, message } => self.worker(session, transport, message),
            Command::Congested(session) => {
                if let Some(s) = self.shard.sessions.get_mut(&session) {
                    s.congested = true;
                }
            }
            Command::Committed(flight, outcomes) => self.committed(flight, outcomes),
            Command::Rejected(flight, why) => self.rejected(flight, &why),
            Command::QueueLoaded(key, rows, all) => self.queue_loaded(&key, rows, all),
            Command::RunsLoaded(found) => self.runs_loaded(found),
            Command::TimersAsked(until) => self.shard.timer_asked = until,
            Command::TimersLoaded(rows, until, all) => self.timers_loaded(rows, until, all),
            Command::Recovered(workers, held) => self.recovered(workers, held),
            Command::PausesFound(found) => self.pauses_found(found),
            Command::Pause(order, ticket) => self.pause(*order, ticket),
            Command::Tick => self.tick(),
            Command::Drain(grace) => self.drain(grace),
        }
    }
}
