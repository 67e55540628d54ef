//! A worker's socket without a worker: frames out, frames in, nothing on its own.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use helve_domain::error::{Error, Result};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::http::{CONNECT, Server};

/// The subprotocol of the worker socket.
pub const SUBPROTOCOL: &str = "helve.v1";
/// A peer that reads nothing for this long is gone.
const WRITE: Duration = Duration::from_secs(30);
/// The largest frame to read: the interface's 4 MiB, and room for a larger setting.
const MAX_FRAME: usize = 64 << 20;

/// A connected worker socket on which the caller sends every frame itself, right or wrong.
pub struct RawWorker {
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    stream: SplitStream<WebSocketStream<TcpStream>>,
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A frame.
    Text(Utf8Bytes),
    /// The end. `None`: the connection was lost without a close frame.
    Closed(Option<(u16, String)>),
}

impl RawWorker {
    /// Connects to the engine at `base` (`http://host:port`) with a bearer token.
    ///
    /// [`Error::Unauthenticated`] and [`Error::Forbidden`] when the engine refuses the token,
    /// [`Error::Unavailable`] when it cannot be reached or takes no sockets now.
    pub async fn connect(base: &str, token: &str) -> Result<Self> {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("sec-websocket-protocol", SUBPROTOCOL)];
        Self::connect_with(base, &headers).await
    }

    /// Connects with headers of the caller's choice; only those of the handshake are added.
    pub async fn connect_with(base: &str, headers: &[(&str, &str)]) -> Result<Self> {
        let server = Server::parse(base)?;
        if server.secure {
            return Err(Error::field("", "a worker's socket of this client goes without TLS: use an http:// URL"));
        }
        let wrong = || Error::field("", "a header or the address cannot be sent");
        let mut request =
            format!("ws://{}/v1/worker/connect", server.authority()).into_client_request().map_err(|_| wrong())?;
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).map_err(|_| wrong())?;
            request.headers_mut().insert(name, HeaderValue::try_from(*value).map_err(|_| wrong())?);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(64 << 10)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let stream = server.dial().await?;
        let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _) = tokio::time::timeout(CONNECT, handshake)
            .await
            .map_err(|_| Error::unavailable("the engine did not answer the handshake"))?
            .map_err(|err| refusal(&err))?;
        let (sink, stream) = socket.split();
        Ok(Self { sink, stream })
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(frame).map_err(|err| Error::Internal(err.to_string()))?;
        self.send_message(Message::text(text)).await
    }

    /// Sends text unchanged.
    pub async fn send_text(&mut self, text: impl Into<Utf8Bytes>) -> Result<()> {
        self.send_message(Message::Text(text.into())).await
    }

    /// Sends a message of any kind.
    pub async fn send_message(&mut self, message: Message) -> Result<()> {
        bounded(self.sink.send(message)).await
    }

    /// Puts a frame into the buffer; [`RawWorker::flush`] sends it.
    pub async fn feed(&mut self, text: String) -> Result<()> {
        bounded(self.sink.feed(Message::text(text))).await
    }

    /// Sends what was fed, and reads meanwhile into `arrived`: two sides that both only write would wait for each
    /// other.
    pub async fn flush(&mut self, arrived: &mut Vec<Incoming>) -> Result<()> {
        let Self { sink, stream } = self;
        let flushed = bounded(sink.flush());
        tokio::pin!(flushed);
        loop {
            tokio::select! {
                biased;
                done = &mut flushed => return done,
                message = stream.next() => match incoming(message) {
                    Some(Incoming::Closed(why)) => {
                        arrived.push(Incoming::Closed(why));
                        return Err(gone());
                    }
                    other => arrived.extend(other),
                },
            }
        }
    }

    /// The next frame, or the end. Waits without limit; cancel-safe.
    pub async fn recv(&mut self) -> Incoming {
        loop {
            if let Some(incoming) = incoming(self.stream.next().await) {
                return incoming;
            }
        }
    }

    /// A frame that has already arrived.
    pub fn try_recv(&mut self) -> Option<Incoming> {
        self.recv().now_or_never()
    }

    /// The next frame as a JSON tree. The end of the connection is an error with its close code.
    pub async fn recv_json(&mut self, limit: Duration) -> Result<serde_json::Value> {
        match tokio::time::timeout(limit, self.recv()).await {
            Ok(Incoming::Text(text)) => {
                serde_json::from_str(&text).map_err(|err| Error::Internal(format!("not JSON: {err}")))
            }
            Ok(Incoming::Closed(why)) => Err(Error::Internal(format!("the socket was closed: {why:?}"))),
            Err(_) => Err(Error::Internal(format!("no frame within {limit:?}"))),
        }
    }

    /// Ends the socket with a close frame and waits briefly for the other side's.
    pub async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        let goodbye = async {
            // The other side may be gone already.
            let _ = self.sink.send(Message::Close(Some(frame))).await;
            while !matches!(self.recv().await, Incoming::Closed(_)) {}
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

fn gone() -> Error {
    Error::unavailable("the socket was closed")
}

async fn bounded(write: impl Future<Output = Result<(), WsError>>) -> Result<()> {
    match tokio::time::timeout(WRITE, write).await {
        Ok(done) => done.map_err(|_| gone()),
        Err(_) => Err(Error::unavailable("the engine does not read the socket")),
    }
}

/// `None`: a message of the WebSocket protocol itself, which the library has answered.
fn incoming(message: Option<Result<Message, WsError>>) -> Option<Incoming> {
    match message {
        Some(Ok(Message::Text(text))) => Some(Incoming::Text(text)),
        Some(Ok(Message::Close(frame))) => {
            Some(Incoming::Closed(frame.map(|f| (f.code.into(), f.reason.as_str().to_owned()))))
        }
        Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => None,
        Some(Err(_)) | None => Some(Incoming::Closed(None)),
    }
}

fn refusal(err: &WsError) -> Error {
    match err {
        WsError::Http(response) if response.status() == StatusCode::UNAUTHORIZED => {
            Error::Unauthenticated("the engine does not know the token")
        }
        WsError::Http(response) if response.status() == StatusCode::FORBIDDEN => Error::Forbidden("worker"),
        _ => Error::unavailable("the engine takes no worker sockets now"),
    }
}
