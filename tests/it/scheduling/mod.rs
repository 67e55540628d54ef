//! Scheduling as a user notices it, optimistic and queued with the same assertions.

mod backlog;
mod clock;
mod fairness;
mod idle;
mod keeping;
mod labels;
mod locks;
mod loss;
mod order;
mod parked;
mod pause;
mod plans;
mod refusals;
mod retention;
mod statements;
mod takeover;
mod timing;
