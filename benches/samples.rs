//! Frames and messages as they are in ordinary work.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use helve::ws::frames;
use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Assignment, Attempt, Outgoing};
use helve_domain::id::RunId;
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::status::RunStatus;

use crate::play;

fn attempts(n: usize) -> impl Iterator<Item = Attempt> {
    let now = Timestamp::from_micros(1_800_000_000_000_000);
    (0..n).map(move |_| Attempt { run: RunId::generate(now), number: 1 })
}

/// `n` tasks with inputs of 200 bytes.
pub fn assign(n: usize) -> Outgoing {
    let task = |attempt| Assignment {
        attempt,
        workflow: "resize-image".into(),
        action: "resize-image".into(),
        input: play::input(),
        metadata: Payload::empty_object(),
        timeout: Duration::from_secs(300),
        traceparent: None,
    };
    Outgoing::Assign(attempts(n).map(task).collect())
}

/// `n` stored results.
pub fn stored(n: usize) -> Outgoing {
    Outgoing::Stored(attempts(n).map(|attempt| (attempt, RunStatus::Succeeded)).collect())
}

/// A frame with `n` confirmations.
pub fn received(n: usize) -> Bytes {
    list("received", "tasks", n, "")
}

/// A frame with `n` results whose outputs have 200 bytes.
pub fn result(n: usize) -> Bytes {
    let output = String::from_utf8(play::input().bytes().to_vec()).unwrap();
    list("result", "results", n, &format!(r#","outcome":"succeeded","output":{output}"#))
}

fn list(kind: &str, name: &str, n: usize, rest: &str) -> Bytes {
    let mut text = format!(r#"{{"type":"{kind}","{name}":["#);
    for (i, Attempt { run, number }) in attempts(n).enumerate() {
        let comma = if i > 0 { "," } else { "" };
        write!(text, r#"{comma}{{"task_run":"{run}","attempt":{number}{rest}}}"#).unwrap();
    }
    text.push_str("]}");
    let text = Bytes::from(text);
    assert!(frames::read(&text, &Limits::default()).is_ok());
    text
}

/// How long the frames of a message are.
pub fn bytes(message: &Outgoing) -> usize {
    let mut bytes = 0;
    frames::write(message, &Limits::default(), |frame| bytes += frame.len());
    bytes
}
