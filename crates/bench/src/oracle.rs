//! The ledger oracle: a load that records every fact, faults injected into it, and the verdict.
//!
//! It sees the engine only from outside: its interface, its process, its tables. `helve bench --faults` and the fault
//! tests are built on it.

mod caller;
pub mod ledger;
pub mod load;
mod players;
pub mod process;
pub mod proxy;
pub mod rig;
pub mod store;
pub mod verdict;
pub mod wire;
pub mod worker;

use std::time::Duration;

use helve_domain::error::{Error, Result};
use helve_supervisor::Supervisor;
use tokio::sync::oneshot;

/// Reads an answer's text. What is not JSON becomes null, which no caller expects.
fn json(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap_or_default()
}

/// An error that leaves no verdict.
fn failure(text: impl Into<String>) -> Error {
    Error::Internal(text.into())
}

/// Runs a part of the load until it ends or everything stops. The receiver gets its value, or fails if the part did not
/// complete.
fn start<T: Send + 'static>(
    supervisor: &Supervisor,
    name: &'static str,
    part: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (done, ended) = oneshot::channel();
    let stopping = supervisor.stopping();
    supervisor.spawn(name, async move {
        if let Some(value) = stopping.run_until_cancelled(part).await {
            // Nobody has to wait for it.
            let _ = done.send(value);
        }
    });
    ended
}

/// Polls until the answer is there.
///
/// # Errors
/// `Internal` if it does not come within `limit`.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> Result<T> {
    let poll = async {
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    };
    tokio::time::timeout(limit, poll).await.map_err(|_| failure(format!("not within {limit:?}: {what}")))
}
