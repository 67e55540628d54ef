//! Payloads: JSON documents of users, carried as the bytes that came in.

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Code, Error, Result};
use crate::limits::Limits;

/// Payloads up to this size stay in memory with their run; larger ones are read when they are needed.
pub const SMALL: usize = 1_024;

/// One valid JSON document, exactly as received: big numbers, `\u0000` and lone surrogates survive.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// The document `null`, what an absent payload is.
    pub const fn null() -> Self {
        Self(Bytes::from_static(b"null"))
    }

    /// The document `{}`, what absent metadata are.
    pub const fn empty_object() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    /// The document `[]`.
    pub const fn empty_list() -> Self {
        Self(Bytes::from_static(b"[]"))
    }

    /// Bytes that are known to be JSON: they come from our own rows or encoder.
    pub const fn trusted(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// A part of a parsed body; a large one without a copy. Checks size and depth, which the parser does not.
    pub fn from_raw(body: &Bytes, raw: &RawValue, what: &'static str, pointer: &str, limits: &Limits) -> Result<Self> {
        let text = raw.get().as_bytes();
        check_size(text.len(), what, limits)?;
        check_depth(text, pointer, limits)?;
        // A small part must not keep the whole body, of which it may be a thousandth.
        Ok(Self(if text.len() <= SMALL { Bytes::copy_from_slice(text) } else { body.slice_ref(text) }))
    }

    /// A whole document that is not parsed yet.
    pub fn parse(bytes: Bytes, what: &'static str, pointer: &str, limits: &Limits) -> Result<Self> {
        check_size(bytes.len(), what, limits)?;
        check_depth(&bytes, pointer, limits)?;
        serde_json::from_slice::<&RawValue>(&bytes).map_err(|err| {
            Error::invalid(Code::Malformed, Some(pointer.to_owned()), format!("{what} is not JSON: {err}"))
        })?;
        Ok(Self(bytes))
    }

    /// The document's bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true of a JSON document.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn check_size(size: usize, what: &'static str, limits: &Limits) -> Result<()> {
    if size > limits.payload_bytes {
        return Err(Error::TooLarge { what, size: Some(size), limit: limits.payload_bytes });
    }
    Ok(())
}

/// Refuses a document nested deeper than the limit. A document passed through as raw text skips the
/// parser's own check, and the worker's parser might not have one.
fn check_depth(text: &[u8], pointer: &str, limits: &Limits) -> Result<()> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at = string_end(text, at);
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > limits.json_depth {
                    return Err(Error::invalid(
                        Code::TooDeep,
                        Some(pointer.to_owned()),
                        format!("nested deeper than the {} levels that are allowed", limits.json_depth),
                    ));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The position after the JSON string that begins at `start`; the end of the text when the string has none.
pub fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    // A megabyte of text is most often one string: searched with the processor's wide instructions.
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

impl std::fmt::Debug for Payload {
    /// Payloads are the users' data: never in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(d)?;
        Ok(Self(Bytes::from(raw.get().to_owned())))
    }
}

impl utoipa::PartialSchema for Payload {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::SchemaType::AnyValue)
            .description(Some("Any JSON value; kept and passed on byte for byte."))
            .into()
    }
}
impl utoipa::ToSchema for Payload {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Payload> {
        Payload::parse(Bytes::copy_from_slice(text.as_bytes()), "the input", "/input", &Limits::default())
    }

    #[test]
    fn odd_but_valid_documents_pass_unchanged() {
        for text in [
            "{\"a\":\"\\u0000\"}",
            "\"\\ud800\"",
            "123456789012345678901234567890.5e400",
            "[{\"b\":\"]]]]\\\"[[[\"}]",
            "\"\\\\\"",
            "null",
        ] {
            assert_eq!(parse(text).unwrap().bytes(), text.as_bytes());
        }
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&deep(128)).is_ok());
        assert_eq!(parse(&deep(129)).unwrap_err().code(), Code::TooDeep);
        assert!(parse(&format!("\"{}\"", "[".repeat(500))).is_ok());
    }

    #[test]
    fn broken_documents_are_refused() {
        for text in ["", "{", "{\"a\":}", "[1,]", "nul", "1 2", "\"", "\"\\", "\"\\\""] {
            assert_eq!(parse(text).unwrap_err().code(), Code::Malformed, "{text}");
        }
    }
}
