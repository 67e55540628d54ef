//! What an idle engine asks its database.
#![expect(clippy::disallowed_methods, reason = "the counting connections live as long as the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use helve_bench::oracle::wire;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::config::Host;

use crate::support::{Builder, Worker, fresh_database, hello, until_within, worker};

/// How long is counted: every loop of the engine comes by in it.
const WATCHED: Duration = Duration::from_secs(30);

/// Stands between the engine and PostgreSQL and counts statements: simple queries and executions.
async fn counting(database: &str) -> (String, Arc<AtomicU64>) {
    let config: tokio_postgres::Config = database.parse().unwrap();
    let port = config.get_ports()[0];
    let folder = match &config.get_hosts()[0] {
        Host::Unix(folder) => folder.join(format!(".s.PGSQL.{port}")),
        Host::Tcp(host) => panic!("{host} is not a socket of the test's own server"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (user, name) = (config.get_user().unwrap().to_owned(), config.get_dbname().unwrap().to_owned());
    let url = format!("postgres://{user}@{}/{name}?sslmode=disable", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&folder).await.unwrap();
            tokio::spawn(between(client, server, Arc::clone(&shared)));
        }
    });
    (url, count)
}

async fn between(client: TcpStream, server: UnixStream, count: Arc<AtomicU64>) {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    // Either side may end; then so does the other.
    tokio::select! {
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        _ = forward(from_client, to_server, &count) => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: impl AsyncWrite + Unpin, count: &AtomicU64) -> std::io::Result<()> {
    let (mut buffer, mut started) = (BytesMut::new(), false);
    loop {
        while !started && let Some(opening) = wire::opening(&mut buffer) {
            let wire::Opening::Startup(bytes) = opening else { panic!("no encryption and no cancel: {opening:?}") };
            to.write_all(&bytes).await?;
            started = true;
        }
        while started && let Some(message) = wire::message(&mut buffer) {
            if matches!(message.kind, b'Q' | b'E') {
                count.fetch_add(1, Ordering::Relaxed);
            }
            to.write_all(&message.bytes).await?;
        }
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_engine_with_open_sockets_asks_at_most_sixty_times_a_minute() {
    let (url, count) = counting(&fresh_database().await).await;
    let engine = Builder::new().on(&url).await;
    engine.workflow("work").await;
    let other = engine.second_tenant().await;
    let mut first = worker(&engine, &["work"], 10).await;
    engine.trigger("work", json!(1)).await;
    let task = first.task().await;
    first.finish(&task, json!(2)).await;
    let mut workers = vec![first];
    for n in 0..20 {
        let token = if n % 2 == 0 { &engine.token } else { &other.token };
        workers.push(Worker::connect(&engine.url, token, hello("idle", &["work"], 1)).await);
    }
    let asked = count.load(Ordering::Relaxed);
    assert!(asked > 10, "the statements of the start and of a run are counted: {asked}");
    let (before, from) = (count.load(Ordering::Relaxed), Instant::now());
    // The workers answer pings as workers do: nothing else comes.
    let heard = async { futures_util::future::join_all(workers.iter_mut().map(|w| w.incoming(WATCHED))).await };
    let (_, ()) = tokio::join!(heard, async {
        until_within("the time is over", WATCHED * 2, || async { (from.elapsed() >= WATCHED).then_some(()) }).await;
    });
    let (asked, took) = (count.load(Ordering::Relaxed) - before, from.elapsed());
    let a_minute = asked as f64 * 60.0 / took.as_secs_f64();
    println!("{asked} statements in {took:?}: {a_minute:.1} a minute");
    assert!(a_minute <= 60.0, "{a_minute:.1} statements a minute");
    assert!(a_minute >= 30.0, "the lease is renewed: {a_minute:.1}");
}
