//! Durations in documents: `"30s"`, `"1h30m"`, `"250ms"`, or a number of seconds.

use std::time::Duration;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A duration as it stands in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

const ALLOWED: &str =
    "a number of seconds, or text of numbers with the units d, h, m, s, ms, largest first, such as \"1h30m\"";

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `1h30m`; every unit at most once and in descending order.
pub fn parse(text: &str) -> Option<Duration> {
    let (mut rest, mut millis, mut next_unit) = (text, 0_u64, 0);
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = UNITS.iter().position(|(name, _)| *name == &rest[..letters])?;
        if unit < next_unit {
            return None;
        }
        next_unit = unit + 1;
        millis = millis.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        rest = &rest[letters..];
    }
    Some(Duration::from_millis(millis))
}

/// Reads a duration of a request, naming the field in its error.
pub fn parse_field(pointer: &str, text: &str) -> Result<Duration> {
    let seconds = || text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    parse(text)
        .or_else(seconds)
        .ok_or_else(|| Error::field(pointer, format!("`{text}` is not a duration: expected {ALLOWED}")))
}

/// The shortest text that [`parse`] reads back, to the millisecond.
pub fn format(d: Duration) -> String {
    let mut millis = u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (name, size) in UNITS {
        if millis >= size {
            out.push_str(&format!("{}{name}", millis / size));
            millis %= size;
        }
    }
    out
}

/// Writes a bare duration as [`format()`] does, for settings that are shown to people.
///
/// # Errors
/// Those of the serializer.
pub fn as_text<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format(*d))
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(ALLOWED)
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Span, E> {
                parse(v).map(Span).ok_or_else(|| E::invalid_value(Unexpected::Str(v), &self))
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Span, E> {
                Ok(Span(Duration::from_secs(v)))
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Span, E> {
                Err(E::invalid_value(Unexpected::Signed(v), &self))
            }
            fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Span, E> {
                Duration::try_from_secs_f64(v).map(Span).map_err(|_| E::invalid_value(Unexpected::Float(v), &self))
            }
        }
        let span = d.deserialize_any(Visitor)?;
        if span.0 > super::limits::MAX_DURATION {
            return Err(D::Error::custom("duration too long: at most 366d"));
        }
        Ok(span)
    }
}

impl utoipa::PartialSchema for Span {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        OneOfBuilder::new()
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$")),
            )
            .item(ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)))
            .description(Some("A duration: text such as `30s`, `5m`, `1h30m`, or a number of seconds; at most 366d."))
            .into()
    }
}
impl utoipa::ToSchema for Span {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compound_durations_are_read_whole() {
        assert_eq!(parse("42m30s"), Some(Duration::from_secs(2_550)));
        assert_eq!(parse("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "5", "s", "1m1h", "1s1s", "-1s", "1.5s", "1 s", "1w", "99999999999999999999d", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..400 * 86_400_000) {
            let d = Duration::from_millis(millis);
            proptest::prop_assert_eq!(parse(&format(d)), Some(d));
        }
    }
}
