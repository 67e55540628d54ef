//! Worker sockets of another engine's tenants: the upgrade is asked for there, then bytes go both ways.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use helve_domain::delivery::Close;
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
use tracing::debug;

use super::frames::Frames;
use super::headers::{self, NOT_OWNER, Sender};
use super::{Forwarder, Target, Tried, next_hop, overtaken, uri};
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
/// How long a client may take to read that its socket ends, and to end it.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the owner answered to an upgrade.
#[derive(Debug)]
pub enum Opened {
    /// It switches protocols.
    Switched(Switched),
    /// It refuses, and says why.
    Refused(Response<Bytes>),
}

/// A socket at the owner.
pub struct Switched {
    /// The headers of the owner's answer, for the client.
    pub headers: HeaderMap,
    stream: TokioIo<Upgraded>,
    /// Resolves when the engine at the other end is not the owner any more.
    overtaken: BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Switched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switched").field("headers", &self.headers).finish_non_exhaustive()
    }
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
        let attempt =
            |peer: Arc<Peer>| async move { self.upgrade(Target { tenant, peer: &peer, hops }, at, headers).await };
        self.to_owner(tenant, attempt).await
    }

    /// A socket that was opened and not used costs nothing: another attempt is always safe.
    async fn upgrade(&self, to: Target<'_>, at: &Uri, headers: &HeaderMap) -> Tried<Opened> {
        failpoint::hit(Point::BeforeForward).await;
        let asked = tokio::select! {
            asked = tokio::time::timeout(ANSWER, self.ask(to, at, headers)) => asked,
            () = self.overtaken(to) => return Tried::Overtaken,
        };
        match asked {
            Ok(Ok(_)) if failpoint::loses_answer(Point::AfterForward).await => Tried::NotTaken,
            Ok(Ok(Some(opened))) => Tried::Answered(opened),
            Ok(Ok(None)) => Tried::NotTaken,
            Ok(Err(e)) => {
                debug!(error = %e, node = %to.peer.node, "another engine gave no socket");
                Tried::NotTaken
            }
            Err(_) => Tried::NotTaken,
        }
    }

    /// `None`: that engine is not the owner.
    async fn ask(&self, to: Target<'_>, at: &Uri, given: &HeaderMap) -> Result<Option<Opened>, Failure> {
        let Target { peer, hops, .. } = to;
        let target = uri(peer, at).ok_or("the address of the engine cannot be read")?;
        let stream = self.0.client.connect(target).await?;
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
        let overtaken = self.overtaken(to).boxed();
        Ok(Some(Opened::Switched(Switched { headers, stream: TokioIo::new(upgraded), overtaken })))
    }

    fn overtaken(&self, by: Target<'_>) -> impl Future<Output = ()> + Send + 'static {
        overtaken(&self.0.directory, by.tenant, by.peer.node, self.0.patience.moved)
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
    /// Carries bytes both ways until one side ends; the other one then has a moment for its last words. Ends as well
    /// when the engine at the other end is not the owner any more, and at `ending`: then the client hears from here
    /// that it should connect again. Dropping the call closes both.
    pub async fn join(self, client: impl AsyncRead + AsyncWrite + Unpin, ending: impl Future<Output = ()>) {
        let (mut from_owner, mut to_owner) = split(self.stream);
        let (mut from_client, mut to_client) = split(client);
        let mut told = Frames::default();
        let cut = {
            let up = carry(&mut from_client, &mut to_owner, |_| ());
            let down = carry(&mut from_owner, &mut to_client, |bytes| told.pass(bytes));
            tokio::pin!(up, down);
            let both = async {
                tokio::select! {
                    () = &mut up => tokio::time::timeout(LINGER, down).await,
                    () = &mut down => tokio::time::timeout(LINGER, up).await,
                }
            };
            tokio::select! {
                rest = both => {
                    if rest.is_err() {
                        debug!("a tunnel was cut: one side had ended, the other had not");
                    }
                    false
                }
                () = self.overtaken => {
                    debug!("a tunnel is cut: another engine is the owner now");
                    true
                }
                () = ending => true,
            }
        };
        let farewell = match told.farewell(Close::Draining) {
            _ if !cut => return,
            Some(farewell) => farewell,
            None if told.are_closed() => Vec::new(),
            // In the middle of a frame nothing can be said: the client sees that the connection ends.
            None => return,
        };
        let _ = tokio::time::timeout(FAREWELL, part(&farewell, from_client, to_client)).await;
    }
}

/// Says goodbye, and reads until the client has heard it: a connection that is dropped with unread bytes is reset, and
/// a reset may overtake the last word.
async fn part<C: AsyncRead + AsyncWrite>(farewell: &[u8], mut from: ReadHalf<C>, mut to: WriteHalf<C>) {
    let said = async {
        to.write_all(farewell).await?;
        to.shutdown().await
    };
    if said.await.is_ok() {
        let mut rest = [0; 4096];
        while matches!(from.read(&mut rest).await, Ok(1..)) {}
    }
}

/// One direction, up to its end, which it passes on. `passed` hears of every byte that was taken: the call may be
/// dropped anywhere.
async fn carry<R: AsyncRead, W: AsyncWrite>(
    from: &mut ReadHalf<R>,
    to: &mut WriteHalf<W>,
    mut passed: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut left = &buffer[..length];
        let write = async {
            while !left.is_empty() {
                let taken = to.write(left).await?;
                if taken == 0 {
                    return Err(ErrorKind::WriteZero.into());
                }
                passed(&left[..taken]);
                left = &left[taken..];
            }
            to.flush().await
        };
        if !matches!(tokio::time::timeout(STALLED, write).await, Ok(Ok(()))) {
            return;
        }
    }
    // A side that is gone needs no word of the end.
    let _ = tokio::time::timeout(STALLED, to.shutdown()).await;
}
