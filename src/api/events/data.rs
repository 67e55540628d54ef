//! The data of a CloudEvent as a payload: the same from every form, decided by its media type alone.
//!
//! JSON is the payload itself, a text is a JSON string, and everything else a string of base64. So that two encoders
//! of one event agree, blanks between the tokens of JSON are left out and its strings are written one way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use helve_domain::error::{Error, Result};
use helve_domain::json::{Payload, string_end};
use helve_domain::limits::Limits;
use serde_json::value::RawValue;

use crate::api::media;

/// A payload, and whether it is bytes in base64.
pub type Decoded = (Payload, bool);

/// The data of an event, as it came.
pub enum Data<'a> {
    /// The body of the binary form.
    Body(Bytes),
    /// The member `data`, and the body of which it is a part.
    Value(&'a RawValue, &'a Bytes),
    /// The member `data_base64`.
    Encoded(&'a RawValue),
}

impl Data<'_> {
    /// The payload that it stands for. `at` is the JSON pointer of the event.
    ///
    /// # Errors
    /// `InvalidField`, `Malformed`, `TooLarge`, `TooDeep`.
    pub fn decode(self, at: &str, media: &str, limits: &Limits) -> Result<Decoded> {
        match self {
            Self::Body(body) if body.is_empty() => Ok((Payload::null(), false)),
            Self::Body(body) => bytes("", media, body, limits),
            Self::Value(raw, body) => {
                let at = format!("{at}/data");
                let text = if media::is_json(media) { None } else { serde_json::from_str::<String>(raw.get()).ok() };
                match text {
                    // What is not JSON stands there as text.
                    Some(text) => bytes(&at, media, Bytes::from(text), limits),
                    None => Ok((normal(Payload::from_raw(body, raw, "the data", &at, limits)?), false)),
                }
            }
            Self::Encoded(raw) => {
                let at = format!("{at}/data_base64");
                let wrong = || Error::field(&at, "expected bytes in base64, with its padding");
                let text: String = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
                bytes(&at, media, Bytes::from(BASE64.decode(text).map_err(|_| wrong())?), limits)
            }
        }
    }
}

fn bytes(at: &str, media: &str, data: Bytes, limits: &Limits) -> Result<Decoded> {
    if media::is_json(media) {
        return Ok((normal(Payload::parse(data, "the data", at, limits)?), false));
    }
    match std::str::from_utf8(&data) {
        Ok(text) if media::is_text(media) => Ok((string(at, text, limits)?, false)),
        _ => Ok((string(at, &BASE64.encode(&data), limits)?, true)),
    }
}

fn string(at: &str, text: &str, limits: &Limits) -> Result<Payload> {
    let text = serde_json::to_vec(text).map_err(|e| Error::Internal(format!("the data of an event: {e}")))?;
    Payload::parse(Bytes::from(text), "the data", at, limits)
}

/// The one form of a document; without a copy where it has it already.
fn normal(payload: Payload) -> Payload {
    let text = normal_text(payload.bytes());
    if text == *payload.bytes() { payload } else { Payload::trusted(Bytes::from(text)) }
}

/// The one text of a JSON document: without blanks, and with each string as our own encoder writes it. The order of
/// members and the texts of numbers stay.
fn normal_text(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'"' => {
                let (token, after) = rest.split_at(string_end(rest, 0));
                match serde_json::from_slice::<String>(token).ok().and_then(|text| serde_json::to_vec(&text).ok()) {
                    Some(same) => out.extend_from_slice(&same),
                    // A lone surrogate is no text, and is passed on.
                    None => out.extend_from_slice(token),
                }
                rest = after;
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => out.push(byte),
        }
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    static NO_BODY: Bytes = Bytes::new();

    /// The member `data`; small ones are copied out of their body.
    fn value(text: &str) -> Data<'_> {
        Data::Value(raw(text), &NO_BODY)
    }

    fn decoded(data: Data<'_>, media: &str) -> (String, bool) {
        let (payload, encoded) = data.decode("", media, &Limits::default()).unwrap();
        (String::from_utf8(payload.bytes().to_vec()).unwrap(), encoded)
    }

    #[test]
    fn every_form_of_the_same_data_is_one_payload() {
        let document = "{\"a\":\"é\\n\",\"n\":1.50}";
        for media in ["application/json", "application/vnd.shop+json"] {
            for data in [
                Data::Body(Bytes::from_static("{ \"a\" : \"\\u00e9\\u000a\",\r\n\"n\":1.50 }".as_bytes())),
                value("{\"a\": \"é\\n\", \"n\": 1.50}"),
                // {"a": "é\n", "n": 1.50}
                Data::Encoded(raw("\"eyJhIjogIsOpXG4iLCAibiI6IDEuNTB9\"")),
            ] {
                assert_eq!(decoded(data, media), (document.to_owned(), false), "{media}");
            }
        }
        for (media, payload, encoded) in [("text/plain", "\"a\\\"b\"", false), ("image/png", "\"YSJi\"", true)] {
            for data in [Data::Body(Bytes::from_static(b"a\"b")), value("\"a\\\"b\""), Data::Encoded(raw("\"YSJi\""))] {
                assert_eq!(decoded(data, media), (payload.to_owned(), encoded), "{media}");
            }
        }
        // Under a media type that is no JSON, what is no text is JSON all the same.
        assert_eq!(decoded(value("[1, 2]"), "text/xml"), ("[1,2]".to_owned(), false));
        assert_eq!(decoded(value("\"\\ud800 \""), "application/json"), ("\"\\ud800 \"".to_owned(), false));
        assert_eq!(decoded(Data::Body(Bytes::from_static(&[255])), "text/plain"), ("\"/w==\"".to_owned(), true));
    }

    #[test]
    fn json_that_is_none_is_refused_where_it_stands() {
        // {"a
        let wrong = Data::Encoded(raw("\"eyJh\"")).decode("/1", "application/json", &Limits::default()).unwrap_err();
        assert_eq!(wrong.pointer(), Some("/1/data_base64"));
    }
}
