//! PostgreSQL: SQL in, domain values out. The only place that knows Diesel.

pub mod connect;

pub use connect::Pool;
