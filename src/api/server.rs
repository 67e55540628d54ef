//! The accept loop: connections in, bounded in number, patience and header size, and tracked to their end.

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use helve_supervisor::Supervisor;
use hyper::body::{Body as _, Incoming};
use hyper::header::EXPECT;
use hyper::server::conn::http1;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, info_span, warn};

/// Headers of one request.
const MAX_HEADERS: usize = 64;
/// Bytes of all headers of one request.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// How often a connection is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// What a client hears that waits for long, and sends no more.
const INTERIM: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";
const INTERIM_LENGTH: usize = INTERIM.len();
/// How long to wait when the process has no file descriptor left: connections must end first.
const EXHAUSTED: Duration = Duration::from_millis(200);

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the connection to the end of the first request's headers.
    pub first: Duration,
    /// From an answer to the end of the next request's headers. Load balancers keep idle connections for
    /// 60 s and must be the ones to close them.
    pub next: Duration,
    /// For a client that takes nothing of its answer.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_secs(10), next: Duration::from_secs(75), write: Duration::from_secs(60) }
    }
}

/// The HTTP entry of an engine.
pub struct Server {
    /// Where connections arrive.
    pub listener: TcpListener,
    /// What answers them.
    pub router: Router,
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Files for connections, which those to other engines take, too.
    pub places: Arc<Semaphore>,
    /// How long clients may take to ask.
    pub patience: Patience,
    /// When cancelled: accept no more, let the open requests finish, close what is idle.
    pub closing: CancellationToken,
}

/// The connections of a server that do not belong to a WebSocket.
pub struct Connections(TaskTracker);

impl Connections {
    /// Resolves when all have ended: after closing, each ends with the request that it serves.
    pub async fn all_closed(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

impl Server {
    /// Serves until closing. Connections are tasks of `supervisor`.
    pub fn start(self, supervisor: &Supervisor) -> Connections {
        let (tasks, open) = (supervisor.clone(), TaskTracker::new());
        let connections = Connections(open.clone());
        supervisor.spawn_vital("http", async move {
            // The signal ends this loop before the supervisor stops: it is not a failure then.
            let stopping = tasks.stopping();
            self.accept(&tasks, &open).await;
            stopping.cancelled().await;
        });
        connections
    }

    async fn accept(self, supervisor: &Supervisor, open: &TaskTracker) {
        let Self { listener, router, connections, places, patience, closing } = self;
        let permits = Arc::new(Semaphore::new(connections));
        loop {
            let both = async {
                let permit = Arc::clone(&permits).acquire_owned().await?;
                Ok::<_, AcquireError>([permit, Arc::clone(&places).acquire_owned().await?])
            };
            // Closed never: nobody closes the semaphores.
            let permits = tokio::select! {
                () = closing.cancelled() => return,
                permits = both => match permits {
                    Ok(permits) => permits,
                    Err(_) => return,
                },
            };
            let accepted = tokio::select! {
                () = closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let exchange = Arc::new(Exchange::default());
                    let asked = Arc::clone(&exchange);
                    let counted =
                        Counted { stream, _permits: permits, patience: patience.write, stalled: None, exchange };
                    let connection = serve(counted, asked, router.clone(), patience, closing.clone());
                    let span = info_span!("connection", peer = %peer.ip());
                    supervisor.spawn_in(span, open.track_future(connection));
                }
                Err(e) if is_of_the_peer(e.kind()) => debug!(error = %e, "a connection died before it was accepted"),
                Err(e) => {
                    warn!(error = %e, "no connection can be accepted, trying again");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }
}

/// Errors of `accept` that concern one connection only: the next one may come at once.
fn is_of_the_peer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

async fn serve(
    counted: Counted,
    exchange: Arc<Exchange>,
    router: Router,
    patience: Patience,
    closing: CancellationToken,
) {
    // Small frames must not wait for the acknowledgement of the last one. Fails only on a dead socket.
    let _ = counted.stream.set_nodelay(true);
    let (begins, ends) = (Arc::clone(&exchange), Arc::clone(&exchange));
    let service = router.map_request(move |request: Request<Incoming>| {
        begins.begin(&request);
        request.map(Body::new)
    });
    let service = ServiceExt::<Request<Incoming>>::map_response(service, move |response: Response<Body>| {
        ends.answer(&response);
        response
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience.next).max_headers(MAX_HEADERS);
    // A client that has said all it had to say still listens.
    builder.max_header_size(MAX_HEADER_BYTES).half_close(true);
    let connection = builder.serve_connection(TokioIo::new(counted), TowerToHyperService::new(service)).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut due = std::pin::pin!(tokio::time::sleep(patience.first.min(LOOK)));
    let (mut waited, mut finishing) = (patience.first.min(LOOK), false);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = due.as_mut() => {
                if waited >= patience.first && !exchange.asked.load(Ordering::Relaxed) {
                    return;
                }
                waited += LOOK;
                let next = due.deadline() + LOOK;
                due.as_mut().reset(next);
                // The connection looks when it is polled, which is now.
                exchange.look.store(true, Ordering::Relaxed);
            }
            () = closing.cancelled(), if !finishing => {
                connection.as_mut().graceful_shutdown();
                finishing = true;
            }
        }
    };
    if let Err(e) = ended {
        debug!(error = %e, "connection ended");
    }
}

/// What a connection and the one who serves it tell each other.
#[derive(Default)]
struct Exchange {
    /// There was a request.
    asked: AtomicBool,
    /// How far the last one is: one of the numbers below.
    stage: AtomicU8,
    /// Whether the client is still there should be looked at.
    look: AtomicBool,
}

/// A request is there of which nothing is answered yet, and whose client takes interim answers.
const UNANSWERED: u8 = 1;
/// It is being answered, or has been.
const ANSWERED: u8 = 2;
/// It is being answered with a body that has no length: a stream of events.
const STREAMING: u8 = 3;
/// A request whose client takes no interim answers, or gets one by itself.
const UNTOLD: u8 = 4;

impl Exchange {
    fn begin(&self, request: &Request<Incoming>) {
        self.asked.store(true, Ordering::Relaxed);
        let told = request.version() == Version::HTTP_11 && !request.headers().contains_key(EXPECT);
        self.stage.store(if told { UNANSWERED } else { UNTOLD }, Ordering::Relaxed);
    }

    fn answer(&self, response: &Response<Body>) {
        if response.body().size_hint().exact().is_none() {
            self.stage.store(STREAMING, Ordering::Relaxed);
        }
    }

    fn wrote(&self) {
        if self.stage.load(Ordering::Relaxed) == UNANSWERED {
            self.stage.store(ANSWERED, Ordering::Relaxed);
        }
    }

    /// Whether a client that sends no more should be looked for.
    fn is_due(&self) -> bool {
        let look = self.look.load(Ordering::Relaxed);
        if look {
            self.look.store(false, Ordering::Relaxed);
        }
        match self.stage.load(Ordering::Relaxed) {
            UNANSWERED => look,
            // It says nothing for long, and holds a place meanwhile.
            STREAMING => true,
            _ => false,
        }
    }
}

/// A connection that counts as long as it is open, also when a WebSocket has taken it over.
struct Counted {
    stream: TcpStream,
    _permits: [OwnedSemaphorePermit; 2],
    patience: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    exchange: Arc<Exchange>,
}

impl Counted {
    /// A client that takes nothing for too long is cut: its answer must not stay in memory.
    fn patient(&mut self, cx: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            self.exchange.wrote();
            return written;
        }
        let patience = self.patience;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        timer.as_mut().poll(cx).map(|()| Err(ErrorKind::TimedOut.into()))
    }

    /// A client that sends no more may wait for its answer, or be gone: to TCP both look the same until something is
    /// sent. So one that waits for long gets an interim answer, which every client of HTTP/1.1 has to pass over; from
    /// one that is gone comes a reset, and the next look finds it. Into a stream nothing can be put: there it counts as
    /// gone.
    fn look(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let mut byte = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) if self.exchange.stage.load(Ordering::Relaxed) == STREAMING => {
                Err(ErrorKind::BrokenPipe.into())
            }
            Poll::Ready(Ok(0)) => match self.stream.try_write(INTERIM) {
                Ok(INTERIM_LENGTH) => Ok(()),
                Ok(_) => Err(ErrorKind::BrokenPipe.into()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
                Err(e) => Err(e),
            },
            Poll::Ready(Err(e)) => Err(e),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.patient(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, b: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, b);
        self.patient(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.exchange.is_due() {
            self.look(cx)?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
