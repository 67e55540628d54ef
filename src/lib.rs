//! Helve: a durable task and workflow engine over PostgreSQL.

pub mod api;
pub mod app;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod db;
pub mod failpoint;
pub mod forward;
mod frames;
pub mod housekeeping;
pub mod hub;
pub mod live;
pub mod metrics;
pub mod ops;
pub mod sched;
pub mod share;
pub mod telemetry;
pub mod traces;
mod worker;
pub mod ws;
