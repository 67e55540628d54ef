//! Who writes, what waits for it, and the batch that is underway.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::aside::Aside;
use super::batch::Waiting;
use super::lane::{BatchDone, LaneWriter};

/// Work that is underway, if any.
pub(super) type Running<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A writer with what waits for it, and the batch that it is writing.
pub(super) struct LaneSlot {
    pub waiting: Waiting,
    pub aside: Aside,
    pub writer: Option<LaneWriter>,
    pub running: Running<(LaneWriter, BatchDone)>,
}

impl LaneSlot {
    /// With nothing to do.
    pub fn new(writer: LaneWriter) -> Self {
        Self { waiting: Waiting::default(), aside: Aside::default(), writer: Some(writer), running: None }
    }

    /// Starts the next batch if the writer is free.
    pub fn pump(&mut self, now: Instant) {
        if self.running.is_some() || self.writer.is_none() {
            return;
        }
        let (batch, again) = match self.aside.take(now) {
            Some(jobs) => (jobs, true),
            None if self.waiting.is_empty() || self.waiting.rests(now).is_some() => return,
            None => (self.aside.keep_back(self.waiting.next_batch(now)), false),
        };
        if batch.is_empty() {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        self.running = Some(Box::pin(async move {
            let done = if again { writer.run_aside(batch).await } else { writer.run(batch).await };
            (writer, done)
        }));
    }

    /// Takes note of a batch that has landed.
    pub fn landed(&mut self, done: &mut BatchDone, now: Instant) {
        self.running = None;
        self.waiting.landed(now);
        if !self.aside.is_empty() || !done.aside.is_empty() {
            self.aside.put(std::mem::take(&mut done.aside), !done.results.is_empty(), now);
        }
    }

    /// When the writer, being free, has something to do that does not come from outside.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        if self.running.is_some() {
            return None;
        }
        let aside = self.aside.next().map(|at| at.saturating_duration_since(now));
        [self.waiting.rests(now), aside].into_iter().flatten().min()
    }

    /// Whether there is nothing to write.
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty() && self.aside.is_empty()
    }
}

/// The end of what is underway; never when nothing is.
pub(super) async fn finished<T>(running: &mut Running<T>) -> T {
    match running {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
