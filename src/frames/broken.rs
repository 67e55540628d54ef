//! Frames that are not JSON. Most are, but for a word or a character that some encoders write all the same; what they
//! say is plain, and one of them must not take a session and its other work with it.

use bytes::Bytes;
use helve_domain::delivery::{Attempt, Incoming, Outcome};
use helve_domain::id::RunId;
use helve_domain::limits::Limits;

use super::incoming::{Decoded, Frame, decode_json};
use super::results::bad_result;
use super::{Fault, shown};

/// A place where a frame was not JSON, and what stands there now: `null` for a word such as `NaN`, an escape for a
/// character that must have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mend<'a> {
    /// Where it stands in the mended text.
    pub(super) at: usize,
    /// What stood there.
    pub(super) was: &'a str,
}

/// Reads what can be read of a frame that `fault` says is not JSON.
pub(super) fn decode(text: &str, fault: Fault, limits: &Limits, keep: impl FnOnce(Bytes) -> Bytes) -> Decoded {
    // What is no object at all is no better for being mended.
    if text.trim_ascii_start().starts_with('{')
        && let Some((mended, mends)) = mend(text)
        && let Ok(mut decoded) = decode_json(&keep(Bytes::from(mended)), &mends, limits)
    {
        decoded.faults.insert(0, fault);
        return decoded;
    }
    let ended = |attempt| Frame::Said(Incoming::Results(vec![(attempt, Outcome::Failed(bad_result(&fault)))]));
    let frame = only_result(text).map(ended);
    Decoded { is_frame: frame.is_some(), frame, faults: vec![fault], unknown: Vec::new() }
}

/// The frame with everything replaced that is not JSON, word by word. `None` where there was no such word.
fn mend(text: &str) -> Option<(String, Vec<Mend<'_>>)> {
    let (mut mended, mut mends) = (String::with_capacity(text.len() + 64), Vec::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = mend_string(rest, &mut mended, &mut mends);
            continue;
        }
        let ends = |c: char| matches!(c, '{' | '}' | '[' | ']' | ',' | ':' | '"') || c.is_ascii_whitespace();
        let (word, after) = rest.split_at(match rest.find(ends) {
            Some(0) => first.len_utf8(),
            Some(end) => end,
            None => rest.len(),
        });
        rest = after;
        if ends(first) || serde_json::from_str::<serde::de::IgnoredAny>(word).is_ok() {
            mended.push_str(word);
            continue;
        }
        mends.push(Mend { at: mended.len(), was: word });
        mended.push_str(match word {
            "True" => "true",
            "False" => "false",
            _ => "null",
        });
    }
    (!mends.is_empty()).then_some((mended, mends))
}

/// Copies the string that `rest` begins with; gives what follows it.
fn mend_string<'a>(rest: &'a str, mended: &mut String, mends: &mut Vec<Mend<'a>>) -> &'a str {
    mended.push('"');
    let mut at = 1;
    while let Some(c) = rest[at..].chars().next() {
        let end = at + c.len_utf8();
        match c {
            '"' => {
                mended.push('"');
                return &rest[end..];
            }
            '\\' => {
                let escape = escape(&rest[at..]);
                if escape == 0 {
                    mends.push(Mend { at: mended.len(), was: &rest[at..end] });
                    mended.push_str(r"\\");
                } else {
                    mended.push_str(&rest[at..at + escape]);
                    at += escape;
                    continue;
                }
            }
            c if c < ' ' => {
                mends.push(Mend { at: mended.len(), was: &rest[at..end] });
                mended.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => mended.push(c),
        }
        at = end;
    }
    ""
}

/// The length of the escape that `text` begins with; 0 for one that JSON does not know.
fn escape(text: &str) -> usize {
    match text.as_bytes().get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
        Some(b'u') if text.len() >= 6 && text.as_bytes()[2..6].iter().all(u8::is_ascii_hexdigit) => 6,
        _ => 0,
    }
}

/// The attempt of a `result` whose text is broken for good: only if it names one, and no other.
fn only_result(text: &str) -> Option<Attempt> {
    let is_result = values(text, "type").any(|value| quoted(value) == Some("result"));
    let mut runs = values(text, "task_run").map(|value| quoted(value)?.parse::<RunId>().ok());
    let mut numbers = values(text, "attempt").map(number);
    let (run, number) = (runs.next()??, numbers.next()??);
    let alone = runs.all(|other| other == Some(run)) && numbers.all(|other| other == Some(number));
    (is_result && alone && number > 0).then_some(Attempt { run, number })
}

/// What follows each `"key":` of a text. JSON's quotes or Python's.
fn values<'a>(text: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    text.match_indices(key).filter_map(move |(at, _)| {
        let quote = text[..at].chars().next_back().filter(|c| matches!(c, '"' | '\''))?;
        let after = text[at + key.len()..].strip_prefix(quote)?;
        Some(after.trim_ascii_start().strip_prefix(':')?.trim_ascii_start())
    })
}

fn quoted(value: &str) -> Option<&str> {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split_once(quote).map(|(inside, _)| inside)
}

fn number(value: &str) -> Option<i32> {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let rest = value[end..].trim_ascii_start();
    value[..end].parse().ok().filter(|_| rest.is_empty() || rest.starts_with([',', '}']))
}

/// The first of these places that lies within a part of the mended text.
pub(super) fn first_within<'a>(mends: &[Mend<'a>], whole: &[u8], part: &str) -> Option<&'a str> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let first = mends.partition_point(|mend| mend.at < start);
    mends.get(first).filter(|mend| mend.at < start + part.len()).map(|mend| mend.was)
}

/// Says of a payload that it is not JSON.
pub(super) fn not_json(pointer: String, was: &str) -> Fault {
    let mut fault = Fault::bad_frame("", format!("this is not JSON: it has `{}`", shown(was)));
    fault.pointer = Some(pointer);
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "run_01890a5d96427774b3dc9d8e5f1a2b3c";

    #[test]
    fn words_and_characters_are_mended_and_strings_are_left_alone() {
        for (text, mended, was) in [
            ("[NaN,-Infinity, 1]", "[null,null, 1]", vec!["NaN", "-Infinity"]),
            (r#"{"NaN":"Infinity","b":True}"#, r#"{"NaN":"Infinity","b":true}"#, vec!["True"]),
            ("[01,.5,None]", "[null,null,null]", vec!["01", ".5", "None"]),
            ("[\"a\nb\\x\\\"\\u00e9\"]", r#"["a\u000ab\\x\"\u00e9"]"#, vec!["\n", "\\"]),
        ] {
            let (found, mends) = mend(text).unwrap();
            assert_eq!(found, mended);
            assert_eq!(mends.iter().map(|m| m.was).collect::<Vec<_>>(), was, "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(&found).is_ok(), "{found}");
        }
        assert_eq!(mend(r#"{"a":[1,"x",null,true,1e9]}"#), None);
    }

    #[test]
    fn one_name_counts_and_two_are_none() {
        let result = |rest: &str| format!(r#"{{"type":"result","results":[{{{rest}}}]}}"#);
        let one = format!(r#""task_run": "{RUN}", "attempt" :2"#);
        let attempt = Attempt { run: RUN.parse().unwrap(), number: 2 };
        let other = RUN.replace('1', "2");
        for (text, found) in [
            (result(&format!(r#"{one},"output":"say "hi"""#)), true),
            (result(&format!(r#""output":"say "hi"",{one}"#)), true),
            (format!("{{'type': 'result', 'results': [{{{}}}]}}", one.replace('"', "'")), true),
            (result(&format!(r#"{one}}},{{{one}"#)), true),
            (result(&format!(r#"{one}}},{{"task_run":"{other}","attempt":2"#)), false),
            (result(&format!(r#"{one}}},{{"task_run":"{RUN}","attempt":3"#)), false),
            (result(&format!(r#"{one}}},{{"task_run":"x","attempt":2"#)), false),
            (result(&format!(r#""task_run":"{RUN}","attempt":2.5"#)), false),
            (result(&format!(r#""task_run":"{RUN}""#)), false),
            (result(&format!(r#""x_task_run":"{RUN}","attempt":2"#)), false),
            (result(&one).replace("result\"", "progress\""), false),
        ] {
            assert_eq!(only_result(&text), found.then_some(attempt), "{text}");
        }
    }
}
