//! The frames `log` and `progress`: what a worker says of attempts while it works on them.

use std::time::Duration;

use bytes::Bytes;
use helve_domain::delivery::Attempt;
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::live::LogLevel;
use serde_json::value::RawValue;

use super::fields::Fields;
use super::incoming::{Top, attempt, list};
use super::results::kept;
use super::{Fault, Faults, loose, shown};

/// How long ago a line may have been written; an older one counts as this old.
const OLDEST: Duration = Duration::from_secs(24 * 3_600);

/// Lines of one attempt, as they came.
#[derive(Debug)]
pub(crate) struct SaidLines {
    pub(crate) attempt: Attempt,
    pub(crate) lines: Vec<SaidLine>,
}

/// One line, as it came.
#[derive(Debug)]
pub(crate) struct SaidLine {
    pub(crate) level: LogLevel,
    /// How long ago it was written, by the worker's clock.
    pub(crate) ago: Duration,
    pub(crate) message: String,
}

/// How far an attempt is, as it came.
#[derive(Debug)]
pub(crate) struct SaidProgress {
    pub(crate) attempt: Attempt,
    pub(crate) fraction: f64,
    pub(crate) parts: Option<(u64, u64)>,
    pub(crate) data: Option<Payload>,
}

/// Reads a `log` frame: a wrong line does not lose the others.
pub(super) fn logs(top: &Top<'_>, limits: &Limits, faults: &mut Faults) -> Result<Vec<SaidLines>, Fault> {
    list(top, "logs", faults, |raw, at, faults| {
        let item = Fields::read(raw.get(), ["task_run", "attempt", "lines"], at)?;
        faults.note_unknown(&item);
        let (attempt, at) = (attempt(&item)?, item.pointer("lines"));
        let mut lines = Vec::new();
        item.each("lines", |i, raw| match line(raw, format!("{at}/{i}"), limits, faults) {
            Ok(line) => lines.push(line),
            Err(fault) => faults.push(fault),
        })?;
        Ok(SaidLines { attempt, lines })
    })
}

fn line(raw: &RawValue, at: String, limits: &Limits, faults: &mut Faults) -> Result<SaidLine, Fault> {
    let line = Fields::read(raw.get(), ["level", "message", "ago_ms"], at)?;
    faults.note_unknown(&line);
    let level = match line.optional::<String>("level")? {
        None => LogLevel::Info,
        Some(text) => level(&text).ok_or_else(|| {
            let message = format!("expected `debug`, `info`, `warn` or `error`; got `{}`", shown(&text));
            Fault::bad_frame(&line.pointer("level"), message)
        })?,
    };
    let ago = Duration::from_millis(line.optional_millis("ago_ms")?.unwrap_or_default()).min(OLDEST);
    let message = line.required("message").or_else(|fault| {
        let text = line.raw("message").and_then(loose::text).ok_or(fault)?;
        let told = "expected a string of whole characters; the message was repaired";
        faults.push(Fault::bad_frame(&line.pointer("message"), told));
        Ok::<_, Fault>(text)
    })?;
    Ok(SaidLine { level, ago, message: kept(message, limits.log_line_bytes) })
}

/// A level by its name, or by the one that other loggers have for it.
fn level(text: &str) -> Option<LogLevel> {
    match text.to_ascii_lowercase().as_str() {
        "trace" => Some(LogLevel::Debug),
        "warning" => Some(LogLevel::Warn),
        "critical" | "fatal" => Some(LogLevel::Error),
        text => LogLevel::ALL.into_iter().find(|level| level.as_str() == text),
    }
}

/// Reads a `progress` frame.
pub(super) fn progress(
    text: &Bytes,
    top: &Top<'_>,
    limits: &Limits,
    faults: &mut Faults,
) -> Result<Vec<SaidProgress>, Fault> {
    list(top, "progress", faults, |raw, at, faults| {
        let item = Fields::read(raw.get(), ["task_run", "attempt", "fraction", "current", "total", "data"], at)?;
        faults.note_unknown(&item);
        let attempt = attempt(&item)?;
        let (fraction, parts) = how_far(&item)?;
        Ok(SaidProgress { attempt, fraction, parts, data: data(text, &item, limits)? })
    })
}

fn how_far(item: &Fields<'_, 6>) -> Result<(f64, Option<(u64, u64)>), Fault> {
    let (current, total) = (item.optional_whole::<u64>("current")?, item.optional_whole::<u64>("total")?);
    let fraction = item.optional("fraction");
    let fraction = fraction.or_else(|fault| item.raw("fraction").and_then(loose::fraction).map(Some).ok_or(fault))?;
    match (fraction, current, total) {
        (Some(fraction), None, None) if (0.0..=1.0).contains(&fraction) => Ok((fraction, None)),
        (Some(fraction), None, None) => {
            Err(Fault::bad_frame(&item.pointer("fraction"), format!("expected a number from 0 to 1; got {fraction}")))
        }
        (None, Some(current), Some(total)) if total > 0 && current <= total =>
        {
            #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits than it has")]
            Ok((current as f64 / total as f64, Some((current, total))))
        }
        (None, Some(current), Some(total)) => {
            let message = format!("expected `current` from 0 to `total`, which is above 0; got {current} of {total}");
            Err(Fault::bad_frame(&item.pointer("current"), message))
        }
        _ => Err(Fault::bad_frame(&item.pointer("fraction"), "expected either `fraction`, or `current` and `total`")),
    }
}

fn data(text: &Bytes, item: &Fields<'_, 6>, limits: &Limits) -> Result<Option<Payload>, Fault> {
    let Some(raw) = item.raw("data") else { return Ok(None) };
    let at = item.pointer("data");
    let small = Limits { payload_bytes: limits.progress_bytes, ..limits.clone() };
    let data = Payload::from_raw(text, raw, "the data of a progress", &at, &small);
    // A copy: a few bytes must not keep a frame of megabytes in memory.
    let copy = |data: Payload| Payload::trusted(Bytes::copy_from_slice(data.bytes()));
    data.map(|data| Some(copy(data))).map_err(|err| Fault { pointer: Some(at.clone()), ..Fault::from(&err) })
}

#[cfg(test)]
mod tests {
    use helve_domain::error::Code;

    use super::super::incoming::{Decoded, Frame, decode};
    use super::*;

    const RUN: &str = "run_01890a5d96427774b3dc9d8e5f1a2b3c";

    fn read(text: &str) -> Decoded {
        decode(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
    }

    fn progress(rest: &str) -> String {
        format!(r#"{{"type":"progress","progress":[{{"task_run":"{RUN}","attempt":1{rest}}}]}}"#)
    }

    #[test]
    fn a_wrong_line_does_not_lose_its_neighbours() {
        let long = "é".repeat(5_000);
        let decoded = read(&format!(
            r#"{{"type":"log","logs":[7,{{"task_run":"{RUN}","attempt":2,"lines":[
                {{"message":"a\u0000b"}},{{"level":"loud","message":"x"}},{{"level":"warn"}},"x",
                {{"level":"error","message":"{long}","ago_ms":1500}}]}}]}}"#
        ));
        let Some(Frame::Log(logs)) = decoded.frame else { panic!() };
        assert_eq!((logs.len(), logs[0].attempt.number), (1, 2));
        let [first, last] = &logs[0].lines[..] else { panic!("{:?}", logs[0].lines) };
        assert_eq!((first.level, first.message.as_str(), first.ago), (LogLevel::Info, "ab", Duration::ZERO));
        assert_eq!((last.level, last.message.len(), last.ago.as_millis()), (LogLevel::Error, 8_192, 1_500));
        let at: Vec<_> = decoded.faults.iter().map(|f| f.pointer.as_deref().unwrap()).collect();
        assert_eq!(at, ["/logs/0", "/logs/1/lines/1/level", "/logs/1/lines/2/message", "/logs/1/lines/3"]);
    }

    #[test]
    fn a_line_that_is_slightly_wrong_is_repaired() {
        let decoded = read(&format!(
            r#"{{"type":"log","logs":[{{"task_run":"{RUN}","attempt":1.0,"lines":[
                {{"message":"half \ud83d","level":"WARNING"}},{{"message":7,"level":"critical","ago_ms":0.5}},
                {{"message":null}}]}}]}}"#
        ));
        let Some(Frame::Log(logs)) = decoded.frame else { panic!() };
        let lines: Vec<_> = logs[0].lines.iter().map(|l| (l.level, l.message.as_str(), l.ago.as_millis())).collect();
        assert_eq!(lines, [(LogLevel::Warn, "half \u{fffd}", 0), (LogLevel::Error, "7", 1)]);
        let at: Vec<_> = decoded.faults.iter().map(|f| f.pointer.as_deref().unwrap()).collect();
        assert_eq!(at, ["/logs/0/lines/0/message", "/logs/0/lines/1/message", "/logs/0/lines/2/message"]);
    }

    #[test]
    fn what_encoders_write_for_no_number_is_null_in_data() {
        let decoded = read(&progress(r#","fraction":0.5,"data":{"loss":NaN}"#));
        let Some(Frame::Progress(items)) = decoded.frame else { panic!() };
        assert_eq!(items[0].data.as_ref().unwrap().bytes(), &br#"{"loss":null}"#[..]);
        assert!(decoded.is_frame && decoded.faults[0].message.contains("line 1 column"), "{:?}", decoded.faults);
    }

    #[test]
    fn progress_is_a_share_or_parts_and_never_both() {
        for (rest, fraction) in [
            (r#","fraction":0"#, 0.0),
            (r#","fraction":1,"data":{"a":[1]}"#, 1.0),
            (r#","current":1,"total":4"#, 0.25),
            (r#","current":1.0,"total":"4""#, 0.25),
            (r#","fraction":"0.5""#, 0.5),
            (r#","current":0,"total":18446744073709551615"#, 0.0),
        ] {
            let decoded = read(&progress(rest));
            let Some(Frame::Progress(items)) = decoded.frame else { panic!("{rest}: {:?}", decoded.faults) };
            assert!((items[0].fraction - fraction).abs() < 1e-12, "{rest}");
            assert_eq!(items[0].data.is_some(), rest.contains("data"));
        }
        let large = format!(r#","fraction":0,"data":"{}""#, "x".repeat(4 << 10));
        let deep = format!(r#","fraction":0,"data":{}{}"#, "[".repeat(129), "]".repeat(129));
        for (rest, code, field) in [
            ("", Code::BadFrame, "fraction"),
            (r#","fraction":1.5"#, Code::BadFrame, "fraction"),
            (r#","fraction":-0.1"#, Code::BadFrame, "fraction"),
            (r#","fraction":"half""#, Code::BadFrame, "fraction"),
            (r#","fraction":0.5,"total":2"#, Code::BadFrame, "fraction"),
            (r#","current":1"#, Code::BadFrame, "fraction"),
            (r#","current":3,"total":2"#, Code::BadFrame, "current"),
            (r#","current":0,"total":0"#, Code::BadFrame, "current"),
            (r#","current":-1,"total":2"#, Code::BadFrame, "current"),
            (&large, Code::TooLarge, "data"),
            (&deep, Code::TooDeep, "data"),
        ] {
            let faults = read(&progress(rest)).faults;
            let found = (faults[0].code, faults[0].pointer.clone().unwrap());
            assert_eq!(found, (code, format!("/progress/0/{field}")), "{rest}");
        }
    }
}
