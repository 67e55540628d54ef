//! Who writes, what waits for it, and the batch that is underway.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use super::batch::Waiting;
use super::lane::{BatchDone, LaneWriter};

/// Work that is underway, if any.
pub(super) type Running<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A writer with what waits for it, and the batch that it is writing.
pub(super) struct LaneSlot {
    pub waiting: Waiting,
    pub writer: Option<LaneWriter>,
    pub running: Running<(LaneWriter, BatchDone)>,
    /// Whether the writer is to look at its connection: see [`ended`].
    pub look: bool,
}

impl LaneSlot {
    /// With nothing to do.
    pub fn new(writer: LaneWriter) -> Self {
        Self { waiting: Waiting::default(), writer: Some(writer), running: None, look: false }
    }

    /// Starts the next batch if the writer is free.
    pub fn pump(&mut self, now: Instant) {
        if self.running.is_some() || self.waiting.is_empty() || self.waiting.rests(now).is_some() {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        let batch = self.waiting.next_batch(now);
        self.running = Some(Box::pin(async move {
            let done = writer.run(batch).await;
            (writer, done)
        }));
    }

    /// Opens the connection of a writer that has nothing to do.
    pub fn reopen(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        self.running = Some(Box::pin(async move {
            let done = writer.reopen().await;
            (writer, done)
        }));
    }

    /// Whether there is nothing to write.
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }
}

/// The end of what is underway; never when nothing is.
pub(super) async fn finished<T>(running: &mut Running<T>) -> T {
    match running {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The end of the connection of a writer that has nothing to do. A statement finds out by itself; an idle engine would
/// not, and others would take it for dead. What rests is not polled: the end wakes the owner, once its connection was
/// looked at (`look`) while it rested.
pub(super) async fn ended(writer: &mut Option<LaneWriter>, look: &mut bool) {
    poll_fn(|cx| match writer {
        Some(writer) => writer.poll_ended(cx, std::mem::take(look)),
        None => Poll::Pending,
    })
    .await;
}
