//! Faults under load, judged by a ledger: nothing accepted is lost, stuck or accepted twice.

mod engine;
mod ledger;
mod load;
mod network;
mod oracle;
mod oracle_tests;
mod postgres;
mod proxy;
mod proxy_tests;
mod results;
mod rig;
mod store;
mod wire;
mod worker;
mod workers;
