//! Use cases: what the entries and the command line do beside the scheduler.

pub mod auth;
pub mod definitions;
pub mod retention;
pub mod secret;
pub mod tenants;
pub mod tickets;
pub mod tokens;
