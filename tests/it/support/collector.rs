//! A collector of traces: reads OTLP with the official messages, keeps what came, and answers as it is told.
#![expect(clippy::disallowed_methods, reason = "a test's collector lives and dies with its test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::wait::until;

/// How a collector answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// With this status, these headers and this body.
    With(u16, Vec<(&'static str, &'static str)>, Bytes),
    /// Never.
    Silence,
    /// With a body that has no end.
    Endless,
}

impl Answer {
    /// Everything is taken.
    pub const fn ok() -> Self {
        Self::With(200, Vec::new(), Bytes::new())
    }
}

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// Of its trace, in hexadecimal digits.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Its parent's id; empty: it has none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// The number of its kind.
    pub kind: i32,
    /// From and to, in nanoseconds.
    pub times: (u64, u64),
    /// Whether its status is an error.
    pub failed: bool,
    /// Its attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// The attributes of who sent it.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    /// An attribute; empty when it is absent.
    pub fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

struct Seen {
    answer: Answer,
    spans: Vec<Span>,
    raw: Vec<u8>,
    requests: Vec<(String, HeaderMap)>,
}

/// A running collector.
pub struct Collector {
    /// Where spans go.
    pub endpoint: String,
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// Listens on a free port and takes everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let seen = Seen { answer: Answer::ok(), spans: Vec::new(), raw: Vec::new(), requests: Vec::new() };
        let seen = Arc::new(Mutex::new(seen));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| take(Arc::clone(&shared), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { endpoint, seen, task: task.abort_handle() }
    }

    /// Answers like this from now on.
    pub fn answer(&self, answer: Answer) {
        self.seen.lock().unwrap().answer = answer;
    }

    /// Every span that was taken so far.
    pub fn spans(&self) -> Vec<Span> {
        self.seen.lock().unwrap().spans.clone()
    }

    /// Path and headers of every request.
    pub fn requests(&self) -> Vec<(String, HeaderMap)> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// Whether these bytes were in any request.
    pub fn has_seen(&self, text: &str) -> bool {
        self.seen.lock().unwrap().raw.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Waits until as many spans of this trace are there.
    pub async fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        let what = format!("{count} spans of {trace}");
        until(&what, || async {
            let mut spans = self.spans();
            spans.retain(|span| span.trace == trace);
            assert!(spans.len() <= count, "more than {what}: {spans:#?}");
            (spans.len() == count).then_some(spans)
        })
        .await
    }

    /// Waits until a span of this name is there.
    pub async fn named(&self, name: &str) -> Span {
        until(name, || async { self.spans().into_iter().find(|span| span.name == name) }).await
    }
}

async fn take(seen: Arc<Mutex<Seen>>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let answer = {
        let mut seen = seen.lock().unwrap();
        seen.requests.push((head.uri.path().to_owned(), head.headers.clone()));
        seen.raw.extend_from_slice(&bytes);
        if matches!(&seen.answer, Answer::With(200, ..)) {
            let spans = read(&bytes);
            seen.spans.extend(spans);
        }
        seen.answer.clone()
    };
    match answer {
        Answer::With(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Body::Left(Full::new(body))).unwrap())
        }
        Answer::Silence => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            Ok(Response::new(Body::Left(Full::default())))
        }
        Answer::Endless => Ok(Response::new(Body::Right(Endless))),
    }
}

type Body = http_body_util::Either<Full<Bytes>, Endless>;

/// As many bytes as anybody wants.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(Bytes::from_static(&[0; 4096])))))
    }
}

fn read(bytes: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in ExportTraceServiceRequest::decode(bytes).expect("OTLP").resource_spans {
        let resource = texts(of_resource.resource.unwrap().attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                trace: HEXLOWER.encode(&span.trace_id),
                id: HEXLOWER.encode(&span.span_id),
                parent: HEXLOWER.encode(&span.parent_span_id),
                name: span.name,
                kind: span.kind,
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                failed: span.status.is_some_and(|status| status.code == 2),
                attributes: texts(span.attributes),
                resource: resource.clone(),
            });
        }
    }
    spans
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("an attribute of another kind: {other:?}"),
    };
    attributes.into_iter().map(|a| (a.key, text(a.value.unwrap().value.unwrap()))).collect()
}
