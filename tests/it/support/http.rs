//! A plain HTTP client for tests: one connection a request, so that nothing is hidden by a pool.
#![expect(clippy::disallowed_methods, reason = "a test's connection lives and dies with its request")]

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The longest that a request may take: longer than the engine's own longest wait.
const LIMIT: Duration = Duration::from_secs(75);

/// Who asks, and whom.
#[derive(Debug, Clone)]
pub struct Http {
    /// `127.0.0.1:port`.
    pub authority: String,
    /// The bearer token; none asks without.
    pub token: Option<String>,
    /// The longest that a request may take.
    pub limit: Duration,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug)]
pub enum NoResponse {
    /// The connection was refused: the server saw nothing of the request.
    NotSent(String),
    /// It was sent; what the server did with it is unknown.
    Unknown(String),
}

impl Response {
    /// The body as JSON; `null` when it is empty.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{} with a body that is not JSON ({e}): {:?}", self.status, self.body))
    }

    /// A header as text; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

impl Http {
    /// A client of `url` with a token.
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
        Self { authority, token: token.map(str::to_owned), limit: LIMIT }
    }

    /// The same server with another token.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Sends a request; `headers` come on top of the usual ones and replace them.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response {
        match self.try_request(method, path, headers, body).await {
            Ok(response) => response,
            Err(e) => panic!("{method} {path} at {}: {e:?}", self.authority),
        }
    }

    /// Sends a request, and tells apart whether the server may have seen it.
    pub async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response, NoResponse> {
        let body = body.into();
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header(HOST, &self.authority);
        let given =
            |name: &hyper::header::HeaderName| headers.iter().any(|(k, _)| k.eq_ignore_ascii_case(name.as_str()));
        if let Some(token) = self.token.as_ref().filter(|_| !given(&AUTHORIZATION)) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() && !given(&CONTENT_TYPE) {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        tokio::time::timeout(self.limit, self.exchange(request))
            .await
            .unwrap_or_else(|_| Err(NoResponse::Unknown(format!("no answer within {:?}", self.limit))))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, NoResponse> {
        let unknown = |e: hyper::Error| NoResponse::Unknown(e.to_string());
        let stream = TcpStream::connect(&self.authority).await.map_err(|e| NoResponse::NotSent(e.to_string()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unknown)?;
        let connection = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(request).await.map_err(unknown)?;
            let (head, body) = response.into_parts();
            // A stream of events has no end: its head is the answer.
            let endless = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
            let body = if endless { Bytes::new() } else { body.collect().await.map_err(unknown)?.to_bytes() };
            Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
        }
        .await;
        connection.abort();
        answer
    }

    /// `GET`, with its status and JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.request("GET", path, &[], "").await;
        (response.status, response.json())
    }

    /// `POST` of JSON, with its status and JSON.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self.request("POST", path, &[], body.to_string()).await;
        (response.status, response.json())
    }

    /// `POST` of JSON with more headers, with its status and JSON.
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, Value) {
        let response = self.request("POST", path, headers, body.to_string()).await;
        (response.status, response.json())
    }

    /// `PUT` of JSON, with its status and JSON.
    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self.request("PUT", path, &[], body.to_string()).await;
        (response.status, response.json())
    }

    /// `DELETE`, with its status and JSON.
    pub async fn delete(&self, path: &str) -> (u16, Value) {
        let response = self.request("DELETE", path, &[], "").await;
        (response.status, response.json())
    }
}

/// Whether a status is one that a caller may retry.
pub fn is_retryable(status: u16) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE.as_u16() || status == StatusCode::TOO_MANY_REQUESTS.as_u16()
}
