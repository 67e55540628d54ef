//! A lane that has nothing to write: its connection may end all the same.

use std::task::{Context, Poll};

use tracing::{debug, info};

use super::{BatchDone, LaneWriter, PATIENCE};
use crate::db::lane::{LaneError, Refusal};

impl LaneWriter {
    /// The end of the connection while nothing is written. `look`: also one that nothing has told of, and one that
    /// could not be opened.
    pub fn poll_ended(&mut self, cx: &Context<'_>, look: bool) -> Poll<()> {
        match &mut self.conn {
            Some(conn) => conn.poll_ended(cx, look),
            None if look => Poll::Ready(()),
            None => Poll::Pending,
        }
    }

    /// Opens the connection again although nothing is to be written: the next batch finds it open, and other engines
    /// see that this one lives.
    pub async fn reopen(&mut self) -> BatchDone {
        let done = |fenced| BatchDone { fenced, ..BatchDone::default() };
        self.conn = None;
        if !self.standing.is_valid() {
            // Nothing is written either: the next look finds it again.
            return done(false);
        }
        info!(lane = self.name.as_str(), "the connection of a lane has ended: opening it again");
        let late = || LaneError::Aborted(Refusal::unsent(format!("no answer within {} s", PATIENCE.as_secs())));
        let opened = tokio::time::timeout(PATIENCE, self.open()).await.unwrap_or_else(|_| Err(late()));
        if let Err(e) = &opened {
            debug!(error = ?e, lane = self.name.as_str(), "a lane cannot be opened again yet");
        }
        done(opened == Err(LaneError::Fenced))
    }
}
