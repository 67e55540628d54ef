//! Connecting and reconnecting, when not to, and leaving.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use helve_domain::clock::Clock;
use helve_domain::delivery::Close;
use helve_domain::error::{Error, Result};

use super::Options;
use crate::backoff::Backoff;
use crate::socket::RawWorker;

/// The back-off is returned, for the next time.
pub(super) type Dialled = (Backoff, Result<RawWorker>);

/// Connects, and keeps trying while the engine cannot be reached.
pub(super) async fn dial(options: Arc<Options>, clock: Clock, mut backoff: Backoff, wait_first: bool) -> Dialled {
    let mut wait = wait_first;
    loop {
        if wait {
            tokio::time::sleep(backoff.next(clock.instant())).await;
        }
        wait = true;
        match RawWorker::connect(&options.url, &options.token).await {
            Err(Error::Unavailable { .. }) => {}
            Ok(socket) => {
                backoff.connected(clock.instant());
                return (backoff, Ok(socket));
            }
            Err(err) => return (backoff, Err(err)),
        }
    }
}

/// The dialled socket; pending for ever while none is wanted. Cancel-safe.
pub(super) async fn finished(moving: &mut Option<BoxFuture<'static, Dialled>>) -> Dialled {
    match moving {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

/// Why to stop for good, if the close code is such a reason: reconnecting would end the same way.
pub(super) fn refusal(why: Option<(u16, String)>) -> Option<Error> {
    let (code, reason) = why?;
    let is = |close: Close| close.code() == code;
    if is(Close::Auth) {
        return Some(Error::Unauthenticated("the token is no longer valid"));
    }
    let stop = [Close::BadFrame, Close::NotAllowed, Close::Replaced, Close::TooLarge].into_iter().any(is);
    stop.then(|| Error::Internal(format!("the engine closed the socket with {code}: {reason}")))
}

/// Leaves for good: what is still held goes to other workers at once.
pub(super) async fn say_goodbye(mut socket: RawWorker) {
    // If the engine does not hear it, the end of the session's grace has the same effect later.
    if socket.send_text(r#"{"type":"goodbye"}"#).await.is_ok() {
        socket.close(Close::Normal.code(), "goodbye").await;
    }
}
