//! How attempts ended. Who sends a result has finished its attempt: one that names it ends it, whatever else is wrong.

use bytes::Bytes;
use helve_domain::delivery::{Attempt, Outcome};
use helve_domain::error::Error;
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::name;
use helve_domain::run::{MAX_ERROR_MESSAGE, RunError};
use serde_json::value::RawValue;

use super::broken::{self, Mend};
use super::fields::Fields;
use super::incoming::{Item, attempt, item};
use super::{Fault, Faults, loose, shown};

/// The code of an attempt whose result cannot be used.
const BAD_RESULT: &str = "bad_result";
/// What is kept of a failure that says nothing.
const NO_MESSAGE: &str = "the worker gave no message";

/// A frame's text, and where it was mended to be one.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) text: &'a Bytes,
    pub(super) mends: &'a [Mend<'a>],
    pub(super) limits: &'a Limits,
}

/// The failure of an attempt whose result cannot be used. It is retried as any other: the next may be right.
pub(super) fn bad_result(fault: &Fault) -> RunError {
    let at = fault.pointer.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
    RunError::of_engine(BAD_RESULT, kept(format!("the worker's result{at}: {}", fault.message), MAX_ERROR_MESSAGE))
}

/// Reads one result. An error means that nobody can tell which attempt it is about.
pub(super) fn result(
    source: Source<'_>,
    raw: &RawValue,
    at: String,
    faults: &mut Faults,
) -> Result<(Attempt, Outcome), Fault> {
    let ended = |attempt, fault: Fault, faults: &mut Faults| {
        let error = bad_result(&fault);
        faults.push(fault);
        (attempt, Outcome::Failed(error))
    };
    let item = match item(raw, at, faults) {
        Ok(item) => item,
        Err(fault) => {
            // Such as a field that stands twice: it counts if the attempt does not.
            let at = fault.pointer.clone().unwrap_or_default();
            let names = Fields::read(raw.get(), ["task_run", "attempt"], at).and_then(|names| attempt(&names));
            return match names {
                Ok(attempt) => Ok(ended(attempt, fault, faults)),
                Err(_) => Err(fault),
            };
        }
    };
    let attempt = attempt(&item)?;
    match outcome(source, &item, faults) {
        Ok(outcome) => Ok((attempt, outcome)),
        Err(fault) => Ok(ended(attempt, fault, faults)),
    }
}

fn outcome(source: Source<'_>, item: &Item<'_>, faults: &mut Faults) -> Result<Outcome, Fault> {
    let outcome: String = item.required("outcome")?;
    match outcome.as_str() {
        "succeeded" => succeeded(source, item, faults),
        "failed" => match strict(item, source.limits, faults) {
            Ok(error) => Ok(Outcome::Failed(error)),
            Err(_) => mended(item, source.limits, faults).map(Outcome::Failed),
        },
        "released" => Ok(Outcome::Released),
        other => {
            let message = format!("expected `succeeded`, `failed` or `released`; got `{}`", shown(other));
            Err(Fault::bad_frame(&item.pointer("outcome"), message))
        }
    }
}

/// An output that the engine cannot keep ends the attempt all the same: it must not hang until its timeout, and
/// another attempt would give the same output.
fn succeeded(source: Source<'_>, item: &Item<'_>, faults: &mut Faults) -> Result<Outcome, Fault> {
    let Some(raw) = item.raw("output") else { return Ok(Outcome::Succeeded(Payload::null())) };
    let pointer = item.pointer("output");
    if let Some(was) = broken::first_within(source.mends, source.text, raw.get()) {
        return Err(broken::not_json(pointer, was));
    }
    match Payload::from_raw(source.text, raw, "the output", &pointer, source.limits) {
        Ok(output) => Ok(Outcome::Succeeded(output)),
        Err(err) => {
            let code = if matches!(err, Error::TooLarge { .. }) { "output_too_large" } else { "output_too_deep" };
            let fault = Fault { pointer: Some(pointer), ..Fault::from(&err) };
            let error = RunError { retryable: Some(false), ..RunError::of_engine(code, fault.message.clone()) };
            faults.push(fault);
            Ok(Outcome::Failed(error))
        }
    }
}

const ERROR: [&str; 4] = ["message", "code", "retryable", "retry_after_ms"];

/// A failure that is as it should be.
fn strict(item: &Item<'_>, limits: &Limits, faults: &mut Faults) -> Result<RunError, Fault> {
    let raw: &RawValue = item.required("error")?;
    let error = Fields::read(raw.get(), ERROR, item.pointer("error"))?;
    faults.note_unknown(&error);
    let code: Option<String> = error.optional("code")?;
    if let Some(code) = &code {
        name::check_text("", code, limits).map_err(|err| Fault::from(&err))?;
    }
    let message: String = error.required("message")?;
    if message.is_empty() {
        return Err(error.missing("message"));
    }
    Ok(RunError {
        message: kept(message, MAX_ERROR_MESSAGE),
        code,
        retryable: error.optional("retryable")?,
        retry_after_ms: error.optional("retry_after_ms")?,
    })
}

/// A failure that is slightly wrong: its text is what somebody needs, and is kept. Each repair is told.
fn mended(item: &Item<'_>, limits: &Limits, faults: &mut Faults) -> Result<RunError, Fault> {
    let at = item.pointer("error");
    let plain = |message| RunError { message, code: None, retryable: None, retry_after_ms: None };
    let raw = match item.raw("error") {
        Some(raw) if raw.get().starts_with('{') => raw,
        other => {
            let text = other.and_then(loose::text).filter(|text| !text.is_empty());
            let told = match &text {
                Some(_) => "expected an object with a `message`; what there is was kept as that",
                None => "a failed result needs an `error`, an object with a `message`; it was kept without one",
            };
            faults.push(Fault::bad_frame(&at, told));
            return Ok(plain(kept(text.unwrap_or_else(|| NO_MESSAGE.to_owned()), MAX_ERROR_MESSAGE)));
        }
    };
    let error = Fields::read(raw.get(), ERROR, at)?;
    let message = message(&error, faults);
    let read = |faults: &mut Faults| -> Result<RunError, Fault> {
        Ok(RunError {
            message: message.clone(),
            code: code(&error, limits, faults)?,
            retryable: retryable(&error, faults)?,
            retry_after_ms: error.optional_millis("retry_after_ms")?,
        })
    };
    read(faults).or_else(|fault| {
        let RunError { message: why, .. } = bad_result(&fault);
        faults.push(fault);
        let both = kept(format!("{why}; its message was: {message}"), MAX_ERROR_MESSAGE);
        Ok(RunError::of_engine(BAD_RESULT, both))
    })
}

type ErrorFields<'a> = Fields<'a, { ERROR.len() }>;

fn message(error: &ErrorFields<'_>, faults: &mut Faults) -> String {
    if let Ok(Some(text)) = error.optional::<String>("message")
        && !text.is_empty()
    {
        return kept(text, MAX_ERROR_MESSAGE);
    }
    let found = error.raw("message").and_then(loose::text).filter(|text| !text.is_empty());
    let told = match &found {
        Some(_) => "expected a string of whole characters; the message was repaired",
        None => "a message is required; this failure is kept without one",
    };
    faults.push(Fault::bad_frame(&error.pointer("message"), told));
    kept(found.unwrap_or_else(|| NO_MESSAGE.to_owned()), MAX_ERROR_MESSAGE)
}

fn code(error: &ErrorFields<'_>, limits: &Limits, faults: &mut Faults) -> Result<Option<String>, Fault> {
    let Some(raw) = error.raw("code") else { return Ok(None) };
    let at = error.pointer("code");
    if raw.get().starts_with(['{', '[']) {
        return Err(Fault::bad_frame(&at, "expected a string; a list or an object is no code"));
    }
    let Some(text) = loose::text(raw) else { return Ok(None) };
    if raw.get().starts_with('"') && name::check_text("", &text, limits).is_ok() && !text.contains('\u{fffd}') {
        return Ok(Some(text));
    }
    let mut code: String = text.chars().filter(|c| !c.is_control()).collect();
    cut(&mut code, limits.name_bytes);
    let what = if code.is_empty() { "this failure is kept without a code" } else { "the code was repaired" };
    let message = format!("expected 1 to {} bytes of text without control characters; {what}", limits.name_bytes);
    faults.push(Fault::bad_frame(&at, message));
    Ok(Some(code).filter(|code| !code.is_empty()))
}

fn retryable(error: &ErrorFields<'_>, faults: &mut Faults) -> Result<Option<bool>, Fault> {
    let strict = error.optional::<bool>("retryable");
    let Some(loose) = error.raw("retryable").filter(|_| strict.is_err()).map(loose::truth) else { return strict };
    let at = error.pointer("retryable");
    let told = || Fault::bad_frame(&at, "expected `true` or `false` without quotes; it was read as that");
    match loose {
        Some(truth) => {
            faults.push(told());
            Ok(Some(truth))
        }
        None => strict,
    }
}

/// What is kept of a message: PostgreSQL's text has no NUL, and a stack trace may be endless.
pub(super) fn kept(mut message: String, bytes: usize) -> String {
    message.retain(|c| c != '\0');
    cut(&mut message, bytes);
    message
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}
