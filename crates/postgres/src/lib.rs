//! How to reach a PostgreSQL: its URL and TLS, a connection of the bare driver, and a private cluster for development.

pub mod cluster;
mod database;
pub mod plain;
pub mod target;
mod tls;

pub use database::{Database, Home};
