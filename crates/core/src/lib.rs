//! The pure core of scheduling: state and commands in, decisions out. No clock, no I/O, no tokio.
//!
//! [`Shard::step`] is a function of state, command and time. Memory decides first: a decision reserves what
//! it needs (a slot, a key, the run itself) and asks for one write. Only the commit of that write tells
//! anybody: callers, workers, waiting commands.

mod commit;
mod create;
mod deliver;
mod early;
mod end;
mod flight;
mod live;
mod load;
mod park;
mod pause;
mod pauses;
mod placement;
mod queues;
mod recover;
mod reject;
mod requeue;
mod session;
mod sessions;
mod spans;
mod state;
mod survey;
mod task;
mod timers;
mod turn;
mod types;
mod why;
mod worker_state;

#[cfg(test)]
mod tests;

pub use state::{Counters, Settings, Shard};
pub use survey::{ActionLoad, Survey, Workers};
pub use types::*;
pub use why::WhyQuery;
pub use worker_state::WorkerState;
