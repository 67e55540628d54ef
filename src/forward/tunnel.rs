//! Worker sockets of another engine's tenants: the upgrade is asked for there, then bytes go both ways.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helve_domain::error::Result;
use helve_domain::id::TenantId;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tower::ServiceExt;
use tracing::debug;

use super::headers::{self, NOT_OWNER, Sender};
use super::{Forwarder, Tried, client, next_hop, uri};
use crate::cluster::Peer;
use crate::failpoint::{self, Point};

/// How long the owner may take to answer an upgrade.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest refusal that is passed on.
const REFUSAL: usize = 64 << 10;
/// Bytes that one direction holds: ten thousand idle tunnels must stay cheap.
const BUFFER: usize = 8 << 10;
/// How long one side may take nothing: longer than an owner is patient with a worker.
const STALLED: Duration = Duration::from_secs(30);
/// How long the other direction may go on when one has ended: a close frame may still be on its way.
const LINGER: Duration = Duration::from_secs(3);

/// What the owner answered to an upgrade.
#[derive(Debug)]
pub enum Opened {
    /// It switches protocols.
    Switched(Switched),
    /// It refuses, and says why.
    Refused(Response<Bytes>),
}

/// A socket at the owner.
#[derive(Debug)]
pub struct Switched {
    /// The headers of the owner's answer, for the client.
    pub headers: HeaderMap,
    stream: TokioIo<Upgraded>,
}

impl Forwarder {
    /// Asks the owner for a worker socket with the client's own handshake. `None`: this engine has become the owner.
    /// With the page's `Origin`, since a ticket is bound to it; whether a page may ask at all is checked where it asks.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn open(
        &self,
        tenant: TenantId,
        sender: Sender,
        at: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Opened>> {
        let hops = next_hop(sender)?;
        let attempt = |peer: Arc<Peer>| async move { self.upgrade(&peer, hops, at, headers).await };
        self.to_owner(tenant, attempt).await
    }

    /// A socket that was opened and not used costs nothing: another attempt is always safe.
    async fn upgrade(&self, peer: &Peer, hops: u8, at: &Uri, headers: &HeaderMap) -> Tried<Opened> {
        failpoint::hit(Point::BeforeForward).await;
        match tokio::time::timeout(ANSWER, self.ask(peer, hops, at, headers)).await {
            Ok(Ok(_)) if failpoint::loses_answer(Point::AfterForward).await => Tried::NotTaken,
            Ok(Ok(Some(opened))) => Tried::Answered(opened),
            Ok(Ok(None)) => Tried::NotTaken,
            Ok(Err(e)) => {
                debug!(error = %e, node = %peer.node, "another engine gave no socket");
                Tried::NotTaken
            }
            Err(_) => Tried::NotTaken,
        }
    }

    /// `None`: that engine is not the owner.
    async fn ask(&self, peer: &Peer, hops: u8, at: &Uri, given: &HeaderMap) -> Result<Option<Opened>, Failure> {
        let target = uri(peer, at).ok_or("the address of the engine cannot be read")?;
        let stream = client::connector().oneshot(target).await?;
        let (mut sender, connection) = http1::handshake(stream).await?;
        let stopping = self.0.supervisor.stopping();
        self.0.supervisor.spawn("tunnel opening", async move {
            // What it fails with, the request on it hears too.
            tokio::select! {
                _ = connection.with_upgrades() => {}
                () = stopping.cancelled() => {}
            }
        });
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = at.clone();
        let headers = request.headers_mut();
        *headers = given.clone();
        headers::strip_request(headers);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers::put(&peer.secret, hops, headers);
        let mut response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return if response.headers().contains_key(NOT_OWNER) {
                Ok(None)
            } else {
                refusal(response).await.map(Some)
            };
        }
        let upgraded = hyper::upgrade::on(&mut response).await?;
        let mut headers = std::mem::take(response.headers_mut());
        headers::strip_answer(&mut headers);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        Ok(Some(Opened::Switched(Switched { headers, stream: TokioIo::new(upgraded) })))
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn refusal(response: Response<Incoming>) -> Result<Opened, Failure> {
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, REFUSAL).collect().await?.to_bytes();
    headers::strip_answer(&mut head.headers);
    Ok(Opened::Refused(Response::from_parts(head, body)))
}

impl Switched {
    /// Carries bytes both ways until one side ends; the other one then has a moment for its last words. Dropping the
    /// call closes both.
    pub async fn join(self, client: impl AsyncRead + AsyncWrite + Unpin) {
        let (from_owner, to_owner) = split(self.stream);
        let (from_client, to_client) = split(client);
        let (up, down) = (carry(from_client, to_owner), carry(from_owner, to_client));
        tokio::pin!(up, down);
        let rest = tokio::select! {
            () = &mut up => tokio::time::timeout(LINGER, down).await,
            () = &mut down => tokio::time::timeout(LINGER, up).await,
        };
        if rest.is_err() {
            debug!("a tunnel was cut: one side had ended, the other had not");
        }
    }
}

/// One direction, up to its end, which it passes on.
async fn carry<R: AsyncRead, W: AsyncWrite>(mut from: ReadHalf<R>, mut to: WriteHalf<W>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let write = async {
            to.write_all(&buffer[..length]).await?;
            to.flush().await
        };
        if !matches!(tokio::time::timeout(STALLED, write).await, Ok(Ok(()))) {
            return;
        }
    }
    // A side that is gone needs no word of the end.
    let _ = tokio::time::timeout(STALLED, to.shutdown()).await;
}
