//! Faults under load, judged by a ledger: nothing accepted is lost, stuck or accepted twice.

mod bench;
mod engine;
mod jobs;
mod liars;
mod network;
mod oracle_plays;
mod oracle_tests;
mod pauses;
mod postgres;
mod proxy_tests;
mod results;
mod rig;
mod sweep;
mod workers;

use helve_bench::oracle::{ledger, load, proxy, verdict as oracle, wire, worker};
