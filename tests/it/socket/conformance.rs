//! RFC 6455 below the frames: pings, fragments, the close handshake, violations.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::support::{Worker, engine, worker};

const WAIT: Duration = Duration::from_secs(5);

async fn next(worker: &mut Worker) -> Message {
    tokio::time::timeout(WAIT, worker.socket.next()).await.unwrap().unwrap().unwrap()
}

fn part(text: &str, code: Data, last: bool) -> Message {
    Message::Frame(Frame::message(text.as_bytes().to_vec(), OpCode::Data(code), last))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_with_their_payload_also_between_fragments() {
    let engine = engine().await;
    let mut worker = worker(&engine, &["work"], 1).await;
    for message in [
        part("{\"type\"", Data::Text, false),
        Message::Ping("between".into()),
        part(":\"pi", Data::Continue, false),
        part("ng\"}", Data::Continue, true),
    ] {
        worker.socket.send(message).await.unwrap();
    }
    assert_eq!(next(&mut worker).await, Message::Pong("between".into()));
    assert_eq!(worker.recv().await, json!({"type": "pong"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_is_answered_with_its_code_and_the_stream_ends() {
    let engine = engine().await;
    for code in [1000, 1001, 3000, 4999] {
        let mut worker = worker(&engine, &["work"], 1).await;
        let close = CloseFrame { code: code.into(), reason: "bye".into() };
        worker.socket.send(Message::Close(Some(close.clone()))).await.unwrap();
        assert_eq!(next(&mut worker).await, Message::Close(Some(close)));
        let end = tokio::time::timeout(WAIT, worker.socket.next()).await.unwrap();
        assert!(end.is_none(), "the handshake is complete: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn violations_are_closed_with_the_standards_codes() {
    let engine = engine().await;
    let violations: [(&[u8], u16); 6] = [
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007), // text that is not UTF-8
        (&[0x81, 0x01, b'x'], 1002),             // not masked
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),       // an opcode that does not exist
        (&[0xc1, 0x80, 0, 0, 0, 0], 1002),       // a reserved bit
        (&[0x09, 0x80, 0, 0, 0, 0], 1002),       // a fragmented ping
        (&[0x80, 0x81, 0, 0, 0, 0, b'x'], 1002), // a continuation of nothing
    ];
    for (bytes, code) in violations {
        let mut worker = worker(&engine, &["work"], 1).await;
        let MaybeTlsStream::Plain(stream) = worker.socket.get_mut() else { panic!() };
        stream.write_all(bytes).await.unwrap();
        assert_eq!(worker.closed().await, code, "{bytes:02x?}");
    }
}
