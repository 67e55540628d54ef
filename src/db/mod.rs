//! PostgreSQL: SQL in, domain values out. The only place that knows Diesel.

pub mod connect;
mod driven;
pub mod events;
mod failure;
pub mod health;
pub mod home;
pub mod jobs;
pub mod lane;
pub mod lease;
pub mod live;
pub mod migrate;
pub mod missed;
pub mod page;
pub mod partitions;
pub mod pauses;
mod pool;
pub mod queues;
mod read;
pub mod retention;
mod run_list;
pub mod run_pick;
pub mod runs;
pub mod scan;
mod session;
pub mod sqlstate;
pub(crate) mod statement;
pub mod tenants;
pub mod tickets;
pub mod tokens;
mod turns;
mod weeks;
pub mod workflows;

pub use pool::Pool;
pub use turns::TenantPools;
