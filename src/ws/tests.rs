//! Sessions over an in-memory stream with a scheduler that is played by the test.
#![expect(clippy::disallowed_methods, reason = "a test's tasks live and die with its runtime")]

mod doubt;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use helve_domain::clock::{Clock, Timestamp};
use helve_domain::delivery::{Assignment, Attempt, Close, Incoming, Outcome, Outgoing, Reason, Welcome};
use helve_domain::id::{NodeId, RunId, SessionId, TenantId, TokenId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::scope::{Scope, Scopes};
use helve_domain::status::RunStatus;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::guest::{Caller, Guest, Who};
use super::refusals::Refusals;
use super::{Context, session};
use crate::cluster::Standing;
use crate::config::Scheduling;
use crate::hub::{Outbox, Room};
use crate::sched::{Connection, Request, Scheduler};
use crate::share::Shares;

const WAIT: Duration = Duration::from_secs(5);

/// A session, its worker's end of the stream, and its scheduler's end.
struct Bench {
    worker: WebSocketStream<DuplexStream>,
    requests: mpsc::Receiver<Request>,
    outbox: Option<Outbox>,
    revoke: Option<oneshot::Sender<()>>,
    standing: Standing,
    stopping: CancellationToken,
}

fn id<T>(make: impl Fn(Timestamp) -> T) -> T {
    make(Clock::system().now())
}

impl Bench {
    fn new() -> Self {
        Self::with(Scheduling::default(), &[Scope::Worker, Scope::Write], 64 << 10)
    }

    fn with(scheduling: Scheduling, scopes: &[Scope], pipe: usize) -> Self {
        let clock = Clock::system();
        let (scheduler, requests) = Scheduler::played(clock.clone(), id(NodeId::generate));
        let standing = scheduler.standing().clone();
        let (revoke, revoked) = oneshot::channel::<()>();
        let stopping = CancellationToken::new();
        let ctx = Context {
            scheduler,
            register: Box::new(|_, _, _, _| std::future::ready(Ok(())).boxed()),
            without_workflow: Box::new(|_, _| std::future::ready(Ok(Vec::new())).boxed()),
            limits: Limits { frame_bytes: 64 << 10, ..Limits::default() },
            shares: Shares::new(1 << 20),
            scheduling,
            drain: Duration::from_millis(50),
            clock,
            stopping: stopping.clone(),
            refusals: Refusals::default(),
        };
        let guest = Guest {
            who: Who { tenant: id(TenantId::generate), token: id(TokenId::generate), scopes: Scopes::of(scopes) },
            allowed: None,
            revoked: Box::pin(revoked.map(|_| ())),
            place: None,
        };
        let (theirs, ours) = tokio::io::duplex(pipe);
        tokio::spawn(async move { session::serve(&ctx, ours, Caller::Guest(guest)).await });
        let worker = WebSocketStream::from_raw_socket(theirs, Role::Client, None).now_or_never().unwrap();
        Self { worker, requests, outbox: None, revoke: Some(revoke), standing, stopping }
    }

    /// With a session that the scheduler has opened.
    async fn greeted(mut self) -> Self {
        self.send(json!({"type": "hello", "protocol": 1, "name": "w", "actions": ["a"]})).await;
        self.welcomed().await
    }

    async fn welcomed(mut self) -> Self {
        let Some(Request::Connect { outbox, reply, .. }) = self.request().await else { panic!() };
        self.outbox = Some(outbox);
        let welcome = Welcome {
            worker: id(WorkerId::generate),
            session: id(SessionId::generate),
            secret: "s".to_owned(),
            resumed: false,
            superseded: Vec::new(),
        };
        let connection = Connection { session: welcome.session, transport: 1 };
        reply.send(Ok((welcome, connection))).unwrap();
        assert_eq!(self.frame().await["type"], "welcome");
        self
    }

    async fn request(&mut self) -> Option<Request> {
        tokio::time::timeout(WAIT, self.requests.recv()).await.unwrap()
    }

    /// The next message that the session passes on.
    async fn told(&mut self) -> Incoming {
        match self.request().await {
            Some(Request::Worker { message, .. }) => message,
            _ => panic!("expected a worker's message"),
        }
    }

    fn push(&self, message: Outgoing) -> Room {
        self.outbox.as_ref().unwrap().push(message)
    }

    async fn send(&mut self, frame: Value) {
        self.worker.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        tokio::time::timeout(WAIT, self.worker.next()).await.unwrap().unwrap().unwrap()
    }

    async fn frame(&mut self) -> Value {
        let message = self.next().await;
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    /// The code of the close frame that comes next, after the handshake is complete.
    async fn closed(&mut self) -> u16 {
        let Message::Close(Some(close)) = self.next().await else { panic!() };
        let rest = tokio::time::timeout(WAIT, async { while let Some(Ok(_)) = self.worker.next().await {} }).await;
        rest.expect("the stream ends after the close handshake");
        close.code.into()
    }
}

fn attempt() -> Attempt {
    Attempt { run: id(RunId::generate), number: 1 }
}

fn item(a: Attempt) -> Value {
    json!({"task_run": a.run, "attempt": a.number})
}

fn task(bytes: usize) -> Assignment {
    Assignment {
        attempt: attempt(),
        workflow: "w".into(),
        action: "a".into(),
        input: Payload::trusted(Bytes::from(format!("\"{}\"", "x".repeat(bytes)))),
        metadata: Payload::trusted(Bytes::from_static(b"{}")),
        timeout: Duration::from_secs(1),
        traceparent: None,
    }
}

#[tokio::test]
async fn frames_go_both_ways_and_goodbye_is_no_loss() {
    let mut bench = Bench::new().greeted().await;
    let [a, b] = [attempt(), attempt()];
    bench.send(json!({"type": "received", "tasks": [item(a), 1, item(b)]})).await;
    assert!(matches!(bench.told().await, Incoming::Received(v) if v == [a, b]));
    let error = bench.frame().await;
    assert_eq!((error["code"].as_str(), error["pointer"].as_str()), (Some("bad_frame"), Some("/tasks/1")));
    let result = json!({"task_run": a.run, "attempt": 1, "outcome": "succeeded", "output": {"ok": true}});
    bench.send(json!({"type": "result", "results": [result]})).await;
    let Incoming::Results(results) = bench.told().await else { panic!() };
    assert!(matches!(&results[..], [(x, Outcome::Succeeded(_))] if *x == a));
    bench.push(Outgoing::Stored(vec![(a, RunStatus::Succeeded)]));
    let stored = bench.frame().await;
    assert_eq!(stored["results"], json!([{"task_run": a.run, "attempt": 1, "status": "succeeded"}]));
    bench.send(json!({"type": "goodbye"})).await;
    assert!(matches!(bench.told().await, Incoming::Goodbye));
    assert_eq!(bench.closed().await, 1000);
    assert!(bench.request().await.is_none(), "nothing more is said after a goodbye");
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_named_once_and_slows_nobody_down() {
    let mut bench = Bench::new().greeted().await;
    for _ in 0..300 {
        let result = json!({"task_run": attempt().run, "attempt": 1, "outcome": "succeeded", "result": 1});
        bench.send(json!({"type": "result", "results": [result]})).await;
        assert!(matches!(bench.told().await, Incoming::Results(results) if results.len() == 1));
    }
    let told = bench.frame().await;
    assert_eq!((told["code"].as_str(), told["pointer"].as_str()), (Some("unknown_field"), Some("/results/0/result")));
    bench.send(json!({"type": "ping"})).await;
    assert_eq!(bench.frame().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn before_hello_nothing_counts() {
    let mut bench = Bench::new();
    bench.send(json!({"type": "received", "tasks": [item(attempt())]})).await;
    assert_eq!(bench.frame().await["code"], "hello_required");
    bench.send(json!({"type": "jump"})).await;
    assert_eq!(bench.frame().await["code"], "unknown_frame");
    let mut bench = bench.greeted().await;
    bench.send(json!({"type": "hello", "protocol": 7})).await;
    assert_eq!(bench.frame().await["code"], "hello_twice");
    bench.send(json!({"type": "ping"})).await;
    assert_eq!(bench.frame().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn registering_needs_the_scope_to_write() {
    let mut bench = Bench::with(Scheduling::default(), &[Scope::Worker], 64 << 10);
    let workflows = json!([{"name": "w", "tasks": [{"name": "a"}]}]);
    bench.send(json!({"type": "hello", "protocol": 1, "name": "w", "actions": ["a"], "workflows": workflows})).await;
    assert_eq!(bench.frame().await["code"], "forbidden");
    assert_eq!(bench.closed().await, 4403);
}

#[tokio::test]
async fn a_lost_stream_is_reported_once_and_at_once() {
    let mut bench = Bench::new().greeted().await;
    let (pipe, _) = tokio::io::duplex(1);
    bench.worker = WebSocketStream::from_raw_socket(pipe, Role::Client, None).await;
    assert!(matches!(bench.told().await, Incoming::Lost));
    assert!(bench.request().await.is_none());
    assert_eq!(bench.push(Outgoing::Stored(Vec::new())), Room::Gone);
}

#[tokio::test]
async fn what_breaks_the_rules_is_closed_with_its_code() {
    let text = |t: &str| Message::text(t.to_owned());
    for (message, code) in [(text(&"x".repeat((64 << 10) + 1)), 4413), (text(&"x".repeat(8 << 20)), 4413)] {
        let mut bench = Bench::new().greeted().await;
        let (mut sink, mut stream) = bench.worker.split();
        let sending = tokio::spawn(async move {
            // A peer in the middle of a large frame may be cut off; the close frame must arrive all the same.
            let _ = sink.send(message).await;
            sink
        });
        let closed = tokio::time::timeout(WAIT, stream.next()).await.unwrap().unwrap().unwrap();
        let Message::Close(Some(frame)) = closed else { panic!("{closed:?}") };
        assert_eq!(u16::from(frame.code), code);
        bench.worker = stream.reunite(sending.await.unwrap()).unwrap();
        assert!(matches!(bench.told().await, Incoming::Lost));
    }
}

#[tokio::test]
async fn what_is_no_frame_is_answered_and_closes_when_it_repeats() {
    let mut bench = Bench::new().greeted().await;
    let text = |t: &str| Message::text(t.to_owned());
    let wrong = [text("{"), text("[]"), text("{}"), text(r#"{"type":7}"#), Message::binary(vec![1, 2])];
    for message in wrong.iter().cycle().take(10) {
        bench.worker.send(message.clone()).await.unwrap();
        let error = bench.frame().await;
        assert_eq!(error["code"], "bad_frame", "{message:?}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    bench.send(json!({"type": "ping"})).await;
    assert_eq!(bench.frame().await, json!({"type": "pong"}), "the socket goes on");
    bench.worker.send(text("{")).await.unwrap();
    assert_eq!(bench.frame().await["code"], "bad_frame");
    assert_eq!(bench.closed().await, 4400);
    assert!(matches!(bench.told().await, Incoming::Lost));
}

#[tokio::test]
async fn results_that_are_not_json_end_their_attempts_and_never_the_socket() {
    let mut bench = Bench::new().greeted().await;
    for _ in 0..30 {
        let a = attempt();
        let broken = format!(
            r#"{{"type":"result","results":[{{"task_run":"{}","attempt":1,"outcome":"succeeded","output":NaN}}]}}"#,
            a.run
        );
        bench.worker.send(Message::text(broken)).await.unwrap();
        let Incoming::Results(results) = bench.told().await else { panic!() };
        let [(about, Outcome::Failed(error))] = &results[..] else { panic!("{results:?}") };
        assert_eq!((*about, error.code.as_deref()), (a, Some("bad_result")));
        assert!(bench.frame().await["message"].as_str().unwrap().contains("at line 1 column"), "the parser's words");
        assert_eq!(bench.frame().await["pointer"], "/results/0/output");
    }
}

#[tokio::test]
async fn a_violation_of_the_standard_gets_the_standards_code() {
    for (bytes, code) in [
        // A text frame that is not UTF-8, an opcode that does not exist, a frame that is not masked.
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        (vec![0x83, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x81, 0x01, b'x'], 1002),
    ] {
        let mut bench = Bench::new().greeted().await;
        bench.worker.get_mut().write_all(&bytes).await.unwrap();
        assert_eq!(bench.closed().await, code);
    }
}

#[tokio::test]
async fn a_revoked_token_and_a_stopping_engine_end_the_socket() {
    let mut bench = Bench::new().greeted().await;
    bench.revoke.take().unwrap().send(()).unwrap();
    assert_eq!(bench.closed().await, 4401);
    let mut bench = Bench::new().greeted().await;
    bench.push(Outgoing::Reconnect(Duration::from_millis(100)));
    assert_eq!(bench.frame().await, json!({"type": "reconnect", "deadline_ms": 100}));
    assert_eq!(bench.closed().await, 4503);
    let mut bench = Bench::new().greeted().await;
    bench.stopping.cancel();
    assert_eq!(bench.closed().await, 4503);
    let mut bench = Bench::new();
    bench.stopping.cancel();
    assert_eq!(bench.closed().await, 4503);
}

#[tokio::test]
async fn the_scheduler_closes_after_what_it_said_before() {
    let mut bench = Bench::new().greeted().await;
    let a = attempt();
    bench.push(Outgoing::Superseded(vec![(a, Reason::Reassigned)]));
    bench.push(Outgoing::Close(Close::Replaced));
    assert_eq!(bench.frame().await["tasks"][0]["reason"], "reassigned");
    assert_eq!(bench.closed().await, 4409);
    assert!(matches!(bench.told().await, Incoming::Lost));
}

#[tokio::test]
async fn a_socket_without_hello_is_closed_after_five_seconds() {
    let mut bench = Bench::new();
    let closed = tokio::time::timeout(WAIT * 2, bench.worker.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = closed else { panic!("{closed:?}") };
    assert_eq!(u16::from(frame.code), 4408);
}

#[tokio::test]
async fn silence_is_pinged_and_then_lost() {
    let fast = Scheduling {
        heartbeat: Duration::from_millis(30),
        silence: Duration::from_millis(200),
        ..Scheduling::default()
    };
    let mut bench = Bench::with(fast, &[Scope::Worker], 64 << 10).greeted().await;
    // Reading answers the engine's pings below: each answer is a sign of life.
    for _ in 0..10 {
        assert!(matches!(bench.next().await, Message::Ping(_)));
    }
    assert!(bench.requests.try_recv().is_err());
    // Not reading is silence.
    assert!(matches!(bench.told().await, Incoming::Lost));
}

#[tokio::test]
async fn a_slow_reader_is_heard_and_the_scheduler_told_when_it_caught_up() {
    let mut bench = Bench::with(Scheduling::default(), &[Scope::Worker], 1 << 10).greeted().await;
    let mut sent = 0;
    while bench.push(Outgoing::Assign(vec![task(8 << 10), task(8 << 10)])) == Room::Yes {
        sent += 2;
    }
    sent += 2;
    // Its reading is blocked on purpose; the outbox is full, so that it is not read either until it takes something.
    let mut taken = 0;
    while taken < sent {
        let frame = bench.frame().await;
        assert_eq!(frame["type"], "assign");
        taken += frame["tasks"].as_array().unwrap().len();
    }
    assert!(matches!(bench.told().await, Incoming::CaughtUp));
    bench.send(json!({"type": "drain"})).await;
    assert!(matches!(bench.told().await, Incoming::Drain));
}

#[tokio::test]
async fn too_many_pings_are_answered_slowly() {
    let mut bench = Bench::new().greeted().await;
    let started = tokio::time::Instant::now();
    for _ in 0..15 {
        bench.send(json!({"type": "ping"})).await;
    }
    for _ in 0..15 {
        assert_eq!(bench.frame().await["type"], "pong");
    }
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
}

#[tokio::test]
async fn too_many_changes_of_capacity_are_taken_slowly() {
    let mut bench = Bench::new().greeted().await;
    let started = tokio::time::Instant::now();
    for slots in 0..15 {
        bench.send(json!({"type": "capacity", "slots": {"default": slots}})).await;
    }
    for _ in 0..15 {
        assert!(matches!(bench.told().await, Incoming::Capacity(_)));
    }
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
}
