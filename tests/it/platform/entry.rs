//! The HTTP entry: patience, sizes, numbers, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use helve::api::server::{Patience, Server};
use helve_supervisor::Supervisor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

struct Entry {
    address: std::net::SocketAddr,
    supervisor: Supervisor,
    closing: CancellationToken,
    /// Told when a request has come to `/slow`.
    entered: Arc<Notify>,
    /// Lets `/slow` answer.
    go: Arc<Notify>,
    /// Told when `/slow` was dropped without an answer.
    dropped: Arc<Notify>,
}

/// Tells of a request that nobody waits for any more.
struct Unanswered(Arc<Notify>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn entry(connections: usize) -> Entry {
    entry_with(connections, &Arc::new(Semaphore::new(1_000))).await
}

/// With so many files for connections, of which others may take some.
async fn entry_with(connections: usize, places: &Arc<Semaphore>) -> Entry {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (supervisor, closing) = (Supervisor::default(), CancellationToken::new());
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let dropped = Arc::new(Notify::new());
    let (inside, slow, gone) = (Arc::clone(&entered), Arc::clone(&go), Arc::clone(&dropped));
    let router = Router::new().route("/", get(|| async { "hello" })).route(
        "/slow",
        get(move || async move {
            inside.notify_one();
            let unanswered = Unanswered(gone);
            slow.notified().await;
            std::mem::forget(unanswered);
            "at last"
        }),
    );
    let patience = Patience { first: Duration::from_millis(200), ..Patience::default() };
    Server { listener, router, connections, places: Arc::clone(places), patience, closing: closing.clone() }
        .start(&supervisor);
    Entry { address, supervisor, closing, entered, go, dropped }
}

impl Entry {
    async fn open(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
        stream
    }
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4_096];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.expect("an answer in time");
    String::from_utf8_lossy(&buffer[..read.unwrap()]).into_owned()
}

#[tokio::test]
async fn headers_are_bounded_in_number_and_bytes() {
    let entry = entry(10).await;
    assert!(answer(&mut entry.open("/", "").await).await.starts_with("HTTP/1.1 200"));
    let many: String = (0..70).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(17 << 10));
    for headers in [many, large] {
        let said = answer(&mut entry.open("/", &headers).await).await;
        assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    }
}

#[tokio::test]
async fn who_never_asks_is_cut_off_and_who_asked_may_come_again() {
    let entry = entry(10).await;
    let mut silent = TcpStream::connect(entry.address).await.unwrap();
    silent.write_all(b"GET / HT").await.unwrap();
    let mut polite = entry.open("/", "").await;
    assert!(answer(&mut polite).await.contains("hello"));
    assert_eq!(answer(&mut silent).await, "", "closed without an answer");
    polite.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(answer(&mut polite).await.contains("hello"), "an idle connection is kept");
}

#[tokio::test]
async fn one_connection_more_than_allowed_waits_its_turn() {
    let entry = entry(2).await;
    let first = entry.open("/", "").await;
    let mut second = entry.open("/", "").await;
    assert!(answer(&mut second).await.contains("hello"));
    let mut third = entry.open("/", "").await;
    let mut buffer = [0; 256];
    let early = tokio::time::timeout(Duration::from_millis(100), third.read(&mut buffer)).await;
    assert!(early.is_err(), "it is served only when another has left");
    drop(first);
    assert!(answer(&mut third).await.contains("hello"));
}

/// Files are the process's: what connections to other engines have taken is not there for clients.
#[tokio::test]
async fn a_connection_waits_for_a_file() {
    let places = Arc::new(Semaphore::new(2));
    let entry = entry_with(10, &places).await;
    let elsewhere = places.acquire().await.unwrap();
    let mut first = entry.open("/", "").await;
    assert!(answer(&mut first).await.contains("hello"));
    let mut second = entry.open("/", "").await;
    let mut buffer = [0; 256];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut buffer)).await;
    assert!(early.is_err(), "it is served only when there is a file for it");
    drop(elsewhere);
    assert!(answer(&mut second).await.contains("hello"));
}

#[tokio::test]
async fn a_stop_lets_open_requests_finish_and_closes_idle_connections() {
    let entry = entry(10).await;
    let mut idle = entry.open("/", "").await;
    assert!(answer(&mut idle).await.contains("hello"));
    let mut busy = entry.open("/slow", "").await;
    entry.entered.notified().await;
    entry.closing.cancel();
    assert_eq!(answer(&mut idle).await, "", "an idle connection is closed");
    let refused = async {
        loop {
            match TcpStream::connect(entry.address).await {
                Err(_) => return,
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), refused).await.expect("no more connections are accepted");
    entry.go.notify_one();
    let said = answer(&mut busy).await;
    assert!(said.contains("at last") && said.to_lowercase().contains("connection: close"), "{said}");
    assert!(entry.supervisor.shut_down(Duration::from_secs(5)).await, "every connection has ended");
}

/// A client may say that it sends no more, and still wait: `nc -N` does, and so do some libraries.
#[tokio::test]
async fn who_sends_no_more_gets_the_answer() {
    let entry = entry(10).await;
    let mut quick = entry.open("/", "").await;
    quick.shutdown().await.unwrap();
    assert!(answer(&mut quick).await.contains("hello"));
    let mut patient = entry.open("/slow", "").await;
    patient.shutdown().await.unwrap();
    entry.entered.notified().await;
    // It waits for so long that the engine looks whether it is there.
    assert_eq!(answer(&mut patient).await, "HTTP/1.1 102 Processing\r\n\r\n");
    entry.go.notify_one();
    let last = answer(&mut patient).await;
    assert!(last.starts_with("HTTP/1.1 200") && last.ends_with("at last"), "{last}");
}

#[tokio::test]
async fn who_has_gone_is_not_worked_for() {
    let entry = entry(10).await;
    let gone = entry.open("/slow", "").await;
    entry.entered.notified().await;
    drop(gone);
    tokio::time::timeout(Duration::from_secs(20), entry.dropped.notified()).await.expect("its request is dropped");
    // One that still waits is not taken for it, and hears nothing before its answer.
    let mut waits = entry.open("/slow", "").await;
    entry.entered.notified().await;
    entry.go.notify_one();
    assert!(answer(&mut waits).await.starts_with("HTTP/1.1 200"));
}
