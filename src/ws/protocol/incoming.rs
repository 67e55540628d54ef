//! What a worker sends after its hello, and the way in for every frame.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::fields::Fields;
use super::hello::{self, HelloFrame};
use super::live::{self, SaidLines, SaidProgress};
use super::{Fault, Faults, shown};
use crate::domain::delivery::{Attempt, Close, Outcome};
use crate::domain::json::Payload;
use crate::domain::limits::{Limits, MAX_DURATION};
use crate::domain::name;
use crate::domain::offer;
use crate::domain::run::{MAX_ERROR_MESSAGE, RunError};
use crate::error::{Code, Error};
use crate::id::RunId;

/// One frame of a worker.
#[derive(Debug)]
pub(in crate::ws) enum Incoming {
    /// The first frame; checked in its form only, see [`HelloFrame::check`].
    Hello(Result<Box<HelloFrame>, Fault>),
    /// These attempts arrived.
    Received(Vec<Attempt>),
    /// These attempts ended.
    Results(Vec<(Attempt, Outcome)>),
    /// These attempts may take this long from now on.
    Extend(Vec<(Attempt, Duration)>),
    /// The slots of these attempts are given back although they go on.
    FreeSlot(Vec<Attempt>),
    /// New labels, instead of all others.
    Labels(BTreeMap<String, String>),
    /// Lines of the logs of attempts.
    Log(Vec<SaidLines>),
    /// How far attempts are.
    Progress(Vec<SaidProgress>),
    /// New slot totals.
    Capacity(BTreeMap<Arc<str>, u32>),
    /// A sign of life that wants a `pong`.
    Ping,
    /// Assign nothing more.
    Drain,
    /// The worker leaves for good.
    Goodbye,
}

/// A frame with what was wrong in it: one bad item does not lose the others.
#[derive(Debug)]
pub(in crate::ws) struct Decoded {
    /// What is right; `None` if nothing of the frame can be used.
    pub(in crate::ws) frame: Option<Incoming>,
    /// What is wrong; each becomes an `error` frame.
    pub(in crate::ws) faults: Vec<Fault>,
}

/// Every field that a frame may have at its top: one pass finds them all.
const TOP: [&str; 14] = [
    "type",
    "results",
    "tasks",
    "slots",
    "logs",
    "progress",
    "protocol",
    "name",
    "sdk",
    "actions",
    "labels",
    "workflows",
    "resume",
    "ticket",
];

pub(super) type Top<'a> = Fields<'a, { TOP.len() }>;

/// Reads one text frame. An error says that this is not a frame at all, and how to close.
pub(in crate::ws) fn decode(text: &Bytes, limits: &Limits) -> Result<Decoded, Close> {
    let utf8 = std::str::from_utf8(text).map_err(|_| Close::BadFrame)?;
    let top = match Top::read(utf8, TOP, String::new()) {
        Ok(top) => top,
        Err(fault) => {
            // An object with a field twice or with a lone surrogate in a name is JSON nonetheless.
            let is_object = utf8.trim_ascii_start().starts_with('{') && serde_json::from_str::<&RawValue>(utf8).is_ok();
            return if is_object { Ok(Decoded { frame: None, faults: vec![fault] }) } else { Err(Close::BadFrame) };
        }
    };
    let kind: String = top.required("type").map_err(|_| Close::BadFrame)?;
    let mut faults = Faults::default();
    let frame = match kind.as_str() {
        "hello" => Ok(Incoming::Hello(hello::read(&top).map(Box::new))),
        "received" => list(&top, "tasks", &mut faults, |raw, at, _| attempt(&item(raw, at)?)).map(Incoming::Received),
        "result" => {
            let read = |raw: &RawValue, at: String, faults: &mut Faults| result(text, &item(raw, at)?, limits, faults);
            list(&top, "results", &mut faults, read).map(Incoming::Results)
        }
        "extend" => list(&top, "tasks", &mut faults, |raw, at, _| extension(&item(raw, at)?)).map(Incoming::Extend),
        "free_slot" => list(&top, "tasks", &mut faults, |raw, at, _| attempt(&item(raw, at)?)).map(Incoming::FreeSlot),
        "labels" => labels(&top, limits).map(Incoming::Labels),
        "log" => live::logs(&top, limits, &mut faults).map(Incoming::Log),
        "progress" => live::progress(text, &top, limits, &mut faults).map(Incoming::Progress),
        "capacity" => capacity(&top, limits).map(Incoming::Capacity),
        "ping" => Ok(Incoming::Ping),
        "drain" => Ok(Incoming::Drain),
        "goodbye" => Ok(Incoming::Goodbye),
        other => Err(Fault {
            code: Code::UnknownFrame,
            pointer: Some("/type".to_owned()),
            message: format!("this engine knows no frame `{}`", shown(other)),
        }),
    };
    let frame = frame.map_err(|fault| faults.push(fault)).ok();
    Ok(Decoded { frame, faults: faults.finish() })
}

/// Every field that an item of a list may have.
const ITEM: [&str; 6] = ["task_run", "attempt", "outcome", "output", "error", "timeout_ms"];

type Item<'a> = Fields<'a, { ITEM.len() }>;

fn item(raw: &RawValue, at: String) -> Result<Item<'_>, Fault> {
    Item::read(raw.get(), ITEM, at)
}

/// Reads a list item by item: those that are wrong are answered, the others count.
pub(super) fn list<'a, T>(
    top: &Top<'a>,
    name: &str,
    faults: &mut Faults,
    read: impl Fn(&'a RawValue, String, &mut Faults) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut items = Vec::new();
    top.each(name, |i, raw| match read(raw, format!("/{name}/{i}"), faults) {
        Ok(item) => items.push(item),
        Err(fault) => faults.push(fault),
    })?;
    Ok(items)
}

/// Attempts that a resuming worker holds. Here one bad item is an error of the whole hello.
pub(super) fn attempts(list: Option<Vec<&RawValue>>, at: &str) -> Result<Vec<Attempt>, Fault> {
    let read = |(i, raw): (usize, &RawValue)| attempt(&item(raw, format!("{at}/{i}"))?);
    list.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

pub(super) fn attempt<const N: usize>(item: &Fields<'_, N>) -> Result<Attempt, Fault> {
    let run: RunId = item.required("task_run")?;
    let number: i32 = item.required("attempt")?;
    if number < 1 {
        return Err(Fault::bad_frame(&item.pointer("attempt"), format!("attempts count from 1; got {number}")));
    }
    Ok(Attempt { run, number })
}

fn extension(item: &Item<'_>) -> Result<(Attempt, Duration), Fault> {
    let attempt = attempt(item)?;
    let millis: u64 = item.required("timeout_ms")?;
    let timeout = Duration::from_millis(millis);
    if timeout.is_zero() || timeout > MAX_DURATION {
        let message = format!("expected 1 to {} milliseconds; got {millis}", MAX_DURATION.as_millis());
        return Err(Fault::bad_frame(&item.pointer("timeout_ms"), message));
    }
    Ok((attempt, timeout))
}

fn result(text: &Bytes, item: &Item<'_>, limits: &Limits, faults: &mut Faults) -> Result<(Attempt, Outcome), Fault> {
    let attempt = attempt(item)?;
    let outcome: String = item.required("outcome")?;
    let outcome = match outcome.as_str() {
        "succeeded" => succeeded(text, item, limits, faults),
        "failed" => Outcome::Failed(failed(item, limits)?),
        "released" => Outcome::Released,
        other => {
            let message = format!("expected `succeeded`, `failed` or `released`; got `{}`", shown(other));
            return Err(Fault::bad_frame(&item.pointer("outcome"), message));
        }
    };
    Ok((attempt, outcome))
}

/// An output that the engine cannot keep ends the attempt all the same: it must not hang until its timeout, and
/// another attempt would give the same output.
fn succeeded(text: &Bytes, item: &Item<'_>, limits: &Limits, faults: &mut Faults) -> Outcome {
    let Some(raw) = item.raw("output") else { return Outcome::Succeeded(Payload::null()) };
    let pointer = item.pointer("output");
    match Payload::from_raw(text, raw, "the output", &pointer, limits) {
        Ok(output) => Outcome::Succeeded(output),
        Err(err) => {
            let code = if matches!(err, Error::TooLarge { .. }) { "output_too_large" } else { "output_too_deep" };
            let fault = Fault { pointer: Some(pointer), ..Fault::from(&err) };
            let error = RunError { retryable: Some(false), ..RunError::of_engine(code, fault.message.clone()) };
            faults.push(fault);
            Outcome::Failed(error)
        }
    }
}

fn failed(item: &Item<'_>, limits: &Limits) -> Result<RunError, Fault> {
    let at = item.pointer("error");
    let raw: &RawValue = item.required("error")?;
    let error = Fields::read(raw.get(), ["message", "code", "retryable", "retry_after_ms"], at)?;
    let code: Option<String> = error.optional("code")?;
    if let Some(code) = &code {
        name::check_text(&error.pointer("code"), code, limits)
            .map_err(|err| Fault { code: Code::BadFrame, ..Fault::from(&err) })?;
    }
    Ok(RunError {
        message: kept(error.required("message")?, MAX_ERROR_MESSAGE),
        code,
        retryable: error.optional("retryable")?,
        retry_after_ms: error.optional("retry_after_ms")?,
    })
}

/// What is kept of a message: PostgreSQL's text has no NUL, and a stack trace may be endless.
pub(super) fn kept(mut message: String, bytes: usize) -> String {
    message.retain(|c| c != '\0');
    if message.len() > bytes {
        let end = (0..=bytes).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
        message.truncate(end);
    }
    message
}

fn capacity(top: &Top<'_>, limits: &Limits) -> Result<BTreeMap<Arc<str>, u32>, Fault> {
    hello::slots(top.required("slots")?, limits).map_err(|err| Fault { code: Code::BadFrame, ..Fault::from(&err) })
}

fn labels(top: &Top<'_>, limits: &Limits) -> Result<BTreeMap<String, String>, Fault> {
    let labels = top.required("labels")?;
    offer::check_labels(&labels, limits).map_err(|err| Fault { code: Code::BadFrame, ..Fault::from(&err) })?;
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::SMALL;

    const RUN: &str = "run_01890a5d96427774b3dc9d8e5f1a2b3c";

    fn read(text: &str) -> Decoded {
        decode(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
    }

    fn results(text: &str) -> (Vec<Outcome>, Vec<Fault>) {
        let decoded = read(text);
        match decoded.frame {
            Some(Incoming::Results(results)) => (results.into_iter().map(|r| r.1).collect(), decoded.faults),
            _ => (Vec::new(), decoded.faults),
        }
    }

    fn one(rest: &str) -> String {
        format!(r#"{{"type":"result","results":[{{"task_run":"{RUN}","attempt":1,{rest}}}]}}"#)
    }

    #[test]
    fn what_is_not_a_frame_closes() {
        for text in ["", "nul", "[]", "1", "{", "{}", r#"{"type":1}"#, r#"{"type":null}"#, "{} {}", "\"x\""] {
            assert_eq!(
                decode(&Bytes::from(text.to_owned()), &Limits::default()).err(),
                Some(Close::BadFrame),
                "{text}"
            );
        }
        assert_eq!(
            decode(&Bytes::from_static(b"{\"type\":\"\xff\"}"), &Limits::default()).err(),
            Some(Close::BadFrame)
        );
    }

    #[test]
    fn an_output_passes_byte_for_byte_and_a_large_one_without_a_copy() {
        let large = format!(r#"{{"n":1e400, "s":"{}"}}"#, "x".repeat(SMALL));
        for (given, copied) in [(r#"{"n":1e400, "s":"\u0000\ud800"}"#, true), (large.as_str(), false)] {
            let text = Bytes::from(one(&format!(r#""outcome":"succeeded","output": {given}"#)));
            let decoded = decode(&text, &Limits::default()).unwrap();
            let Some(Incoming::Results(results)) = decoded.frame else { panic!() };
            let Outcome::Succeeded(output) = &results[0].1 else { panic!() };
            assert_eq!(output.bytes(), given.as_bytes());
            assert_eq!(!text.as_ptr_range().contains(&output.bytes().as_ptr()), copied, "a small one keeps no frame");
        }
    }

    #[test]
    fn an_absent_output_is_null() {
        let (outcomes, _) = results(&one(r#""outcome":"succeeded""#));
        assert!(matches!(&outcomes[..], [Outcome::Succeeded(p)] if *p == Payload::null()));
    }

    #[test]
    fn a_bad_item_does_not_lose_its_neighbours() {
        let (outcomes, faults) = results(&format!(
            r#"{{"type":"result","results":[7,{{"task_run":"{RUN}","attempt":1,"outcome":"released"}},{{"task_run":"{RUN}","attempt":"x"}}]}}"#
        ));
        assert!(matches!(outcomes[..], [Outcome::Released]));
        let at: Vec<_> = faults.iter().map(|f| (f.code, f.pointer.as_deref().unwrap())).collect();
        assert_eq!(at, [(Code::BadFrame, "/results/0"), (Code::BadFrame, "/results/2/attempt")]);
    }

    #[test]
    fn endless_faults_are_counted_not_listed() {
        let text = format!(r#"{{"type":"received","tasks":[{}1]}}"#, "1,".repeat(100_000));
        let faults = read(&text).faults;
        assert_eq!(faults.len(), super::super::MAX_FAULTS + 1);
        assert_eq!(faults.last().unwrap().message, "99985 more items of this frame are wrong");
    }

    #[test]
    fn an_output_over_a_limit_fails_the_attempt_for_good() {
        let large = format!(r#""outcome":"succeeded","output":"{}""#, "x".repeat(1 << 20));
        let deep = format!(r#""outcome":"succeeded","output":{}{}"#, "[".repeat(129), "]".repeat(129));
        for (rest, fault, code) in
            [(large, Code::TooLarge, "output_too_large"), (deep, Code::TooDeep, "output_too_deep")]
        {
            let (outcomes, faults) = results(&one(&rest));
            assert_eq!((faults[0].code, faults[0].pointer.as_deref()), (fault, Some("/results/0/output")));
            let [Outcome::Failed(error)] = &outcomes[..] else { panic!() };
            assert_eq!((error.code.as_deref(), error.retryable), (Some(code), Some(false)));
        }
    }

    #[test]
    fn a_failure_is_kept_in_bounds() {
        let message = format!("a\\u0000{}", "é".repeat(10_000));
        let rest = format!(r#""outcome":"failed","error":{{"message":"{message}","code":"x","retry_after_ms":500}}"#);
        let (outcomes, _) = results(&one(&rest));
        let [Outcome::Failed(error)] = &outcomes[..] else { panic!() };
        assert_eq!(error.message.len(), MAX_ERROR_MESSAGE - 1);
        assert!(error.message.starts_with("aé"));
        assert_eq!((error.retryable, error.retry_after_ms), (None, Some(500)));
    }

    #[test]
    fn wrong_fields_are_named() {
        for (text, code, pointer) in [
            (r#"{"type":"jump"}"#.to_owned(), Code::UnknownFrame, "/type"),
            (r#"{"type":"result"}"#.to_owned(), Code::BadFrame, "/results"),
            (r#"{"type":"result","results":{}}"#.to_owned(), Code::BadFrame, "/results"),
            (r#"{"type":"ping","tasks":1,"tasks":2}"#.to_owned(), Code::BadFrame, ""),
            (r#"{"type":"ping","\ud800":2}"#.to_owned(), Code::BadFrame, ""),
            (r#"{"type":"capacity","slots":{"default":-1}}"#.to_owned(), Code::BadFrame, "/slots"),
            (r#"{"type":"capacity","slots":{"default":100001}}"#.to_owned(), Code::BadFrame, "/slots/default"),
            (r#"{"type":"labels"}"#.to_owned(), Code::BadFrame, "/labels"),
            (r#"{"type":"labels","labels":["a"]}"#.to_owned(), Code::BadFrame, "/labels"),
            (r#"{"type":"labels","labels":{"a":1}}"#.to_owned(), Code::BadFrame, "/labels"),
            (r#"{"type":"labels","labels":{"a":"\u0000"}}"#.to_owned(), Code::BadFrame, "/labels/a"),
            (r#"{"type":"free_slot"}"#.to_owned(), Code::BadFrame, "/tasks"),
            (r#"{"type":"free_slot","tasks":[{"attempt":1}]}"#.to_owned(), Code::BadFrame, "/tasks/0/task_run"),
            (one(r#""outcome":"done""#), Code::BadFrame, "/results/0/outcome"),
            (one(r#""outcome":"failed""#), Code::BadFrame, "/results/0/error"),
            (one(r#""outcome":"failed","error":"boom""#), Code::BadFrame, "/results/0/error"),
            (one(r#""outcome":"failed","error":{}"#), Code::BadFrame, "/results/0/error/message"),
            (one(r#""outcome":"failed","error":{"message":"\udc80"}"#), Code::BadFrame, "/results/0/error/message"),
            (one(r#""outcome":"failed","error":{"message":"m","code":""}"#), Code::BadFrame, "/results/0/error/code"),
            (
                one(r#""outcome":"failed","error":{"message":"m","retry_after_ms":1e99}"#),
                Code::BadFrame,
                "/results/0/error/retry_after_ms",
            ),
            (
                r#"{"type":"received","tasks":[{"task_run":"evt_x","attempt":1}]}"#.to_owned(),
                Code::BadFrame,
                "/tasks/0/task_run",
            ),
            (
                format!(r#"{{"type":"received","tasks":[{{"task_run":"{RUN}","attempt":0}}]}}"#),
                Code::BadFrame,
                "/tasks/0/attempt",
            ),
            (
                format!(r#"{{"type":"extend","tasks":[{{"task_run":"{RUN}","attempt":1,"timeout_ms":0}}]}}"#),
                Code::BadFrame,
                "/tasks/0/timeout_ms",
            ),
        ] {
            let faults = read(&text).faults;
            assert_eq!((faults[0].code, faults[0].pointer.as_deref()), (code, Some(pointer)), "{text}: {faults:?}");
        }
    }
}
