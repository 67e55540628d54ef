//! Other engines played by a test: what they get, and what becomes of their answers and failures.
#![expect(clippy::disallowed_methods, reason = "a test's tasks live and die with its runtime")]

mod moves;
mod sockets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::{NodeId, TenantId};
use helve_domain::secret::Secret;
use helve_supervisor::Supervisor;
use http_body_util::BodyExt;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Response, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Forwarder, Outgoing, Parts, Passed, Patience, Sender};
use crate::cluster::{Directory, Peer, Place};

const CLIENT: Sender = Sender::Client { hops: 0 };
/// Connections to engines that a test plays.
const PLACES: u32 = 8;
const LIMIT: Duration = Duration::from_secs(5);

/// A forwarder with what is around it.
struct Bench {
    forwarder: Forwarder,
    directory: Directory,
    closing: CancellationToken,
    places: Arc<Semaphore>,
    tenant: TenantId,
    clock: Clock,
}

impl Bench {
    fn new(place: &Place) -> Self {
        let (clock, directory, closing) = (Clock::system(), Directory::everywhere(place), CancellationToken::new());
        let patience = Patience {
            find: Duration::from_millis(800),
            own: Duration::from_millis(300),
            answer: Duration::from_millis(500),
            silence: Duration::from_millis(700),
            moved: Duration::from_millis(100),
        };
        let places = Arc::new(Semaphore::new(PLACES as usize));
        let parts = Parts {
            directory: directory.clone(),
            secret: Secret::new("own"),
            wait: Duration::from_secs(2),
            closing: closing.clone(),
            drain: Duration::from_millis(200),
            patience,
            places: Arc::clone(&places),
            clock: clock.clone(),
        };
        let forwarder = Forwarder::new(parts, &Supervisor::default());
        Self { forwarder, directory, closing, places, tenant: TenantId::generate(clock.now()), clock }
    }

    async fn send(&self, request: &Outgoing) -> Result<Option<Response<Passed>>> {
        tokio::time::timeout(LIMIT, self.forwarder.send(self.tenant, CLIENT, request)).await.unwrap()
    }

    /// The answer's status and body.
    async fn answer(&self, request: &Outgoing) -> (u16, String) {
        let response = self.send(request).await.unwrap().unwrap();
        (response.status().as_u16(), text(response.into_body().collect().await.unwrap().to_bytes()))
    }

    fn since(&self, started: Instant) -> Duration {
        self.clock.instant().duration_since(started)
    }
}

fn text(bytes: Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn request(method: Method, uri: &'static str, body: impl Into<Bytes>) -> Outgoing {
    Outgoing { method, uri: Uri::from_static(uri), headers: headers(&[("host", "api.example")]), body: body.into() }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> hyper::HeaderMap {
    let pair =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    pairs.iter().map(pair).collect()
}

/// A listener that is another engine, and the place that it is.
async fn peer() -> (TcpListener, Place) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = at(&listener.local_addr().unwrap().to_string());
    (listener, place)
}

fn at(address: &str) -> Place {
    let node = NodeId::generate(Clock::system().now());
    Place::At(Arc::new(Peer { node, address: address.to_owned(), secret: Secret::new("theirs") }))
}

/// Where nobody listens.
async fn nobody() -> Place {
    let (listener, place) = peer().await;
    drop(listener);
    place
}

async fn accept(listener: &TcpListener) -> TcpStream {
    tokio::time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap().0
}

/// Reads one request: its head, and a body of the announced length.
async fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break String::from_utf8(bytes.drain(..end + 4).collect()).unwrap().to_ascii_lowercase();
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request ends early");
    };
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    while bytes.len() < length {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the body ends early");
    }
    (head, bytes)
}

async fn reply(stream: &mut TcpStream, status: u16, more: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} Status\r\n{more}content-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_request_goes_on_as_it_came_and_the_connection_is_kept() {
    let (listener, place) = peer().await;
    let bench = Bench::new(&place);
    let owner = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        for _ in 0..2 {
            let (head, body) = read(&mut stream).await;
            assert!(head.starts_with("post /v1/runs?wait=1s http/1.1\r\n"), "{head}");
            for line in ["host: api.example", "helve-peer: theirs", "helve-hops: 1", "authorization: bearer x"] {
                assert!(head.contains(&format!("{line}\r\n")), "{line} is not in {head}");
            }
            assert!(!head.contains("keep-alive") && !head.contains("expect"), "{head}");
            assert_eq!(body, b"{\"a\": 1}");
            reply(&mut stream, 201, "location: /v1/runs/1\r\nconnection: x-own\r\nx-own: 1\r\n", "created").await;
        }
    });
    let mut request = request(Method::POST, "/v1/runs?wait=1s", "{\"a\": 1}");
    request.headers.extend(headers(&[
        ("authorization", "Bearer x"),
        ("connection", "keep-alive"),
        ("expect", "100-continue"),
        ("content-length", "999"),
    ]));
    for _ in 0..2 {
        let response = bench.send(&request).await.unwrap().unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["location"], "/v1/runs/1");
        assert!(!response.headers().contains_key("connection") && !response.headers().contains_key("x-own"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "created");
    }
    owner.await.unwrap();
}

#[tokio::test]
async fn what_nobody_took_goes_to_the_next_owner_with_its_whole_body() {
    let (listener, next) = peer().await;
    let bench = Bench::new(&nobody().await);
    let body = "x".repeat(4 << 20);
    let request = request(Method::POST, "/v1/runs", body.clone());
    let owner = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.directory.move_to(&next);
        let mut stream = accept(&listener).await;
        assert_eq!(read(&mut stream).await.1, body.as_bytes());
        reply(&mut stream, 201, "", "").await;
    };
    let (answer, ()) = tokio::join!(bench.answer(&request), owner);
    assert_eq!(answer.0, 201);
}

#[tokio::test]
async fn without_an_owner_the_wait_is_bounded_and_nothing_was_done() {
    for place in [Place::Nowhere, nobody().await] {
        let bench = Bench::new(&place);
        let started = bench.clock.instant();
        let answer = bench.send(&request(Method::POST, "/v1/runs", "{}")).await;
        assert!(matches!(answer, Err(Error::Unavailable { .. })), "{place:?}");
        let took = bench.since(started);
        assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn who_becomes_the_owner_meanwhile_answers_itself() {
    let bench = Bench::new(&Place::Nowhere);
    let request = request(Method::POST, "/v1/runs", "{}");
    let (answer, ()) = tokio::join!(bench.send(&request), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.directory.move_to(&Place::Here);
    });
    assert!(answer.unwrap().is_none());
}

#[tokio::test]
async fn an_answer_that_is_lost_is_unknown_unless_twice_is_the_same_as_once() {
    let (listener, place) = peer().await;
    let bench = Bench::new(&place);
    let owner = tokio::spawn(async move {
        read(&mut accept(&listener).await).await;
        for _ in 0..2 {
            read(&mut accept(&listener).await).await;
            let mut second = accept(&listener).await;
            read(&mut second).await;
            reply(&mut second, 200, "connection: close\r\n", "again").await;
        }
    });
    let post = request(Method::POST, "/v1/runs", "{}");
    assert!(matches!(bench.send(&post).await, Err(Error::OutcomeUnknown)));
    assert_eq!(bench.answer(&request(Method::PUT, "/v1/workflows/a", "{}")).await, (200, "again".to_owned()));
    let mut keyed = post;
    keyed.headers.extend(headers(&[("idempotency-key", "k")]));
    assert_eq!(bench.answer(&keyed).await, (200, "again".to_owned()));
    owner.await.unwrap();
}

#[tokio::test]
async fn an_engine_that_is_not_the_owner_is_asked_again_until_it_is() {
    let (listener, place) = peer().await;
    let bench = Bench::new(&place);
    let owner = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        read(&mut stream).await;
        reply(&mut stream, 503, "helve-not-owner: 1\r\n", "").await;
        read(&mut stream).await;
        reply(&mut stream, 201, "helve-not-owner-x: 1\r\n", "created").await;
        read(&mut stream).await;
        reply(&mut stream, 503, "", "busy").await;
    });
    let post = request(Method::POST, "/v1/runs", "{}");
    assert_eq!(bench.answer(&post).await, (201, "created".to_owned()));
    // Any other refusal is the owner's own word.
    assert_eq!(bench.answer(&post).await, (503, "busy".to_owned()));
    owner.await.unwrap();
}

#[tokio::test]
async fn an_engine_that_stands_still_is_given_up_in_time() {
    let (_listener, place) = peer().await;
    let bench = Bench::new(&place);
    for (method, uri, unknown, least) in [
        (Method::POST, "/v1/runs", true, 500),
        (Method::PUT, "/v1/workflows/a", true, 500),
        (Method::GET, "/v1/workers", false, 500),
        (Method::POST, "/v1/runs?wait=2s", true, 2_500),
    ] {
        let started = bench.clock.instant();
        let answer = bench.send(&request(method, uri, "")).await;
        assert_eq!(matches!(answer, Err(Error::OutcomeUnknown)), unknown, "{uri}");
        assert_eq!(matches!(answer, Err(Error::Unavailable { .. })), !unknown, "{uri}");
        let took = bench.since(started);
        assert!(took >= Duration::from_millis(least) && took < Duration::from_millis(least + 900), "{uri}: {took:?}");
    }
}

#[tokio::test]
async fn a_stop_of_this_engine_answers_who_waits_elsewhere() {
    let (_listener, place) = peer().await;
    let bench = Bench::new(&place);
    bench.closing.cancel();
    let started = bench.clock.instant();
    let answer = bench.send(&request(Method::POST, "/v1/runs?wait=2s", "{}")).await;
    assert!(matches!(answer, Err(Error::OutcomeUnknown)));
    assert!(bench.since(started) < Duration::from_secs(1));
}

#[tokio::test]
async fn a_request_with_too_many_hops_stays_and_a_peers_request_is_not_passed_on() {
    let (_listener, place) = peer().await;
    let bench = Bench::new(&place);
    for sender in [Sender::Client { hops: 3 }, Sender::Peer] {
        let answer = bench.forwarder.send(bench.tenant, sender, &request(Method::GET, "/v1/workers", "")).await;
        assert!(matches!(answer, Err(Error::Unavailable { .. })));
    }
    // It waits for what it may be about to become, and no longer.
    let started = bench.clock.instant();
    assert!(bench.forwarder.become_owner(bench.tenant).await.is_err());
    assert!(bench.since(started) >= Duration::from_millis(300));
    let (became, ()) = tokio::join!(bench.forwarder.become_owner(bench.tenant), async {
        bench.directory.move_to(&Place::Nowhere);
        bench.directory.move_to(&Place::Here);
    });
    assert!(became.is_ok());
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_and_ends_with_this_engine() {
    let (listener, place) = peer().await;
    let bench = Bench::new(&place);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let get = request(Method::GET, "/v1/runs/1/events", "");
    let (response, mut stream) = tokio::join!(bench.send(&get), async {
        let mut stream = accept(&listener).await;
        read(&mut stream).await;
        stream.write_all(format!("{head}7\r\ndata: 1\r\n").as_bytes()).await.unwrap();
        stream
    });
    let mut body = response.unwrap().unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1");
    stream.write_all(b"7\r\ndata: 2\r\n").await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 2");
    bench.closing.cancel();
    assert!(body.frame().await.is_none(), "a good end");
    drop(body);
    // The owner sees that nobody listens any more.
    assert_eq!(tokio::time::timeout(LIMIT, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_body_that_does_not_go_on_is_given_up() {
    for head in ["content-length: 99", "content-type: text/event-stream\r\ntransfer-encoding: chunked"] {
        let (listener, place) = peer().await;
        let bench = Bench::new(&place);
        let get = request(Method::GET, "/v1/workers", "");
        let (response, _stream) = tokio::join!(bench.send(&get), async {
            let mut stream = accept(&listener).await;
            read(&mut stream).await;
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
            stream
        });
        let body = response.unwrap().unwrap().into_body();
        assert!(tokio::time::timeout(LIMIT, body.collect()).await.unwrap().is_err(), "{head}");
    }
}
