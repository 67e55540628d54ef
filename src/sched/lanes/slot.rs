//! Who writes, what waits for it, and the batch that is underway.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::aside::Aside;
use super::batch::Waiting;
use super::writer::{BatchDone, LaneWriter};

/// Work that is underway, if any.
pub(in crate::sched) type Running<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A writer with what waits for it, and the batch that it is writing.
pub(in crate::sched) struct LaneSlot {
    pub waiting: Waiting,
    pub aside: Aside,
    pub writer: Option<LaneWriter>,
    pub running: Running<(LaneWriter, BatchDone)>,
    /// Whether the writer is to look at its connection: see [`ended`].
    pub look: bool,
}

impl LaneSlot {
    /// With nothing to do.
    pub fn new(writer: LaneWriter) -> Self {
        let (waiting, aside) = (Waiting::default(), Aside::default());
        Self { waiting, aside, writer: Some(writer), running: None, look: false }
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
            self.aside.put(std::mem::take(&mut done.aside), done.again && !done.results.is_empty(), now);
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
        self.running.is_none() && self.waiting.is_empty() && self.aside.is_empty()
    }
}

/// The end of what is underway; never when nothing is.
pub(in crate::sched) async fn finished<T>(running: &mut Running<T>) -> T {
    match running {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The end of the connection of a writer that has nothing to do. A statement finds out by itself; an idle engine would
/// not, and others would take it for dead. What rests is not polled: the end wakes the owner, once its connection was
/// looked at (`look`) while it rested.
pub(in crate::sched) async fn ended(writer: &mut Option<LaneWriter>, look: &mut bool) {
    poll_fn(|cx| match writer {
        Some(writer) => writer.poll_ended(cx, std::mem::take(look)),
        None => Poll::Pending,
    })
    .await;
}
