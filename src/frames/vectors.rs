//! The golden frames under `openapi/worker/vectors`: each is read or written here exactly as it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use helve_domain::delivery::{Assignment, Attempt, Incoming, Outcome, Outgoing, Reason, Welcome};
use helve_domain::id::RunId;
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::run::RunError;
use helve_domain::status::RunStatus;
use serde_json::Value;

use super::*;
use crate::config::Scheduling;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("openapi/worker/vectors")
}

fn text(name: &str) -> Bytes {
    let path = folder().join(format!("{name}.json"));
    Bytes::from(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

fn run(last: u8) -> RunId {
    format!("run_01932c4f8a2b7c3d9e4f5061728394{last:02x}").parse().unwrap()
}

fn attempt(last: u8, number: i32) -> Attempt {
    Attempt { run: run(last), number }
}

/// Every frame of a worker, and what the engine makes of it.
fn read_cases() -> Vec<(&'static str, String)> {
    let error = |message: &str, retryable, retry_after_ms| RunError {
        message: message.to_owned(),
        code: Some("my_code".to_owned()),
        retryable,
        retry_after_ms,
    };
    let results = vec![
        (attempt(1, 1), Outcome::Succeeded(Payload::trusted(Bytes::from_static(b"{\"ok\":true}")))),
        (attempt(2, 3), Outcome::Failed(error("boom", Some(true), Some(500)))),
        (attempt(3, 1), Outcome::Released),
    ];
    let slots = BTreeMap::from([("default".into(), 20), ("gpu".into(), 1)]);
    vec![
        ("worker.received", format!("{:?}", Frame::Said(Incoming::Received(vec![attempt(1, 1), attempt(2, 3)])))),
        ("worker.result", format!("{:?}", Frame::Said(Incoming::Results(results)))),
        (
            "worker.extend",
            format!("{:?}", Frame::Said(Incoming::Extend(vec![(attempt(1, 1), Duration::from_secs(60))]))),
        ),
        ("worker.free_slot", format!("{:?}", Frame::Said(Incoming::FreeSlot(vec![attempt(1, 1)])))),
        (
            "worker.labels",
            format!("{:?}", Frame::Said(Incoming::Labels(BTreeMap::from([("gpu".into(), "a100".into())])))),
        ),
        (
            "worker.log",
            format!(
                "Log([SaidLines {{ attempt: {:?}, lines: [{}, {}] }}])",
                attempt(1, 1),
                r#"SaidLine { level: Info, ago: 0ns, message: "3 of 10 are done" }"#,
                r#"SaidLine { level: Warn, ago: 250ms, message: "a.png has no colour profile" }"#
            ),
        ),
        (
            "worker.progress",
            format!(
                "Progress([SaidProgress {{ attempt: {:?}, fraction: 0.3, parts: Some((3, 10)), data: Some(Payload(17 \
                 bytes)) }}, SaidProgress {{ attempt: {:?}, fraction: 0.5, parts: None, data: None }}])",
                attempt(1, 1),
                attempt(2, 3)
            ),
        ),
        ("worker.capacity", format!("{:?}", Frame::Said(Incoming::Capacity(slots)))),
        ("worker.ping", "Ping".to_owned()),
        ("worker.drain", "Said(Drain)".to_owned()),
        ("worker.goodbye", "Said(Goodbye)".to_owned()),
    ]
}

/// Every frame of the engine, written from values.
fn written_cases() -> Vec<(&'static str, String)> {
    let grace = Duration::from_secs(5);
    let welcome = Welcome {
        worker: "wrk_01932c4f8a2b7c3d9e4f50617283a001".parse().unwrap(),
        session: "ses_01932c4f8a2b7c3d9e4f50617283a002".parse().unwrap(),
        secret: "5f2a".repeat(16),
        resumed: true,
        superseded: vec![(attempt(4, 1), Reason::Finished)],
    };
    let fresh = Welcome { resumed: false, superseded: Vec::new(), ..welcome.clone() };
    let hello = decode(&text("worker.hello_warned"), &Limits::default());
    let mut warnings: Vec<_> = hello.unknown.into_iter().map(Warning::from).collect();
    warnings.push(Warning::no_workflow("resise"));
    let misspelt = format!(
        r#"{{"type":"result","results":[{{"task_run":"{}","attempt":1,"outcome":"succeeded","result":1}}]}}"#,
        run(1)
    );
    let unknown = decode(&Bytes::from(misspelt), &Limits::default()).unknown;
    let node = "node_01932c4f8a2b7c3d9e4f50617283a003".parse().unwrap();
    let task = Assignment {
        attempt: attempt(1, 1),
        workflow: "resize".into(),
        action: "resize".into(),
        input: Payload::trusted(Bytes::from_static(br#"{"url":"a.png"}"#)),
        metadata: Payload::trusted(Bytes::from_static(br#"{"user":"42"}"#)),
        timeout: Duration::from_secs(30),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    };
    let mut assigned = Vec::new();
    assign(&[task], 1 << 20, |frame| assigned.push(frame));
    let bad = Fault::bad_frame("/results/1/attempt", "expected a whole number; got the string \"x\"");
    let one = |message: Outgoing| encode(&message).unwrap();
    vec![
        ("engine.welcome", super::welcome(&welcome, &[], node, &Scheduling::default(), &Limits::default())),
        ("engine.welcome_warned", super::welcome(&fresh, &warnings, node, &Scheduling::default(), &Limits::default())),
        ("engine.assign", assigned.remove(0)),
        ("engine.stored", one(Outgoing::Stored(vec![(attempt(1, 1), RunStatus::Succeeded)]))),
        ("engine.superseded", one(Outgoing::Superseded(vec![(attempt(1, 1), Reason::Timeout)]))),
        ("engine.cancel", one(Outgoing::Cancel(vec![(attempt(1, 2), Reason::Requested)], grace))),
        ("engine.extended", one(Outgoing::Extended(attempt(1, 1), Duration::from_secs(60)))),
        ("engine.freed", one(Outgoing::Freed(attempt(1, 1)))),
        ("engine.reconnect", one(Outgoing::Reconnect(Duration::from_secs(10)))),
        ("engine.pong", pong().to_owned()),
        ("engine.error", fault(&bad)),
        ("engine.error_unknown_field", fault(&unknown[0])),
        ("engine.error_not_json", told(r#""outcome":"succeeded","output":NaN"#)),
        ("engine.error_repaired", told(r#""outcome":"failed","error":{"message":"half \ud83d"}"#)),
    ]
}

/// What is told first of a result that is wrong.
fn told(result: &str) -> String {
    let run = run(1);
    let text = format!(r#"{{"type":"result","results":[{{"task_run":"{run}","attempt":1,{result}}}]}}"#);
    fault(&decode(&Bytes::from(text), &Limits::default()).faults[0])
}

#[test]
fn workers_frames_are_read() {
    for (name, expected) in read_cases() {
        let decoded = decode(&text(name), &Limits::default());
        assert_eq!(decoded.faults, [], "{name}");
        assert_eq!(format!("{:?}", decoded.frame.unwrap()), expected, "{name}");
    }
}

#[test]
fn hellos_are_read_and_allowed() {
    for (name, resumes) in [("worker.hello", false), ("worker.hello_resume", true)] {
        let decoded = decode(&text(name), &Limits::default());
        let Some(Frame::Hello(Ok(hello))) = decoded.frame else { panic!("{name}: {decoded:?}") };
        let checked = hello.check(&Limits::default()).unwrap();
        assert_eq!((&*checked.info.name, &*checked.info.sdk), ("w1", "curl"));
        assert_eq!(checked.info.slots, BTreeMap::from([("default".into(), 10)]));
        assert_eq!(checked.workflows.len(), usize::from(!resumes));
        assert_eq!(checked.resume.map(|r| r.holding), resumes.then(|| vec![attempt(1, 1)]));
    }
}

#[test]
fn engines_frames_are_written() {
    for (name, frame) in written_cases() {
        let expected: Value = serde_json::from_slice(&text(name)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&frame).unwrap(), expected, "{name}: {frame}");
    }
}

#[test]
fn every_vector_is_used() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut used: BTreeSet<String> =
        read_cases().into_iter().chain(written_cases()).map(|(name, _)| name.to_owned()).collect();
    used.extend(["worker.hello", "worker.hello_resume", "worker.hello_warned"].map(str::to_owned));
    assert_eq!(files, used);
}
