//! The pure core of scheduling: state and commands in, decisions out. No clock, no I/O, no tokio.
//!
//! [`Shard::step`] is a function of state, command and time. Memory decides first: a decision reserves what
//! it needs (a slot, a key, the run itself) and asks for one write. Only the commit of that write tells
//! anybody: callers, workers, waiting commands.

/// What is decided, a verb a file.
mod commands {
    pub mod claim;
    pub mod connect;
    pub mod create;
    pub mod deliver;
    pub mod end;
    pub mod free_slot;
    pub mod load;
    pub mod pause;
    pub mod recover;
    pub mod requeue;
    pub mod unpark;
    pub mod worker;
}
mod commit;
mod consequences;
mod grip;
/// What is asked, and changes nothing.
mod queries {
    pub mod spans;
    pub mod survey;
    pub mod watch;
    pub mod why;
    pub mod workers;
}
mod reject;
mod state;
mod turn;
mod types;

#[cfg(test)]
mod tests;

pub use queries::survey::{ActionLoad, Survey, Workers};
pub use queries::why::WhyQuery;
pub use queries::workers::WorkerState;
pub use state::{Counters, Settings, Shard};
pub use types::*;
