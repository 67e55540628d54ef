//! The worker socket from outside: frames, refusals, close codes, sessions.

mod attempts;
mod conformance;
mod documented;
mod examples;
mod frames;
mod ghosts;
mod life;
mod opening;
mod resume;
mod slots;
mod tickets;

use futures_util::StreamExt;

use crate::support::{Engine, Worker, worker};

/// An engine's worker for the action `work`, whose workflow is registered, with two slots.
async fn ready(engine: &Engine) -> Worker {
    engine.workflow("work").await;
    worker(engine, &["work"], 2).await
}

/// The next text frame as it stands on the wire.
async fn text(worker: &mut Worker) -> String {
    let next = async {
        loop {
            let message = worker.socket.next().await.unwrap().unwrap();
            if message.is_text() {
                return message.into_text().unwrap().to_string();
            }
        }
    };
    tokio::time::timeout(crate::support::worker::FRAME, next).await.unwrap()
}
