//! Worker sockets at engines that a test plays.

use helve_domain::error::Result;
use hyper::Uri;
use hyper::header::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Bench, CLIENT, LIMIT, accept, headers, peer, read, reply};
use crate::forward::Opened;

pub(super) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: a\r\n\r\n";

pub(super) async fn open(bench: &Bench) -> Result<Option<Opened>> {
    let headers = headers(&[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "k"),
        ("origin", "https://app.example"),
    ]);
    let at = Uri::from_static("/v1/worker/connect");
    tokio::time::timeout(LIMIT, bench.forwarder.open(bench.tenant, CLIENT, &at, &headers)).await.unwrap()
}

#[tokio::test]
async fn a_socket_is_asked_for_until_the_owner_has_answered() {
    let (listener, place) = peer().await;
    let bench = Bench::new(&place);
    let owner = async {
        // Gone, not the owner, and then it is.
        drop(accept(&listener).await);
        let mut stream = accept(&listener).await;
        read(&mut stream).await;
        reply(&mut stream, 503, "helve-not-owner: 1\r\n", "").await;
        let mut stream = accept(&listener).await;
        let (head, _) = read(&mut stream).await;
        for line in [
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-key: k",
            "helve-peer: theirs",
            // A ticket is bound to it.
            "origin: https://app.example",
        ] {
            assert!(head.contains(&format!("{line}\r\n")), "{line} is not in {head}");
        }
        stream.write_all(SWITCH.as_bytes()).await.unwrap();
        stream
    };
    let (opened, _stream) = tokio::join!(open(&bench), owner);
    let Ok(Some(Opened::Switched(switched))) = opened else { panic!("{opened:?}") };
    assert_eq!(switched.headers["sec-websocket-accept"], "a");
    assert_eq!(switched.headers["upgrade"], "websocket");
}

#[tokio::test]
async fn a_refusal_is_passed_on_as_it_is() {
    let (listener, place) = peer().await;
    let bench = Bench::new(&place);
    let (opened, ()) = tokio::join!(open(&bench), async {
        let mut stream = accept(&listener).await;
        read(&mut stream).await;
        reply(&mut stream, 429, "retry-after: 7\r\n", "too many").await;
    });
    let Ok(Some(Opened::Refused(refusal))) = opened else { panic!("{opened:?}") };
    assert_eq!((refusal.status().as_u16(), &refusal.headers()["retry-after"]), (429, &HeaderValue::from(7)));
    assert_eq!(refusal.body(), "too many");
}

#[tokio::test]
async fn a_tunnel_carries_both_ways_and_ends_when_either_side_ends() {
    for client_ends in [true, false] {
        let (listener, place) = peer().await;
        let bench = Bench::new(&place);
        let (opened, mut owner) = tokio::join!(open(&bench), async {
            let mut stream = accept(&listener).await;
            read(&mut stream).await;
            // Bytes that follow at once belong to the socket.
            stream.write_all(format!("{SWITCH}first").as_bytes()).await.unwrap();
            stream
        });
        let Ok(Some(Opened::Switched(switched))) = opened else { panic!("{opened:?}") };
        let (mut client, theirs) = tokio::io::duplex(1024);
        let tunnel = tokio::spawn(switched.join(theirs, std::future::pending()));
        let mut buffer = [0; 5];
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"first");
        client.write_all(b"hello").await.unwrap();
        owner.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        if client_ends {
            client.shutdown().await.unwrap();
            assert_eq!(owner.read(&mut buffer).await.unwrap(), 0);
            // The last words of the other side still come; then it is cut, though it does not end.
            owner.write_all(b"close").await.unwrap();
            client.read_exact(&mut buffer).await.unwrap();
        } else {
            owner.shutdown().await.unwrap();
            assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
            client.write_all(b"close").await.unwrap();
            owner.read_exact(&mut buffer).await.unwrap();
        }
        assert_eq!(&buffer, b"close");
        tokio::time::timeout(LIMIT, tunnel).await.unwrap().unwrap();
    }
}
