//! An owner that says nothing, and a directory that names another one: what waits for the first goes on at the second.

use std::time::Duration;

use helve_domain::error::Error;
use http_body_util::BodyExt;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::sockets::{SWITCH, open};
use super::{Bench, LIMIT, accept, peer, read, reply, request};
use crate::cluster::Place;
use crate::forward::Opened;

/// Long before the owner's time to answer is over.
const SOON: Duration = Duration::from_millis(400);

#[tokio::test]
async fn what_may_be_asked_twice_is_asked_at_the_next_owner() {
    let (first, place) = peer().await;
    let (second, next) = peer().await;
    let bench = Bench::new(&place);
    let begun = bench.clock.instant();
    let get = request(Method::GET, "/v1/workers", "");
    let (answer, _stream) = tokio::join!(bench.answer(&get), async {
        let mut stands = accept(&first).await;
        read(&mut stands).await;
        bench.directory.move_to(&next);
        let mut owner = accept(&second).await;
        read(&mut owner).await;
        reply(&mut owner, 200, "", "from the next").await;
        (stands, owner)
    });
    assert_eq!(answer, (200, "from the next".to_owned()));
    assert!(bench.since(begun) < SOON, "{:?}", bench.since(begun));
}

#[tokio::test]
async fn what_may_have_been_done_is_said_to_be_unknown_as_soon_as_its_owner_is_gone() {
    let (first, place) = peer().await;
    let bench = Bench::new(&place);
    let begun = bench.clock.instant();
    // Its own time would be two and a half seconds.
    let post = request(Method::POST, "/v1/runs?wait=2s", "{}");
    let (answer, _stream) = tokio::join!(bench.send(&post), async {
        let mut stands = accept(&first).await;
        read(&mut stands).await;
        bench.directory.move_to(&Place::Nowhere);
        stands
    });
    assert!(matches!(answer, Err(Error::OutcomeUnknown)), "{:?}", answer.err());
    assert!(bench.since(begun) < SOON, "{:?}", bench.since(begun));
}

/// A look that finds the same owner is no news, and one that hands over in order still answers.
#[tokio::test]
async fn the_last_words_of_a_former_owner_still_count() {
    let (first, place) = peer().await;
    let bench = Bench::new(&place);
    let post = request(Method::POST, "/v1/runs", "{}");
    let (answer, _stream) = tokio::join!(bench.answer(&post), async {
        let mut owner = accept(&first).await;
        read(&mut owner).await;
        bench.directory.move_to(&place);
        tokio::time::sleep(Duration::from_millis(150)).await;
        bench.directory.move_to(&Place::Nowhere);
        reply(&mut owner, 201, "", "done").await;
        owner
    });
    assert_eq!(answer, (201, "done".to_owned()));
}

#[tokio::test]
async fn a_stream_from_a_former_owner_ends_in_good_order() {
    let (first, place) = peer().await;
    let bench = Bench::new(&place);
    let begun = bench.clock.instant();
    let get = request(Method::GET, "/v1/events/stream", "");
    let (response, _stream) = tokio::join!(bench.send(&get), async {
        let mut owner = accept(&first).await;
        read(&mut owner).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        owner.write_all(format!("{head}4\r\n: a\n\r\n").as_bytes()).await.unwrap();
        owner
    });
    let body = response.unwrap().unwrap().into_body();
    bench.directory.move_to(&Place::Here);
    let read = tokio::time::timeout(LIMIT, body.collect()).await.unwrap().unwrap();
    assert_eq!(read.to_bytes(), ": a\n");
    assert!(bench.since(begun) < SOON, "{:?}", bench.since(begun));
}

#[tokio::test]
async fn an_upgrade_does_not_wait_for_who_is_not_the_owner_any_more() {
    let (first, place) = peer().await;
    let (second, next) = peer().await;
    let bench = Bench::new(&place);
    let begun = bench.clock.instant();
    let (opened, _streams) = tokio::join!(open(&bench), async {
        let mut stands = accept(&first).await;
        read(&mut stands).await;
        bench.directory.move_to(&next);
        let mut owner = accept(&second).await;
        read(&mut owner).await;
        owner.write_all(SWITCH.as_bytes()).await.unwrap();
        (stands, owner)
    });
    assert!(matches!(opened, Ok(Some(Opened::Switched(_)))), "{opened:?}");
    assert!(bench.since(begun) < SOON, "{:?}", bench.since(begun));
}

/// Each connection to another engine is an open file: without a place for one nothing is sent, and nothing was done.
#[tokio::test]
async fn without_a_place_for_a_connection_nothing_is_sent() {
    let (owner, place) = peer().await;
    let bench = Bench::new(&place);
    let taken = std::sync::Arc::clone(&bench.places).acquire_many_owned(super::PLACES).await.unwrap();
    let post = request(Method::POST, "/v1/runs", "{}");
    let refused = bench.send(&post).await.err().unwrap();
    assert_eq!(refused.code(), helve_domain::error::Code::Unavailable);
    drop(taken);
    let (answer, _stream) = tokio::join!(bench.answer(&post), async {
        let mut stream = accept(&owner).await;
        read(&mut stream).await;
        reply(&mut stream, 201, "", "done").await;
        stream
    });
    assert_eq!(answer, (201, "done".to_owned()));
}

/// What a worker reads of a tunnel whose other end stands still after it has sent `sent`.
async fn read_of_a_tunnel_that_is_cut(sent: &[u8], leaving: bool) -> Vec<u8> {
    let (listener, place) = peer().await;
    let bench = Bench::new(&place);
    let (opened, mut owner) = tokio::join!(open(&bench), async {
        let mut stream = accept(&listener).await;
        read(&mut stream).await;
        stream.write_all(SWITCH.as_bytes()).await.unwrap();
        stream
    });
    let Ok(Some(Opened::Switched(switched))) = opened else { panic!("{opened:?}") };
    let (mut client, theirs) = tokio::io::duplex(1024);
    let ending = bench.closing.clone();
    let tunnel = tokio::spawn(switched.join(theirs, async move { ending.cancelled().await }));
    owner.write_all(sent).await.unwrap();
    let mut bytes = vec![0; sent.len()];
    client.read_exact(&mut bytes).await.unwrap();
    if leaving {
        bench.closing.cancel();
    } else {
        bench.directory.move_to(&Place::Here);
    }
    tokio::time::timeout(LIMIT, client.read_to_end(&mut bytes)).await.unwrap().unwrap();
    drop(client);
    tokio::time::timeout(LIMIT, tunnel).await.unwrap().unwrap();
    bytes.split_off(sent.len())
}

#[tokio::test]
async fn a_tunnel_to_a_former_owner_is_closed_with_a_word_where_one_can_stand() {
    for leaving in [false, true] {
        let told = read_of_a_tunnel_that_is_cut(b"\x81\x02{}", leaving).await;
        assert_eq!(told[..1], [0x88], "a close frame");
        assert_eq!(told[2..4], 4503_u16.to_be_bytes());
        assert!(read_of_a_tunnel_that_is_cut(b"\x81\x03{}", leaving).await.is_empty(), "in the middle of a frame");
        assert!(read_of_a_tunnel_that_is_cut(b"\x88\x02\x0f\xa0", leaving).await.is_empty(), "it was closed");
    }
}
