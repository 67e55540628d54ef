//! What a worker sends after its hello, and the way in for every frame.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helve_domain::delivery::{Attempt, Incoming};
use helve_domain::error::Code;
use helve_domain::id::RunId;
use helve_domain::limits::{Limits, MAX_DURATION};
use helve_domain::{offer, plain};
use serde_json::value::RawValue;

use super::broken::{self, Mend};
use super::fields::Fields;
use super::hello::{self, HelloFrame};
use super::live::{self, SaidLines, SaidProgress};
use super::results::{self, Source};
use super::{Fault, Faults, shown};

/// One frame of a worker.
#[derive(Debug)]
pub(crate) enum Frame {
    /// The first frame; checked in its form only, see [`HelloFrame::check`].
    Hello(Result<Box<HelloFrame>, Fault>),
    /// Lines of the logs of attempts, before they get their numbers.
    Log(Vec<SaidLines>),
    /// How far attempts are, as the worker says it.
    Progress(Vec<SaidProgress>),
    /// A sign of life that wants a `pong`.
    Ping,
    /// What goes on as it is.
    Said(Incoming),
}

/// A frame with what was wrong in it: one bad item does not lose the others.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// What is right; `None` if nothing of the frame can be used.
    pub(crate) frame: Option<Frame>,
    /// What is wrong; each becomes an `error` frame.
    pub(crate) faults: Vec<Fault>,
    /// Fields that nobody knows: they change nothing, and a worker that misspells one should hear of it.
    pub(crate) unknown: Vec<Fault>,
    /// False: this is not a frame, and nothing of it could be made out.
    pub(crate) is_frame: bool,
}

impl Decoded {
    /// Nothing of it can be used.
    fn wrong(fault: Fault, is_frame: bool) -> Self {
        Self { frame: None, faults: vec![fault], unknown: Vec::new(), is_frame }
    }
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

/// Reads one text frame.
pub(crate) fn decode(text: &Bytes, limits: &Limits) -> Decoded {
    decode_kept(text, limits, |mended| mended)
}

/// As [`decode`]; `keep` accounts for the text of a frame that had to be mended, of which large payloads are a part.
pub(crate) fn decode_kept(text: &Bytes, limits: &Limits, keep: impl FnOnce(Bytes) -> Bytes) -> Decoded {
    decode_json(text, &[], limits).unwrap_or_else(|fault| match std::str::from_utf8(text) {
        Ok(utf8) => broken::decode(utf8, fault, limits, keep),
        Err(_) => Decoded::wrong(fault, false),
    })
}

/// Reads a frame of which `mends` were no JSON before. An error says why it is not JSON.
pub(super) fn decode_json(text: &Bytes, mends: &[Mend<'_>], limits: &Limits) -> Result<Decoded, Fault> {
    let not_json = |why: &dyn Display| Fault::whole(Code::BadFrame, format!("a frame is JSON, and this is not: {why}"));
    let utf8 = std::str::from_utf8(text).map_err(|err| not_json(&err))?;
    let top = match Top::read(utf8, TOP, String::new()) {
        Ok(top) => top,
        Err(fault) => {
            // An object with a field twice is JSON nonetheless.
            serde_json::from_str::<&RawValue>(utf8).map_err(|err| not_json(&plain::syntax(&err)))?;
            return Ok(Decoded::wrong(fault, utf8.trim_ascii_start().starts_with('{')));
        }
    };
    let kind: String = match top.required("type") {
        Ok(kind) => kind,
        Err(fault) => return Ok(Decoded::wrong(fault, false)),
    };
    let mut faults = Faults::default();
    faults.note_unknown(&top);
    let frame = match kind.as_str() {
        "hello" => Ok(Frame::Hello(match mends.first() {
            None => hello::read(&top, &mut faults).map(Box::new),
            // What a worker says of itself is not guessed at.
            Some(mend) => Err(broken::not_json(String::new(), mend.was)),
        })),
        "received" => list(&top, "tasks", &mut faults, |raw, at, faults| attempt(&item(raw, at, faults)?))
            .map(Incoming::Received)
            .map(Frame::Said),
        "result" => {
            let source = Source { text, mends, limits };
            list(&top, "results", &mut faults, |raw, at, faults| results::result(source, raw, at, faults))
                .map(Incoming::Results)
                .map(Frame::Said)
        }
        "extend" => list(&top, "tasks", &mut faults, |raw, at, faults| extension(&item(raw, at, faults)?))
            .map(Incoming::Extend)
            .map(Frame::Said),
        "free_slot" => list(&top, "tasks", &mut faults, |raw, at, faults| attempt(&item(raw, at, faults)?))
            .map(Incoming::FreeSlot)
            .map(Frame::Said),
        "labels" => labels(&top, limits).map(Incoming::Labels).map(Frame::Said),
        "log" => live::logs(&top, limits, &mut faults).map(Frame::Log),
        "progress" => live::progress(text, &top, limits, &mut faults).map(Frame::Progress),
        "capacity" => capacity(&top, limits).map(Incoming::Capacity).map(Frame::Said),
        "ping" => Ok(Frame::Ping),
        "drain" => Ok(Frame::Said(Incoming::Drain)),
        "goodbye" => Ok(Frame::Said(Incoming::Goodbye)),
        other => Err(Fault {
            code: Code::UnknownFrame,
            pointer: Some("/type".to_owned()),
            message: format!("this engine knows no frame `{}`", shown(other)),
        }),
    };
    let frame = frame.map_err(|fault| faults.push(fault)).ok();
    let (faults, unknown) = faults.finish();
    Ok(Decoded { frame, faults, unknown, is_frame: true })
}

/// Every field that an item of a list may have.
const ITEM: [&str; 6] = ["task_run", "attempt", "outcome", "output", "error", "timeout_ms"];

pub(super) type Item<'a> = Fields<'a, { ITEM.len() }>;

pub(super) fn item<'a>(raw: &'a RawValue, at: String, faults: &mut Faults) -> Result<Item<'a>, Fault> {
    Item::read(raw.get(), ITEM, at).inspect(|item| faults.note_unknown(item))
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
pub(super) fn attempts(list: Option<Vec<&RawValue>>, at: &str, faults: &mut Faults) -> Result<Vec<Attempt>, Fault> {
    let read = |(i, raw): (usize, &RawValue)| attempt(&item(raw, format!("{at}/{i}"), faults)?);
    list.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

pub(super) fn attempt<const N: usize>(item: &Fields<'_, N>) -> Result<Attempt, Fault> {
    let run: RunId = item.required("task_run")?;
    let number: i32 = item.whole("attempt")?;
    if number < 1 {
        return Err(Fault::bad_frame(&item.pointer("attempt"), format!("attempts count from 1; got {number}")));
    }
    Ok(Attempt { run, number })
}

fn extension(item: &Item<'_>) -> Result<(Attempt, Duration), Fault> {
    let attempt = attempt(item)?;
    let millis = item.optional_millis("timeout_ms")?.ok_or_else(|| item.missing("timeout_ms"))?;
    let timeout = Duration::from_millis(millis);
    if timeout.is_zero() || timeout > MAX_DURATION {
        let message = format!("expected 1 to {} milliseconds; got {millis}", MAX_DURATION.as_millis());
        return Err(Fault::bad_frame(&item.pointer("timeout_ms"), message));
    }
    Ok((attempt, timeout))
}

fn capacity(top: &Top<'_>, limits: &Limits) -> Result<BTreeMap<Arc<str>, u32>, Fault> {
    let slots = hello::counts(top)?.ok_or_else(|| top.missing("slots"))?;
    hello::slots(slots, limits).map_err(|err| Fault { code: Code::BadFrame, ..Fault::from(&err) })
}

fn labels(top: &Top<'_>, limits: &Limits) -> Result<BTreeMap<String, String>, Fault> {
    let labels = top.required("labels")?;
    offer::check_labels(&labels, limits).map_err(|err| Fault { code: Code::BadFrame, ..Fault::from(&err) })?;
    Ok(labels)
}
