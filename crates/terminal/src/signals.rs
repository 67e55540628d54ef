//! Requests to end: SIGINT and SIGTERM.

use helve_domain::error::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::out;

/// The signals that ask the program to end, received here from now on.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to receive them.
    ///
    /// # Errors
    /// `Internal` when the system refuses.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::Internal(format!("signals cannot be received: {e}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Resolves at the next request to end. Cancel-safe.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs `stop`, the orderly end. A second signal ends the process at once, after `last`; what it started ends with
    /// it.
    pub async fn unless_again(&mut self, stop: impl Future<Output = ()>, last: impl FnOnce()) {
        tokio::select! {
            () = stop => {}
            () = self.next() => {
                last();
                out::note("helve: a second signal: stopping at once");
                std::process::exit(130);
            }
        }
    }
}
