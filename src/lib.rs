//! Helve: a durable task and workflow engine over PostgreSQL.

pub mod api;
pub mod app;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod db;
pub mod domain;
pub mod error;
pub mod failpoint;
pub mod forward;
pub mod hub;
pub mod id;
pub mod jobs;
pub mod metrics;
pub mod ops;
pub mod oracle;
pub mod sched;
pub mod share;
pub mod supervisor;
pub mod telemetry;
pub mod traces;
pub mod ws;
