//! The frames of the worker socket: text in, domain values out, and back.

mod broken;
mod fields;
mod hello;
mod incoming;
mod live;
mod loose;
mod outgoing;
mod results;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::fmt::Write as _;

pub(crate) use hello::{Checked, HelloFrame, Warning};
pub(crate) use incoming::{Decoded, Frame, decode, decode_kept};
#[cfg(test)]
pub(crate) use live::SaidLine;
pub(crate) use live::{SaidLines, SaidProgress};
pub(crate) use outgoing::{assign, encode, fault, pong, welcome};

use fields::Fields;
use helve_domain::error::{Code, Error};

/// The version of the protocol that this engine speaks.
pub(crate) const PROTOCOL: u32 = 1;
/// The subprotocol's name in the upgrade.
pub(crate) const SUBPROTOCOL: &str = "helve.v1";
/// Faults of one frame that are answered one by one; a frame may have a million bad items.
const MAX_FAULTS: usize = 16;
/// Unknown fields of one frame that are named.
const MAX_UNKNOWN: usize = 4;

/// What is wrong with a frame or one of its items; becomes an `error` frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Which kind of wrong.
    pub(crate) code: Code,
    /// The JSON pointer of the field in the frame.
    pub(crate) pointer: Option<String>,
    /// What was wrong and what is allowed.
    pub(crate) message: String,
}

impl Fault {
    /// A field of the wrong form.
    fn bad_frame(pointer: &str, message: impl Into<String>) -> Self {
        Self { code: Code::BadFrame, pointer: Some(pointer.to_owned()), message: message.into() }
    }

    /// A message that is not text.
    pub(crate) fn binary() -> Self {
        Self::whole(Code::BadFrame, "a frame is a text message, and this one was binary")
    }

    /// A fault without a place in the frame.
    pub(crate) fn whole(code: Code, message: impl Into<String>) -> Self {
        Self { code, pointer: None, message: message.into() }
    }
}

/// A fault as the engine's log may have it, where and why, without anything that the worker said.
pub(crate) fn logged(fault: &Fault) -> (String, String) {
    // A name of the worker's own, such as a label's, follows a name of ours; ours follow the number of an item.
    let (mut at, mut ours) = (String::new(), true);
    for part in fault.pointer.as_deref().unwrap_or_default().split('/').skip(1) {
        let is_number = part.bytes().all(|b| b.is_ascii_digit());
        if !ours && !is_number {
            break;
        }
        at.push('/');
        at.push_str(part);
        ours = is_number;
    }
    let mut why = String::new();
    let mut rest = fault.message.as_str();
    while let Some(open) = rest.find(['"', '`']) {
        let (before, quoted) = rest.split_at(open);
        let quote = &quoted[..1];
        let close = quoted[1..].rfind(quote).map_or(quoted.len(), |close| close + 2);
        why = why + before + quote + ".." + quote;
        rest = &quoted[close..];
    }
    (at, why + rest)
}

impl From<&Error> for Fault {
    fn from(err: &Error) -> Self {
        Self { code: err.code(), pointer: err.pointer().map(str::to_owned), message: err.client_text() }
    }
}

/// The faults of one frame, bounded, and words about fields that nobody knows.
#[derive(Debug, Default)]
struct Faults {
    kept: Vec<Fault>,
    dropped: usize,
    /// Their names, and what is said of them.
    unknown: Vec<(String, Fault)>,
}

impl Faults {
    fn push(&mut self, fault: Fault) {
        if self.kept.len() < MAX_FAULTS {
            self.kept.push(fault);
        } else {
            self.dropped += 1;
        }
    }

    /// Remembers a field that nobody knows, once for each name: a frame may have a million of them.
    fn note_unknown<const N: usize>(&mut self, fields: &Fields<'_, N>) {
        let Some(name) = fields.unknown_name() else { return };
        if self.unknown.len() < MAX_UNKNOWN && self.unknown.iter().all(|(before, _)| before != name) {
            self.unknown.extend(fields.unknown().map(|told| (name.to_owned(), told)));
        }
    }

    /// What is wrong, and what is only worth a word.
    fn finish(mut self) -> (Vec<Fault>, Vec<Fault>) {
        if self.dropped > 0 {
            let message = format!("{} more items of this frame are wrong", self.dropped);
            self.kept.push(Fault::whole(Code::BadFrame, message));
        }
        (self.kept, self.unknown.into_iter().map(|(_, told)| told).collect())
    }
}

/// The beginning of what a worker sent, safe to repeat in an error.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(60) {
        // Writing into a string cannot fail.
        let _ = write!(shown, "{}", c.escape_default());
    }
    shown
}
