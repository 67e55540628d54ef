//! A lean HTTP/1.1 client for JSON: keep-alive connections, one token, a limit on every wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Fuse;
use helve_domain::error::{Error, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls;

/// How long a connection may take to be opened.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: the longest `wait` of the interface, and a little more.
const ANSWER: Duration = Duration::from_secs(65);
/// Connections kept for later requests.
const KEPT: usize = 512;
/// The largest answer to read.
const MAX_ANSWER: usize = 64 << 20;

/// Talks to one engine. Clones share the kept connections; a request takes one for itself.
#[derive(Clone)]
pub struct Http(Arc<Shared>);

struct Shared {
    server: Server,
    tls: Option<Arc<ClientConfig>>,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    /// The largest answer to read.
    max_answer: usize,
    idle: Mutex<Vec<Connection>>,
}

/// Where an engine listens, taken from its base URL.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether its URL says `https`: a proxy in front of the engine terminates the TLS.
    pub(super) secure: bool,
}

impl Server {
    /// From `http://host:port` or `https://host`.
    pub(super) fn parse(base: &str) -> Result<Self> {
        let wrong = || Error::field("", format!("`{base}` is not a base URL like http://127.0.0.1:7733"));
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let bare = uri.path() == "/" && uri.query().is_none();
        let secure = uri.scheme_str() == Some("https");
        if !(secure || uri.scheme_str() == Some("http")) || !bare {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }), secure })
    }

    /// As written in the `Host` header.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Opens a connection that sends small frames at once.
    pub(super) async fn dial(&self) -> Result<TcpStream> {
        let refused = || Error::unavailable("no connection to the engine");
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(|_| refused())?
            .map_err(|_| refused())?;
        stream.set_nodelay(true).map_err(|_| refused())?;
        Ok(stream)
    }
}

/// What the engine answered.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// The body as JSON of a known form.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|err| Error::Internal(format!("the engine's answer has another form than expected: {err}")))
    }
}

impl Http {
    /// A client of the engine at `base` (`http://host:port` or `https://host`); without a token it is unauthenticated.
    pub fn new(base: &str, token: Option<&str>) -> Result<Self> {
        let authorization = token
            .map(|token| HeaderValue::try_from(format!("Bearer {token}")))
            .transpose()
            .map_err(|_| Error::Unauthenticated("the token has characters that no token has"))?;
        let server = Server::parse(base)?;
        let tls = if server.secure { Some(tls::config()?) } else { None };
        let idle = Mutex::default();
        Ok(Self(Arc::new(Shared { server, tls, authorization, timeout: ANSWER, max_answer: MAX_ANSWER, idle })))
    }

    /// The same engine with another limit on the duration of a request; shares no connections.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.limited(timeout, self.0.max_answer)
    }

    /// As [`Http::with_timeout`], and with another limit on the size of an answer.
    #[must_use]
    pub fn limited(&self, timeout: Duration, max_answer: usize) -> Self {
        let Shared { server, tls, authorization, .. } = &*self.0;
        let (server, tls, authorization) = (server.clone(), tls.clone(), authorization.clone());
        Self(Arc::new(Shared { server, tls, authorization, timeout, max_answer, idle: Mutex::default() }))
    }

    /// One request. The client itself fails in two ways: [`Error::Unavailable`] if the engine cannot have received the
    /// request, and [`Error::OutcomeUnknown`] if it may have and the answer is lost. Every status, 5xx included, is an
    /// answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<Response> {
        let request = self.build(method, path, headers, body)?;
        // At the limit, the connection is dropped with the request on it.
        tokio::time::timeout(self.0.timeout, self.exchange(request)).await.unwrap_or(Err(Error::OutcomeUnknown))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Response> {
        self.request(Method::GET, path, &[], None).await
    }

    /// `POST` of a JSON document.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Response> {
        self.request(Method::POST, path, &[], Some(body.into())).await
    }

    /// `PUT` of a JSON document.
    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Result<Response> {
        self.request(Method::PUT, path, &[], Some(body.into())).await
    }

    fn build(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>> {
        let wrong = |what: &str| Error::field("", format!("the request has a {what} that HTTP does not allow"));
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| wrong("path"))?;
        let own = request.headers_mut();
        own.insert(HOST, HeaderValue::try_from(self.0.server.authority()).map_err(|_| wrong("host"))?);
        if let Some(authorization) = &self.0.authorization {
            own.insert(AUTHORIZATION, authorization.clone());
        }
        if body.is_some() {
            own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).map_err(|_| wrong("header name"))?;
            own.insert(name, HeaderValue::try_from(*value).map_err(|_| wrong("header value"))?);
        }
        *request.body_mut() = Full::new(body.unwrap_or_default());
        Ok(request)
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Response> {
        while let Some(mut kept) = self.take() {
            match kept.send(request, self.0.max_answer).await {
                Ok(response) => return Ok(self.keep(kept, response)),
                Err(Failure::Lost) => return Err(Error::OutcomeUnknown),
                // The engine had closed it while it was idle: nothing was sent.
                Err(Failure::NotSent(unsent)) => request = *unsent,
            }
        }
        let mut fresh = Connection::open(&self.0.server, self.0.tls.as_ref()).await?;
        match fresh.send(request, self.0.max_answer).await {
            Ok(response) => Ok(self.keep(fresh, response)),
            Err(Failure::NotSent(_)) => Err(Error::unavailable("the engine closed the connection")),
            Err(Failure::Lost) => Err(Error::OutcomeUnknown),
        }
    }

    /// A kept connection that is still open, the most recently used first.
    fn take(&self) -> Option<Connection> {
        loop {
            let mut kept = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if (&mut kept.driver).now_or_never().is_none() {
                return Some(kept);
            }
        }
    }

    fn keep(&self, connection: Connection, response: Response) -> Response {
        if !connection.sender.is_closed() {
            let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(connection);
            }
        }
        response
    }
}

/// One connection. Between requests nobody drives it; the request that uses it does.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
}

type Driver = Fuse<Pin<Box<dyn Future<Output = ()> + Send>>>;

enum Failure {
    /// Nothing was sent.
    NotSent(Box<Request<Full<Bytes>>>),
    /// It may have arrived.
    Lost,
}

impl Connection {
    async fn open(server: &Server, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let stream = server.dial().await?;
        match tls {
            Some(tls) => Self::over(tls::wrap(tls, &server.host, stream).await?).await,
            None => Self::over(stream).await,
        }
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Error::unavailable("the engine closed the connection"))?;
        // Its failure also reaches the request on it.
        let driver: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(connection.map(drop));
        Ok(Self { sender, driver: driver.fuse() })
    }

    async fn send(&mut self, request: Request<Full<Bytes>>, max_answer: usize) -> Result<Response, Failure> {
        if drive(&mut self.driver, self.sender.ready()).await.is_err() {
            return Err(Failure::NotSent(Box::new(request)));
        }
        let answer = self.sender.try_send_request(request);
        let (head, body) = match drive(&mut self.driver, answer).await {
            Ok(response) => response.into_parts(),
            Err(mut err) => {
                return Err(err.take_message().map_or(Failure::Lost, |unsent| Failure::NotSent(Box::new(unsent))));
            }
        };
        let body =
            drive(&mut self.driver, Limited::new(body, max_answer).collect()).await.map_err(|_| Failure::Lost)?;
        Ok(Response { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

/// Waits for `work` and moves the connection's bytes meanwhile. The bytes go first, so that what they bring is seen in
/// the same turn.
async fn drive<T>(driver: &mut Driver, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            () = &mut *driver => {}
            out = &mut work => return out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn listener() -> (TcpListener, Http) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        (listener, Http::new(&base, Some("helve_x")).unwrap())
    }

    async fn read_request(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0);
        }
        String::from_utf8(text).unwrap()
    }

    const OK: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";

    #[tokio::test]
    async fn one_connection_serves_many_requests_and_a_closed_one_is_replaced() {
        let (listener, client) = listener().await;
        let server = async {
            let (mut first, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let text = read_request(&mut first).await;
                assert!(text.starts_with("POST /v1/runs HTTP/1.1\r\n"), "{text}");
                assert!(text.contains("authorization: Bearer helve_x\r\n"), "{text}");
                first.write_all(OK).await.unwrap();
            }
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            read_request(&mut second).await;
            second.write_all(OK).await.unwrap();
        };
        let requests = async {
            for _ in 0..3 {
                let response = client.post("/v1/runs", "{}").await.unwrap();
                assert_eq!(response.status, StatusCode::CREATED);
                assert_eq!(response.json::<serde_json::Value>().unwrap()["a"], 1);
            }
        };
        tokio::join!(server, requests);
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_unknown_and_a_refusal_is_not() {
        let (listener, client) = listener().await;
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
        };
        let (lost, ()) = tokio::join!(client.post("/v1/runs", "{}"), server);
        assert!(matches!(lost, Err(Error::OutcomeUnknown)));

        let client = client.with_timeout(Duration::from_millis(50));
        let (late, accepted) = tokio::join!(client.post("/v1/runs", "{}"), listener.accept());
        assert!(matches!(late, Err(Error::OutcomeUnknown)));
        drop((accepted, listener));
        assert!(matches!(client.post("/v1/runs", "{}").await, Err(Error::Unavailable { .. })));
    }

    #[test]
    fn base_urls() {
        assert_eq!(Server::parse("http://127.0.0.1:7733").unwrap().authority(), "127.0.0.1:7733");
        assert_eq!(Server::parse("http://[::1]:7733/").unwrap().authority(), "[::1]:7733");
        assert_eq!(Server::parse("http://helve.local").unwrap().authority(), "helve.local:80");
        assert_eq!(Server::parse("https://helve.example").unwrap().authority(), "helve.example:443");
        for wrong in ["127.0.0.1:7733", "ftp://h", "http://h/v1", "http://h?x=1", ""] {
            assert!(Server::parse(wrong).is_err(), "{wrong}");
        }
    }
}
