//! A small client of the engine's own interface: HTTP requests and worker sockets.
//!
//! It knows the interface, not the engine. The benchmark, the tests and the commands that talk to a running engine use
//! it, and what works through it works for any other client, too.

mod backoff;
pub mod frames;
mod held;
pub mod http;
pub mod socket;
mod tls;
pub mod worker;

pub use http::{Http, Response};
pub use socket::RawWorker;
pub use worker::{Handler, Options};
