//! What tests stand on: a private PostgreSQL, engines in and out of the process, clients and workers.
#![allow(dead_code, unused_imports, reason = "not every test needs all of it")]

mod cluster;
pub mod collector;
mod engine;
mod http;
pub mod process;
mod programs;
mod wait;
pub mod worker;

pub use cluster::{bare_database, create_migrated, fresh_database, options, sql};
pub use engine::{Builder, Engine, Tenant, engine, provision, worker};
pub use http::{Http, NoResponse, Response, is_retryable};
pub use programs::{forget, helve, wanted, wanted_python};
pub use wait::{until, until_within};
pub use worker::{Incoming, Worker, attempt, hello, upgrade};

/// Writes a test once and runs it twice: with optimistic scheduling on, and off.
///
/// ```ignore
/// both_ways! {
///     async fn a_run_ends(engine) { .. }
/// }
/// both_ways! {
///     with Builder::new().scheduling(|s| s.grace = Duration::from_secs(1));
///     async fn a_lost_worker_is_replaced(engine) { .. }
/// }
/// ```
#[macro_export]
macro_rules! both_ways {
    (async fn $name:ident($engine:ident) $body:block) => {
        $crate::both_ways! { with $crate::support::Builder::new(); async fn $name($engine) $body }
    };
    (with $builder:expr; async fn $name:ident($engine:ident) $body:block) => {
        mod $name {
            #[allow(unused_imports, reason = "the body decides what it needs")]
            use super::*;

            async fn body($engine: $crate::support::Engine) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn optimistic() {
                body(($builder).optimistic(true).start().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn queued() {
                body(($builder).optimistic(false).start().await).await;
            }
        }
    };
}
