//! A reader of server-sent events.
#![expect(clippy::disallowed_methods, reason = "a test's connection lives and dies with its reader")]

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::Http;

/// The longest wait for an event that must come.
const LIMIT: Duration = Duration::from_secs(10);

/// One event as a browser would give it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: String,
    pub name: String,
    pub data: Value,
}

/// An open stream.
pub struct Stream {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    /// The last id, which a reader goes on with.
    pub last_id: String,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Opens a stream behind an id, with a receive buffer of this size where it matters.
pub async fn open_with(client: &Http, path: &str, last_id: &str, buffer: Option<u32>) -> Stream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    let tcp = socket.connect(client.authority.parse().unwrap()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
    let connection = tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::get(path).header("host", &client.authority);
    if let Some(token) = &client.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if !last_id.is_empty() {
        request = request.header("last-event-id", last_id);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = tokio::time::timeout(LIMIT, sender.send_request(request)).await.unwrap().unwrap();
    let (head, body) = response.into_parts();
    let (status, headers) = (head.status.as_u16(), head.headers);
    Stream { status, headers, body, text: String::new(), last_id: last_id.to_owned(), connection }
}

/// Opens a stream that must be one.
pub async fn open(client: &Http, path: &str, last_id: &str) -> Stream {
    let stream = open_with(client, path, last_id, None).await;
    assert_eq!((stream.status, &stream.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    stream
}

impl Stream {
    /// The next event; `None` when the stream has ended or broken off.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = self.event(&block) {
                    return Some(event);
                }
            }
            match tokio::time::timeout(LIMIT, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.text.push_str(std::str::from_utf8(&bytes).unwrap());
                    }
                }
                Ok(Some(Err(_)) | None) => return None,
                Err(_) => panic!("no event within {LIMIT:?}"),
            }
        }
    }

    fn event(&mut self, block: &str) -> Option<Event> {
        let (mut name, mut data) = (String::new(), Vec::new());
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut self.last_id),
                Some(("event", text)) => text.clone_into(&mut name),
                Some(("data", text)) => data.push(text),
                _ => {}
            }
        }
        let data = (!data.is_empty()).then(|| serde_json::from_str(&data.join("\n")).unwrap())?;
        Some(Event { id: self.last_id.clone(), name, data })
    }

    /// The next event of this name, which must be the next one.
    pub async fn expect(&mut self, name: &str) -> Value {
        let event = self.next().await.unwrap_or_else(|| panic!("expected `{name}`, and the stream has ended"));
        assert_eq!(event.name, name, "{event:?}");
        event.data
    }

    /// Every event up to the end.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}
