//! What the engine sends. Written by hand where it is hot: a payload's bytes go out as they came in.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use helve_domain::delivery::{Assignment, Attempt, Outgoing, Reason, Welcome};
use helve_domain::id::{NodeId, SessionId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::run::MAX_ERROR_MESSAGE;
use helve_domain::status::RunStatus;
use serde::Serialize;
use tracing::error;

use super::{Fault, PROTOCOL, Warning};
use crate::config::Scheduling;

/// The answer to `ping`.
pub(crate) const fn pong() -> &'static str {
    r#"{"type":"pong"}"#
}

/// Writes the frame of a message; nothing for those that are not one frame: see [`assign`] and the session's close.
pub(crate) fn encode(message: &Outgoing) -> Option<String> {
    let frame = match message {
        Outgoing::Assign(_) | Outgoing::Close(_) => return None,
        Outgoing::Stored(results) => list("stored", "results", results, |out, (attempt, status): &(_, RunStatus)| {
            put_attempt(out, *attempt);
            put(out, format_args!(r#","status":"{}"}}"#, status.as_str()));
        }),
        Outgoing::Superseded(tasks) => list("superseded", "tasks", tasks, |out, (attempt, reason): &(_, Reason)| {
            put_attempt(out, *attempt);
            put(out, format_args!(r#","reason":"{}"}}"#, reason.as_str()));
        }),
        Outgoing::Cancel(tasks, grace) => list("cancel", "tasks", tasks, |out, (attempt, reason): &(_, Reason)| {
            put_attempt(out, *attempt);
            put(out, format_args!(r#","reason":"{}","grace_ms":{}}}"#, reason.as_str(), grace.as_millis()));
        }),
        Outgoing::Extended(attempt, rest) => list("extended", "tasks", &[*attempt], |out, attempt| {
            put_attempt(out, *attempt);
            put(out, format_args!(r#","timeout_ms":{}}}"#, rest.as_millis()));
        }),
        Outgoing::Freed(attempt) => list("freed", "tasks", &[*attempt], |out, attempt| {
            put_attempt(out, *attempt);
            out.push('}');
        }),
        Outgoing::Reconnect(within) => format!(r#"{{"type":"reconnect","deadline_ms":{}}}"#, within.as_millis()),
        Outgoing::Error(code, message) => fault(&Fault::whole(*code, message.as_str())),
    };
    Some(frame)
}

/// Writes an `error` frame.
pub(crate) fn fault(fault: &Fault) -> String {
    let mut out = String::with_capacity(96 + fault.message.len());
    out.push_str(r#"{"type":"error","code":""#);
    out.push_str(fault.code.as_str());
    out.push_str(r#"","message":"#);
    put_text(&mut out, &fault.message);
    if let Some(pointer) = &fault.pointer {
        out.push_str(r#","pointer":"#);
        put_text(&mut out, pointer);
    }
    out.push('}');
    out
}

/// Writes tasks as `assign` frames of at most `limit` bytes each, as few as that takes. One task always fits
/// into a frame of its own.
pub(crate) fn assign(tasks: &[Assignment], limit: usize, mut each: impl FnMut(String)) {
    const HEAD: &str = r#"{"type":"assign","tasks":["#;
    const TAIL: &str = "]}";
    let sizes = tasks.iter().map(|t| t.input.len() + t.metadata.len() + 320).sum::<usize>();
    let (mut frame, mut task) = (String::with_capacity(sizes.min(limit) + HEAD.len() + TAIL.len()), String::new());
    for assignment in tasks {
        task.clear();
        if !put_task(&mut task, assignment) {
            // The payload in our own row is not text. Its attempt is taken back when nobody confirms it.
            error!(run = %assignment.attempt.run, "a stored payload is not UTF-8");
            continue;
        }
        if !frame.is_empty() && frame.len() + 1 + task.len() + TAIL.len() > limit {
            frame.push_str(TAIL);
            each(std::mem::take(&mut frame));
        }
        frame.push_str(if frame.is_empty() { HEAD } else { "," });
        frame.push_str(&task);
    }
    if !frame.is_empty() {
        frame.push_str(TAIL);
        each(frame);
    }
}

fn put_task(out: &mut String, task: &Assignment) -> bool {
    let Attempt { run, number } = task.attempt;
    put(out, format_args!(r#"{{"task_run":"{run}","attempt":{number},"run":"{run}","workflow":"#));
    put_text(out, &task.workflow);
    out.push_str(r#","action":"#);
    put_text(out, &task.action);
    out.push_str(r#","input":"#);
    let mut valid = put_payload(out, &task.input);
    out.push_str(r#","metadata":"#);
    valid &= put_payload(out, &task.metadata);
    put(out, format_args!(r#","timeout_ms":{}"#, task.timeout.as_millis()));
    if let Some(traceparent) = &task.traceparent {
        out.push_str(r#","traceparent":"#);
        put_text(out, traceparent);
    }
    out.push('}');
    valid
}

fn put_payload(out: &mut String, payload: &Payload) -> bool {
    let text = std::str::from_utf8(payload.bytes());
    text.map(|text| out.push_str(text)).is_ok()
}

fn list<T>(kind: &str, name: &str, items: &[T], each: impl Fn(&mut String, &T)) -> String {
    let mut out = String::with_capacity(40 + items.len() * 96);
    put(&mut out, format_args!(r#"{{"type":"{kind}","{name}":["#));
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        each(&mut out, item);
    }
    out.push_str("]}");
    out
}

/// The beginning of an item; it stays open.
fn put_attempt(out: &mut String, Attempt { run, number }: Attempt) {
    put(out, format_args!(r#"{{"task_run":"{run}","attempt":{number}"#));
}

fn put(out: &mut String, what: impl Display) {
    // Writing into a string cannot fail.
    let _ = write!(out, "{what}");
}

/// A JSON string with its quotes.
fn put_text(out: &mut String, text: &str) {
    // Names have nothing to escape, and need no string of their own.
    if text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    // A string is always valid JSON, and writing into memory cannot fail.
    out.push_str(&serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned()));
}

#[derive(Serialize)]
struct WelcomeFrame<'a> {
    r#type: &'static str,
    protocol: u32,
    worker: WorkerId,
    session: SessionId,
    secret: &'a str,
    resumed: bool,
    node: NodeId,
    heartbeat_ms: u128,
    grace_ms: u128,
    limits: WelcomeLimits,
    superseded: Vec<SupersededItem>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [Warning],
}

#[derive(Serialize)]
struct WelcomeLimits {
    frame_bytes: usize,
    output_bytes: usize,
    json_depth: usize,
    error_message_bytes: usize,
    log_line_bytes: usize,
    progress_bytes: usize,
}

#[derive(Serialize)]
struct SupersededItem {
    task_run: helve_domain::id::RunId,
    attempt: i32,
    reason: &'static str,
}

/// Writes the `welcome` frame.
pub(crate) fn welcome(
    welcome: &Welcome,
    warnings: &[Warning],
    node: NodeId,
    scheduling: &Scheduling,
    limits: &Limits,
) -> String {
    let millis = |d: Duration| d.as_millis();
    let frame = WelcomeFrame {
        r#type: "welcome",
        protocol: PROTOCOL,
        worker: welcome.worker,
        session: welcome.session,
        secret: &welcome.secret,
        resumed: welcome.resumed,
        node,
        heartbeat_ms: millis(scheduling.heartbeat),
        grace_ms: millis(scheduling.grace),
        limits: WelcomeLimits {
            frame_bytes: limits.frame_bytes,
            output_bytes: limits.payload_bytes,
            json_depth: limits.json_depth,
            error_message_bytes: MAX_ERROR_MESSAGE,
            log_line_bytes: limits.log_line_bytes,
            progress_bytes: limits.progress_bytes,
        },
        superseded: welcome
            .superseded
            .iter()
            .map(|(attempt, reason)| SupersededItem {
                task_run: attempt.run,
                attempt: attempt.number,
                reason: reason.as_str(),
            })
            .collect(),
        warnings,
    };
    serde_json::to_string(&frame).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use helve_domain::clock::Timestamp;
    use helve_domain::id::RunId;
    use serde_json::Value;

    use super::*;

    fn task(input: &str) -> Assignment {
        Assignment {
            attempt: Attempt { run: RunId::generate(Timestamp::from_micros(1)), number: 3 },
            workflow: "w".into(),
            action: "a".into(),
            input: Payload::trusted(Bytes::from(input.to_owned())),
            metadata: Payload::trusted(Bytes::from_static(b"{}")),
            timeout: Duration::from_secs(30),
            traceparent: None,
        }
    }

    fn frames(tasks: &[Assignment], limit: usize) -> Vec<String> {
        let mut frames = Vec::new();
        assign(tasks, limit, |frame| frames.push(frame));
        frames
    }

    #[test]
    fn assign_is_split_by_bytes_and_keeps_the_order() {
        let tasks: Vec<_> = (0..100).map(|i| task(&format!("\"{}{i}\"", "x".repeat(i * 10)))).collect();
        let frames = frames(&tasks, 2_000);
        assert!(frames.len() > 20 && frames.iter().all(|f| f.len() <= 2_000));
        let runs: Vec<_> = frames
            .iter()
            .flat_map(|f| serde_json::from_str::<Value>(f).unwrap()["tasks"].as_array().unwrap().clone())
            .map(|t| t["task_run"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(runs, tasks.iter().map(|t| t.attempt.run.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn one_task_always_fits_and_a_broken_row_is_left_out() {
        let mut broken = task("1");
        broken.input = Payload::trusted(Bytes::from_static(b"\"\xff\""));
        let frames = frames(&[task(&"1".repeat(5_000)), broken.clone(), task("2")], 1_000);
        assert_eq!(frames.len(), 2);
        assert!(self::frames(&[broken], 1_000).is_empty());
    }

    #[test]
    fn payload_bytes_go_out_as_they_are() {
        let input = r#"{"n":1e400, "s":"\u0000\ud800"}"#;
        assert!(frames(&[task(input)], 1 << 20)[0].contains(&format!(r#""input":{input},"metadata":{{}}"#)));
    }
}
