//! What stands below the engine: `helve dev`, the command line, the private PostgreSQL, TLS to the database.

mod bench;
mod commands;
mod counts;
mod dev;
mod entry;
mod files;
mod logs;
mod neighbours;
mod sessions;
mod tls;
