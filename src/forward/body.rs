//! The body of another engine's answer, passed on as it comes and given up when nothing comes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

/// Why a body ended early.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that must go on: each part of it within a time.
pub struct Passed {
    body: Incoming,
    limit: Duration,
    due: Pin<Box<Sleep>>,
    /// For a stream without end: resolves when it should end, since this engine stops or the other one is not the owner any more.
    ending: Option<BoxFuture<'static, ()>>,
}

impl Passed {
    /// Gives up `body` when nothing of it came for `limit`, and ends it in good order at `ending`.
    pub(super) fn new(body: Incoming, limit: Duration, ending: Option<BoxFuture<'static, ()>>) -> Self {
        Self { body, limit, due: Box::pin(tokio::time::sleep(limit)), ending }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.due.set(tokio::time::sleep(this.limit));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.ending.as_mut().is_some_and(|ending| ending.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(None);
        }
        if this.due.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the owner's answer did not go on".into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
