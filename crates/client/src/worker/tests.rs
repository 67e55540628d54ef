//! The worker against an engine that follows a script.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::SinkExt;
use helve_domain::clock::Timestamp;
use helve_domain::delivery::Close;
use helve_domain::id::{RunId, WorkerId};
use helve_domain::json::Payload;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;
use crate::frames::Task;
use crate::socket::SUBPROTOCOL;

struct Engine {
    listener: TcpListener,
    session: SessionId,
}

struct Peer(WebSocketStream<TcpStream>);

impl Engine {
    async fn new() -> (Self, Options) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options {
            url: format!("http://{}", listener.local_addr().unwrap()),
            token: "helve_x".into(),
            name: "w".into(),
            actions: vec!["a".into()],
            slots: BTreeMap::from([("default".to_owned(), 2)]),
            workflows: Vec::new(),
        };
        (Self { listener, session: SessionId::generate(Timestamp::from_micros(1)) }, options)
    }

    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        let echo = |_: &Request, mut response: Response| {
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
            Ok(response)
        };
        Peer(tokio_tungstenite::accept_hdr_async(stream, echo).await.unwrap())
    }

    /// Accepts a socket and welcomes it; returns the hello.
    async fn welcome(&self, superseded: Value) -> (Peer, Value) {
        let mut peer = self.accept().await;
        let hello = peer.recv().await;
        assert_eq!(hello["type"], "hello");
        let resumed = hello.get("resume").is_some();
        let worker = WorkerId::generate(Timestamp::from_micros(1));
        peer.send(json!({"type": "welcome", "protocol": 1, "worker": worker, "session": self.session,
            "secret": "s", "resumed": resumed, "heartbeat_ms": 10_000, "grace_ms": 15_000, "superseded": superseded}))
            .await;
        (peer, hello)
    }
}

impl Peer {
    async fn recv(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(5), self.0.next()).await.expect("no frame");
            if let Message::Text(text) = message.expect("closed").unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn assign(&mut self, attempts: &[Attempt]) {
        let tasks: Vec<_> = attempts
            .iter()
            .map(|a| {
                json!({"task_run": a.run, "attempt": a.number, "run": a.run, "workflow": "w", "action": "a",
                    "input": 1, "metadata": {}, "timeout_ms": 1_000})
            })
            .collect();
        self.send(json!({"type": "assign", "tasks": tasks})).await;
    }
}

fn attempt(number: i32) -> Attempt {
    Attempt { run: RunId::generate(Timestamp::from_micros(1_700_000_000_000_000)), number }
}

fn names(attempts: &[Attempt]) -> Value {
    attempts.iter().map(|a| json!({"task_run": a.run, "attempt": a.number})).collect()
}

fn done(task: &Task) -> Outcome {
    Outcome::Succeeded(Payload::trusted(Bytes::from(format!("\"{}\"", task.attempt))))
}

#[tokio::test]
async fn results_are_batched_kept_over_a_lost_socket_and_forgotten_when_stored() {
    let (engine, options) = Engine::new().await;
    let stop = CancellationToken::new();
    let starts = Mutex::new(0);
    let handler = |task: Task| {
        *starts.lock().unwrap() += 1;
        std::future::ready(done(&task))
    };
    let script = async {
        let (a, b) = (attempt(1), attempt(2));
        let (mut peer, hello) = engine.welcome(json!([])).await;
        assert!(hello.get("resume").is_none());
        peer.assign(&[a, b]).await;
        assert_eq!(peer.recv().await, json!({"type": "received", "tasks": names(&[a, b])}));
        let result = peer.recv().await;
        assert_eq!(result["results"].as_array().unwrap().len(), 2);
        peer.send(json!({"type": "stored",
            "results": [{"task_run": a.run, "attempt": 1, "status": "succeeded"}]}))
            .await;
        // Sent again because the engine believes `received` lost: the worker confirms again and does not start again.
        peer.assign(&[b]).await;
        assert_eq!(peer.recv().await, json!({"type": "received", "tasks": names(&[b])}));
        drop(peer);

        let (mut peer, hello) = engine.welcome(json!([])).await;
        assert_eq!(hello["resume"], json!({"session": engine.session, "secret": "s", "holding": names(&[b])}));
        let again = peer.recv().await;
        assert_eq!(again["results"][0]["output"], json!("2"));
        stop.cancel();
        assert_eq!(peer.recv().await, json!({"type": "drain"}));
        peer.send(json!({"type": "stored",
            "results": [{"task_run": b.run, "attempt": 2, "status": "succeeded"}]}))
            .await;
        assert_eq!(peer.recv().await, json!({"type": "goodbye"}));
    };
    let (ended, ()) = tokio::join!(run(options, Clock::system(), stop.clone(), handler), script);
    ended.unwrap();
    assert_eq!(*starts.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_cancelled_attempt_is_stopped_and_answered_and_a_superseded_one_forgotten() {
    let (engine, options) = Engine::new().await;
    let stop = CancellationToken::new();
    let script = async {
        let (a, b) = (attempt(1), attempt(1));
        let (mut peer, _) = engine.welcome(json!([])).await;
        peer.assign(&[a, b]).await;
        assert_eq!(peer.recv().await["type"], "received");
        peer.send(json!({"type": "cancel", "tasks": [{"task_run": a.run, "attempt": 1, "reason": "requested",
            "grace_ms": 5_000}]}))
            .await;
        let result = peer.recv().await;
        assert_eq!(result["results"][0]["task_run"], json!(a.run));
        assert_eq!(result["results"][0]["error"]["code"], "cancelled");
        drop(peer);
        // Both are over by now: nothing is sent again, and there is nothing left to wait for.
        let (mut peer, hello) = engine.welcome(names(&[a, b])).await;
        assert_eq!(hello["resume"]["holding"].as_array().unwrap().len(), 2);
        stop.cancel();
        assert_eq!(peer.recv().await, json!({"type": "drain"}));
        assert_eq!(peer.recv().await, json!({"type": "goodbye"}));
    };
    let handler = |_: Task| std::future::pending::<Outcome>();
    let (ended, ()) = tokio::join!(run(options, Clock::system(), stop.clone(), handler), script);
    ended.unwrap();
}

#[tokio::test]
async fn reconnect_opens_the_new_socket_before_it_leaves_the_old_one() {
    let (engine, options) = Engine::new().await;
    let stop = CancellationToken::new();
    let script = async {
        let (mut old, _) = engine.welcome(json!([])).await;
        old.send(json!({"type": "reconnect", "deadline_ms": 10_000})).await;
        let (mut new, hello) = engine.welcome(json!([])).await;
        assert!(hello["resume"].is_object());
        let a = attempt(1);
        new.assign(&[a]).await;
        assert_eq!(new.recv().await["type"], "received");
        assert_eq!(new.recv().await["type"], "result");
        assert!(old.0.next().await.is_none_or(|end| end.is_err()), "the old socket is left");
        new.send(json!({"type": "superseded", "tasks": names(&[a])})).await;
        stop.cancel();
        while new.recv().await["type"] != "goodbye" {}
    };
    let handler = |task: Task| std::future::ready(done(&task));
    let (ended, ()) = tokio::join!(run(options, Clock::system(), stop.clone(), handler), script);
    ended.unwrap();
}

#[tokio::test]
async fn a_refusal_ends_the_worker_and_a_panic_fails_the_attempt() {
    let (engine, options) = Engine::new().await;
    let script = async {
        let (mut peer, _) = engine.welcome(json!([])).await;
        peer.assign(&[attempt(1)]).await;
        peer.recv().await;
        assert_eq!(peer.recv().await["results"][0]["error"]["code"], "panic");
        let frame = CloseFrame { code: Close::Replaced.code().into(), reason: "replaced".into() };
        peer.0.close(Some(frame)).await.unwrap();
        while peer.0.next().await.is_some_and(|m| m.is_ok()) {}
    };
    let handler = |task: Task| async move {
        assert_eq!(task.attempt, 0, "a defect of the handler");
        done(&task)
    };
    let (ended, ()) = tokio::join!(run(options, Clock::system(), CancellationToken::new(), handler), script);
    assert!(ended.unwrap_err().to_string().contains("4409"));
}
