//! Values that are almost right: a whole number that is written with a point, a number in quotes, half an emoji. Each
//! has one meaning only, and is read by it. Only what the strict reader refused comes here.

use std::fmt;

use helve_domain::limits::MAX_DURATION;
use serde::de::{Deserializer as _, Visitor};
use serde_json::value::RawValue;

/// Whole floats up to here are exactly what was meant.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A number, or a string that is one, as it is written.
fn digits(raw: &RawValue) -> Option<&str> {
    let text = raw.get();
    let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text).trim();
    let begins = |c: char| c.is_ascii_digit() || c == '-';
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
    (text.starts_with(begins) && text.chars().all(numeric)).then_some(text)
}

/// A whole number however it is written: `3`, `3.0`, `"3"`.
pub(super) fn whole(raw: &RawValue) -> Option<i64> {
    let text = digits(raw)?;
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number: f64 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough to be exact")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// A number with a fraction, also in quotes.
pub(super) fn fraction(raw: &RawValue) -> Option<f64> {
    digits(raw)?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A time in milliseconds: a part of one counts as a whole one, and no wait is longer than the longest.
pub(super) fn millis(raw: &RawValue) -> Option<u64> {
    let number: f64 = digits(raw)?.parse().ok()?;
    let most = u64::try_from(MAX_DURATION.as_millis()).unwrap_or(u64::MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast to an integer saturates")]
    let millis = number.ceil() as u64;
    (number >= 0.0).then_some(millis.min(most))
}

/// A text: a string whose lone surrogates become U+FFFD, or any other value as it is written. `null` is none.
pub(super) fn text(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        string if string.starts_with('"') => serde_json::Deserializer::from_str(string).deserialize_bytes(Text).ok(),
        other => Some(other.to_owned()),
    }
}

/// A string's bytes are UTF-8, but that a lone surrogate is encoded as if it were a character.
struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: serde::de::Error>(self, mut bytes: &[u8]) -> Result<String, E> {
        let mut text = String::with_capacity(bytes.len());
        loop {
            let valid = match std::str::from_utf8(bytes) {
                Ok(rest) => {
                    text.push_str(rest);
                    return Ok(text);
                }
                Err(err) => err.valid_up_to(),
            };
            text.push_str(std::str::from_utf8(&bytes[..valid]).map_err(E::custom)?);
            text.push(char::REPLACEMENT_CHARACTER);
            // Three bytes are one surrogate.
            bytes = bytes.get(valid + 3..).unwrap_or_default();
        }
    }
}

/// `true` or `false`, also in quotes and in Python's spelling.
pub(super) fn truth(raw: &RawValue) -> Option<bool> {
    match raw.get().trim_matches('"').to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A number for a field, if it fits there.
pub(super) fn number<T: TryFrom<i64>>(raw: &RawValue) -> Option<T> {
    T::try_from(whole(raw)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for (text, number) in [
            ("3", Some(3)),
            ("3.0", Some(3)),
            ("\"3\"", Some(3)),
            ("3e2", Some(300)),
            ("-1.0", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("3.5", None),
            ("1e400", None),
            ("1e300", None),
            ("\"inf\"", None),
            ("\"\"", None),
            ("true", None),
            ("null", None),
            ("[3]", None),
        ] {
            assert_eq!(whole(raw(text)), number, "{text}");
        }
        assert_eq!((super::number::<u32>(raw("-1.0")), super::number::<i32>(raw("3e9"))), (None, None));
    }

    #[test]
    fn a_time_is_rounded_up_and_bounded() {
        let most = u64::try_from(MAX_DURATION.as_millis()).unwrap();
        for (text, time) in [
            ("1500.0", Some(1_500)),
            ("1500.2", Some(1_501)),
            ("\"20\"", Some(20)),
            ("0", Some(0)),
            ("1e99", Some(most)),
            ("1e400", Some(most)),
            ("-1", None),
            ("\"soon\"", None),
            ("null", None),
        ] {
            assert_eq!(millis(raw(text)), time, "{text}");
        }
    }

    #[test]
    fn a_text_loses_half_an_emoji_and_nothing_else() {
        for (json, plain) in [
            (r#""a\ud83db""#, Some("a\u{fffd}b")),
            (r#""\ude00\ud83d""#, Some("\u{fffd}\u{fffd}")),
            (r#""\ud83d\ude00é""#, Some("\u{1f600}é")),
            ("503", Some("503")),
            (r#"{"a": 1}"#, Some(r#"{"a": 1}"#)),
            ("null", None),
        ] {
            assert_eq!(text(raw(json)).as_deref(), plain, "{json}");
        }
        assert_eq!([truth(raw("\"True\"")), truth(raw("false")), truth(raw("0"))], [Some(true), Some(false), None]);
    }
}
