//! One WebSocket: messages wait in order for a slow peer while reading goes on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{Sink, Stream};
use helve_domain::clock::Clock;
use helve_domain::delivery::Close;
use helve_domain::limits::Limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::cluster::Standing;

/// Read and write buffers of one socket: ten thousand idle ones must stay cheap.
const BUFFER: usize = 8 << 10;
/// How long the peer may take to answer our close, and to read what was written before it.
const FAREWELL: Duration = Duration::from_secs(2);
/// Messages that wait for the peer before its own are no longer read: it must not make us pile up answers.
const CONGESTED: usize = 64;

/// How a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed, or the connection broke.
    Gone,
    /// We close with one of the protocol's own codes.
    Close(Close),
    /// The peer broke RFC 6455 itself: we close with one of its codes.
    Violation(u16),
}

/// What happened on the socket.
#[derive(Debug)]
pub(super) enum Step {
    /// A message came.
    Read(Message),
    /// Everything that waited was written.
    Flushed,
    /// Nothing more will come.
    Ended(End),
}

/// A socket with what waits to be written to it.
pub(super) struct Wire<S> {
    socket: WebSocketStream<S>,
    pending: VecDeque<Message>,
    pending_bytes: usize,
    /// The socket took a message and may still hold its bytes.
    unflushed: bool,
    /// When the peer last took something, while something waits for it.
    stalled: Option<Instant>,
    /// The reading side is over.
    ended: bool,
    /// Messages that were read too early: they come again.
    early: VecDeque<Message>,
    /// Assignments are among what waits.
    tasks: bool,
    /// While they are held: resolves when it is certain whether this process may still give work out.
    doubt: Option<BoxFuture<'static, bool>>,
    standing: Standing,
    clock: Clock,
}

/// The limits of a socket in the library's terms.
pub(super) fn config(limits: &Limits) -> WebSocketConfig {
    // One task is never split: a frame may be as long as its payloads, whose metadata grows when it is escaped.
    let longest = limits.frame_bytes.max(limits.payload_bytes + 8 * limits.metadata_bytes) + (64 << 10);
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(2 * longest)
        .max_message_size(Some(limits.frame_bytes))
        .max_frame_size(Some(limits.frame_bytes))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The server's end of an upgraded connection.
    pub(super) async fn new(stream: S, limits: &Limits, standing: Standing) -> Self {
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config(limits))).await;
        Self {
            socket,
            pending: VecDeque::new(),
            pending_bytes: 0,
            unflushed: false,
            stalled: None,
            ended: false,
            early: VecDeque::new(),
            tasks: false,
            doubt: None,
            clock: standing.clock().clone(),
            standing,
        }
    }

    /// Queues a text frame behind those that wait.
    pub(super) fn push(&mut self, text: impl Into<Utf8Bytes>) {
        self.push_message(Message::Text(text.into()));
    }

    /// Queues a frame with assignments: it leaves only while the engine's lease is trusted.
    pub(super) fn push_tasks(&mut self, text: impl Into<Utf8Bytes>) {
        self.tasks = true;
        self.push(text);
    }

    /// Gives back what was read too early, in order.
    pub(super) fn unread(&mut self, messages: Vec<Message>) {
        self.early.extend(messages);
    }

    /// Queues a protocol ping.
    pub(super) fn ping(&mut self) {
        self.push_message(Message::Ping(bytes::Bytes::new()));
    }

    fn push_message(&mut self, message: Message) {
        if !self.busy() {
            self.stalled = Some(self.clock.instant());
        }
        self.pending_bytes += message.len();
        self.pending.push_back(message);
    }

    /// Whether something waits to be written.
    pub(super) fn busy(&self) -> bool {
        self.unflushed || !self.pending.is_empty()
    }

    /// Whether so much waits that the peer should not be read.
    pub(super) fn congested(&self) -> bool {
        self.pending.len() >= CONGESTED
    }

    /// Bytes that were queued and not yet handed to the socket.
    pub(super) const fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Since when the peer took nothing of what waits for it.
    pub(super) const fn stalled_since(&self) -> Option<Instant> {
        self.stalled
    }

    /// Writes what waits and, if asked to, reads. Cancel-safe: a message is either queued or with the socket.
    pub(super) async fn step(&mut self, read: bool) -> Step {
        std::future::poll_fn(|cx| self.poll_step(cx, read)).await
    }

    fn poll_step(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Step> {
        if self.busy() {
            match self.poll_leave(cx) {
                Poll::Ready(false) => return Poll::Ready(Step::Ended(self.withdraw())),
                Poll::Ready(true) => {
                    if let Poll::Ready(written) = self.poll_write(cx) {
                        return Poll::Ready(written.map_or_else(|err| Step::Ended(end_of(&err)), |()| Step::Flushed));
                    }
                }
                // To read can mean to write: an answer to a ping takes along what the socket holds.
                Poll::Pending if self.unflushed => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        if !read {
            return Poll::Pending;
        }
        if let Some(message) = self.early.pop_front() {
            return Poll::Ready(Step::Read(message));
        }
        let step = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
            Some(Ok(message)) => Step::Read(message),
            Some(Err(err)) => Step::Ended(end_of(&err)),
            None => Step::Ended(End::Gone),
        };
        self.ended |= matches!(step, Step::Ended(_));
        Poll::Ready(step)
    }

    /// Whether what waits may be written: assignments only by the engine that owns them, and after a standstill that
    /// is another one. False: it is.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.tasks || self.standing.is_valid() {
            self.doubt = None;
            return Poll::Ready(true);
        }
        let standing = &self.standing;
        let doubt = self.doubt.get_or_insert_with(|| {
            let standing = standing.clone();
            Box::pin(async move { standing.speaks().await })
        });
        let speaks = ready!(doubt.as_mut().poll(cx));
        self.doubt = None;
        Poll::Ready(speaks)
    }

    /// Takes back what waits, and says how the socket ends: with a word, unless the socket holds a part of it.
    fn withdraw(&mut self) -> End {
        self.pending.clear();
        self.pending_bytes = 0;
        if self.unflushed {
            return End::Gone;
        }
        self.tasks = false;
        End::Close(Close::Draining)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.pending.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_ready(cx))?;
            let Some(message) = self.pending.pop_front() else { break };
            self.pending_bytes -= message.len();
            self.unflushed = true;
            self.stalled = Some(self.clock.instant());
            Pin::new(&mut self.socket).start_send(message)?;
        }
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.unflushed = false;
        self.tasks = false;
        self.stalled = None;
        Poll::Ready(Ok(()))
    }

    /// Ends the socket so that the peer sees why, in bounded time: a connection that is dropped with unread bytes is
    /// reset, and a reset may overtake the close frame.
    pub(super) async fn finish(mut self, end: End) {
        if self.tasks && !self.standing.is_valid() {
            // They would keep the farewell waiting; who comes back gets what it never had.
            self.withdraw();
        }
        if let Some(frame) = close_frame(end) {
            self.push_message(Message::Close(Some(frame)));
        } else {
            self.pending.clear();
        }
        // A peer that takes longer is cut off.
        let _ = tokio::time::timeout(FAREWELL, self.part()).await;
    }

    async fn part(mut self) {
        while self.busy() {
            if let Step::Ended(_) = self.step(false).await {
                return;
            }
        }
        while !self.ended {
            // Reading on lets the library answer the peer's close, or receive the answer to ours.
            self.step(true).await;
        }
        let mut stream = self.socket.into_inner();
        if stream.shutdown().await.is_ok() {
            let mut rest = [0; 4096];
            while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
        }
    }
}

fn close_frame(end: End) -> Option<CloseFrame> {
    let (code, reason) = match end {
        End::Gone => return None,
        End::Close(close) => (close.code(), close.reason()),
        End::Violation(code) => (code, "RFC 6455 was violated: fix the client"),
    };
    Some(CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) })
}

fn end_of(err: &Error) -> End {
    match err {
        Error::Capacity(_) => End::Close(Close::TooLarge),
        Error::Utf8(_) => End::Violation(1007),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
        Error::Protocol(_) => End::Violation(1002),
        _ => End::Gone,
    }
}
