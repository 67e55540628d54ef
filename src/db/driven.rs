//! A connection without a task of its own: whoever awaits a statement also reads and writes the socket.
//!
//! The ordinary way costs two more wake-ups a statement, from the waiting task to the connection's and back; for a
//! lane, which has one statement in flight and nothing else to do, they are latency and nothing else.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use diesel_async::AsyncPgConnection;

/// What moves the bytes of a connection. It ends with the connection.
pub(in crate::db) struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

/// A connection with its driver.
pub(in crate::db) struct Driven {
    pub conn: AsyncPgConnection,
    pub driver: Driver,
}

impl Driver {
    pub fn new(driver: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(driver)))
    }

    /// Awaits `work`, which uses the driver's connection. Dropped midway, the connection must not be used again.
    pub async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // What the work has queued is sent in the same turn, and what has come is handed to it.
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            if let Some(driver) = self.0.as_mut() {
                if driver.as_mut().poll(cx).is_ready() {
                    self.0 = None;
                }
                return work.as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await
    }
}
