//! Requests to other engines over pooled connections, and what a failure of one says about the request.

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use helve_supervisor::Supervisor;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use super::body::{BoxError, Passed};
use super::headers::{self, NOT_OWNER};
use super::places::{Connector, Placed};
use super::{Parts, Patience, Target, Tried, overtaken, uri};
use crate::cluster::{Directory, Peer};
use crate::failpoint::{self, Point};

/// How long a connection may take to be opened: engines are near each other.
const CONNECT: Duration = Duration::from_secs(1);
/// Idle connections that are kept to one engine, and for how long: shorter than the receiver keeps them.
const IDLE: (usize, Duration) = (256, Duration::from_secs(30));
/// A peer that does not acknowledge what was sent for this long is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request as it goes on: read whole, so that it can be sent again.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// The headers of the client; what belongs to its connection is removed on the way.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Outgoing {
    /// Whether it may be sent again although the owner may have acted on it.
    fn is_repeatable(&self) -> bool {
        // A cancelled run is cancelled again with success.
        let cancels = self.uri.path().ends_with("/cancel");
        cancels || self.method.is_idempotent() || self.headers.contains_key(IDEMPOTENCY_KEY)
    }

    /// Whether the client asks for an answer that comes later.
    fn waits(&self) -> bool {
        let query = self.uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("wait=")));
        let preferred = || {
            let lines = self.headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
            lines.into_iter().any(|line| line.to_ascii_lowercase().contains("wait"))
        };
        query || preferred()
    }
}

/// Sends requests to other engines.
pub(super) struct Client {
    pool: Pool<Connector, Full<Bytes>>,
    connector: Connector,
    /// The longest `wait` of a request.
    wait: Duration,
    patience: Patience,
    directory: Directory,
    /// This engine takes no more requests.
    closing: CancellationToken,
    /// How long a request may go on then.
    farewell: Duration,
}

/// Connections are tasks of the supervisor.
#[derive(Clone)]
struct Tasks(Supervisor);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let stopping = self.0.stopping();
        self.0.spawn("peer connection", async move {
            tokio::select! {
                _ = task => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}

/// Opens connections to engines.
fn connector(places: Arc<Semaphore>) -> Connector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(UNACKNOWLEDGED));
    connector.set_keepalive_interval(Some(UNACKNOWLEDGED / 2));
    connector.set_keepalive_retries(Some(2));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    Connector { inner: connector, places }
}

impl Client {
    pub(super) fn new(parts: &Parts, supervisor: &Supervisor) -> Self {
        let connector = connector(Arc::clone(&parts.places));
        let pool = Pool::builder(Tasks(supervisor.clone()))
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE.0)
            .pool_idle_timeout(IDLE.1)
            .build(connector.clone());
        let (closing, patience) = (parts.closing.clone(), parts.patience);
        // The answer must still be written before everything is cut.
        let directory = parts.directory.clone();
        Self { pool, connector, wait: parts.wait, patience, directory, closing, farewell: parts.drain / 2 }
    }

    /// Opens a connection of its own to an engine.
    pub(super) async fn connect(&self, to: Uri) -> Result<Placed, BoxError> {
        self.connector.clone().oneshot(to).await
    }

    /// How long a request may take.
    pub(super) fn limit(&self, request: &Outgoing) -> Duration {
        self.patience.answer + if request.waits() { self.wait } else { Duration::ZERO }
    }

    /// Sends a request to an engine, and gives its answer as soon as its head is there.
    pub(super) async fn send(&self, to: Target<'_>, request: &Outgoing, limit: Duration) -> Tried<Response<Passed>> {
        let peer = to.peer;
        let Some(outgoing) = build(peer, to.hops, request) else {
            return Tried::NotTaken;
        };
        failpoint::hit(Point::BeforeForward).await;
        let answer = tokio::select! {
            answer = tokio::time::timeout(limit, self.pool.request(outgoing)) => answer,
            // Who waits for a run elsewhere must not be cut off with this engine.
            () = self.last_call() => return Tried::Lost,
            () = self.overtaken(to) => return if request.is_repeatable() { Tried::Overtaken } else { Tried::Lost },
        };
        let lost = || if request.is_repeatable() { Tried::NotTaken } else { Tried::Lost };
        match answer {
            Ok(Ok(response)) if response.headers().contains_key(NOT_OWNER) => Tried::NotTaken,
            Ok(Ok(_)) if failpoint::loses_answer(Point::AfterForward).await => lost(),
            Ok(Ok(response)) => Tried::Answered(self.passed(to, response)),
            Ok(Err(e)) => {
                debug!(error = %e, cause = e.source(), node = %peer.node, "a request to another engine failed");
                if was_not_sent(&e) { Tried::NotTaken } else { lost() }
            }
            // Once more would take as long again.
            Err(_) => Tried::Lost,
        }
    }

    /// Resolves when this engine stops and open requests have had their time.
    async fn last_call(&self) {
        self.closing.cancelled().await;
        tokio::time::sleep(self.farewell).await;
    }

    fn overtaken(&self, by: Target<'_>) -> impl Future<Output = ()> + Send + 'static {
        overtaken(&self.directory, by.tenant, by.peer.node, self.patience.moved)
    }

    fn passed(&self, from: Target<'_>, response: Response<Incoming>) -> Response<Passed> {
        let (mut head, body) = response.into_parts();
        let streams = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(EVENTS));
        headers::strip_answer(&mut head.headers);
        let (limit, ending) = if streams {
            let (closing, overtaken) = (self.closing.clone(), self.overtaken(from));
            let ending = async move {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = overtaken => {}
                }
            };
            (self.patience.silence, Some(ending.boxed()))
        } else {
            (self.patience.answer, None)
        };
        Response::from_parts(head, Passed::new(body, limit, ending))
    }
}

const EVENTS: &[u8] = b"text/event-stream";

fn build(peer: &Peer, hops: u8, request: &Outgoing) -> Option<Request<Full<Bytes>>> {
    let mut outgoing = Request::new(Full::new(request.body.clone()));
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = uri(peer, &request.uri)?;
    *outgoing.headers_mut() = request.headers.clone();
    headers::strip_request(outgoing.headers_mut());
    headers::put(&peer.secret, hops, outgoing.headers_mut());
    Some(outgoing)
}

/// Whether nothing of the request can have arrived: no connection, or one that was closed before it was used.
fn was_not_sent(error: &hyper_util::client::legacy::Error) -> bool {
    let canceled = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    };
    error.is_connect() || error.source().is_some_and(canceled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue as Value;

    fn request(method: Method, uri: &'static str, headers: &[(&'static str, &'static str)]) -> Outgoing {
        let pair =
            |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), Value::from_static(value));
        Outgoing { method, uri: Uri::from_static(uri), headers: headers.iter().map(pair).collect(), body: Bytes::new() }
    }

    #[test]
    fn only_what_changes_nothing_twice_is_repeated() {
        assert!(request(Method::PUT, "/v1/workflows/a", &[]).is_repeatable());
        assert!(request(Method::DELETE, "/v1/workflows/a", &[]).is_repeatable());
        assert!(request(Method::GET, "/v1/workers", &[]).is_repeatable());
        assert!(request(Method::POST, "/v1/runs", &[("idempotency-key", "k")]).is_repeatable());
        assert!(request(Method::POST, "/v1/runs/run_1/cancel", &[]).is_repeatable());
        assert!(!request(Method::POST, "/v1/runs", &[]).is_repeatable());
        assert!(!request(Method::POST, "/v1/runs/bulk", &[]).is_repeatable());
    }

    #[test]
    fn a_wait_is_seen_where_it_may_stand() {
        assert!(request(Method::POST, "/v1/runs?a=b&wait=60s", &[]).waits());
        assert!(request(Method::POST, "/v1/runs", &[("prefer", "respond-async, Wait = 30")]).waits());
        assert!(!request(Method::POST, "/v1/runs?await=1", &[("prefer", "return=minimal")]).waits());
    }
}
