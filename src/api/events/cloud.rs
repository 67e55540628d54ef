//! CloudEvents 1.0 as events: the structured and the binary form.
//!
//! `type` is the key, `source` and `id` are the source and its id, `data` is the payload. Every other attribute becomes
//! a metadata key with `ce-` before its name, as HTTP headers have it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use axum::http::HeaderMap;
use bytes::Bytes;
use chrono::DateTime;
use helve_domain::error::{Code, Error, Result};
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::name;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::data::Data;
use super::request::Incoming;
use crate::api::metadata::Metadata;
use crate::api::{json, media, trace};

/// The metadata key that says that the payload is bytes in base64. No attribute can have this name.
const ENCODED: &str = "ce-data_base64";
/// The media type of data that names none.
const JSON: &str = "application/json";

/// A CloudEvents 1.0 event in its structured form. It may have extension attributes besides these: names of lowercase
/// letters and digits, with a text, a boolean or a whole number.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the form; extension attributes make it a map")]
pub struct CloudEvent {
    /// `1.0`.
    #[schema(pattern = "^1\\.0$")]
    specversion: String,
    /// Its id at its source; with the source it is taken once in 24 hours.
    #[schema(min_length = 1, max_length = 255)]
    id: String,
    /// Where it comes from.
    #[schema(min_length = 1, max_length = 255)]
    source: String,
    /// What happened: the event's key.
    #[schema(min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9_.:/-]+$")]
    r#type: String,
    /// When it happened.
    #[schema(required = false, format = DateTime)]
    time: Option<String>,
    /// What it is about.
    #[schema(required = false, min_length = 1)]
    subject: Option<String>,
    /// The media type of the data; `application/json` if absent.
    #[schema(required = false, min_length = 1)]
    datacontenttype: Option<String>,
    /// The URI of the data's schema.
    #[schema(required = false, min_length = 1)]
    dataschema: Option<String>,
    /// The payload. What is not JSON by its media type stands here as text.
    #[schema(required = false)]
    data: Option<Payload>,
    /// Instead of `data`: bytes in base64. The payload is what they are by their media type: JSON, a text, or else this
    /// base64.
    #[schema(required = false)]
    data_base64: Option<String>,
}

/// The members of an object, none twice.
struct Members<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Flat;
        impl<'de> Visitor<'de> for Flat {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a CloudEvent")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &RawValue>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("an attribute stands there twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(Flat)
    }
}

/// Reads an event in its structured form, which stands at the JSON pointer `at` of the body.
pub fn structured(
    at: &str,
    text: &str,
    body: &Bytes,
    traceparent: Option<String>,
    limits: &Limits,
) -> Result<Incoming> {
    let Members(members) = json::parse_part(at, text)?;
    let mut attributes = BTreeMap::new();
    let (mut data, mut encoded) = (None, None);
    for (name, raw) in members {
        match &*name {
            "data" => data = Some(raw),
            "data_base64" => encoded = Some(raw),
            _ => {
                let place = format!("{at}/{}", name.chars().take(100).collect::<String>());
                if let Some(value) = value(&place, raw)? {
                    attributes.insert(name.into_owned(), value);
                }
            }
        }
    }
    let data = match (data, encoded) {
        (Some(_), Some(_)) => {
            return Err(Error::field(format!("{at}/data_base64"), "give `data` or `data_base64`, not both"));
        }
        (None, None) => None,
        (Some(raw), None) => Some(Data::Value(raw, body)),
        (None, Some(raw)) => Some(Data::Encoded(raw)),
    };
    let media = attributes.get("datacontenttype").map_or(Ok(JSON.to_owned()), |media| media::normal(media));
    let media = media.map_err(|wrong| Error::field(format!("{at}/datacontenttype"), wrong.client_text()))?;
    let (payload, encoded) = data.map_or(Ok((Payload::null(), false)), |data| data.decode(at, &media, limits))?;
    if attributes.contains_key("datacontenttype") {
        attributes.insert("datacontenttype".to_owned(), media);
    }
    Envelope { at, attributes, encoded }.finish(payload, traceparent, limits)
}

/// Reads an event in its binary form: attributes in headers, the data as the body.
pub fn binary(headers: &HeaderMap, body: Bytes, traceparent: Option<String>, limits: &Limits) -> Result<Incoming> {
    let mut attributes = BTreeMap::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix("ce-") else { continue };
        let wrong = |what: &str| Error::invalid(Code::InvalidField, None, format!("the header {header}: {what}"));
        if name == "datacontenttype" {
            return Err(wrong("in the binary form the media type of the data stands in Content-Type"));
        }
        let text = percent_encoding::percent_decode(value.as_bytes()).decode_utf8();
        let text = text.map_err(|_| wrong("expected UTF-8, percent-encoded"))?;
        if attributes.insert(name.to_owned(), text.into_owned()).is_some() {
            return Err(wrong("it stands there twice"));
        }
    }
    let media = media::normal(headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or(JSON))?;
    let (payload, encoded) = Data::Body(body).decode("", &media, limits)?;
    attributes.insert("datacontenttype".to_owned(), media);
    let event = Envelope { at: "", attributes, encoded }.finish(payload, traceparent, limits);
    event.map_err(|error| match error {
        Error::Invalid { code, pointer: Some(place), message, .. } if place.starts_with('/') => {
            Error::invalid(code, None, format!("the header ce-{}: {message}", &place[1..]))
        }
        other => other,
    })
}

/// An attribute as text; `None`: null, which is the same as absent.
fn value(place: &str, raw: &RawValue) -> Result<Option<String>> {
    let wrong = || Error::field(place, "an attribute is a text, a boolean, or a whole number of 32 bits");
    match serde_json::from_str(raw.get()).map_err(|_| wrong())? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Bool(flag) => Ok(Some(flag.to_string())),
        Value::Number(number) => {
            let whole = number.as_i64().and_then(|n| i32::try_from(n).ok());
            whole.map(|n| Some(n.to_string())).ok_or_else(wrong)
        }
        Value::Array(_) | Value::Object(_) => Err(wrong()),
    }
}

struct Envelope<'a> {
    at: &'a str,
    attributes: BTreeMap<String, String>,
    /// The payload is bytes in base64.
    encoded: bool,
}

impl Envelope<'_> {
    fn required(&mut self, name: &str, limits: &Limits) -> Result<String> {
        let place = format!("{}/{name}", self.at);
        let Some(value) = self.attributes.remove(name) else {
            let message =
                format!("a CloudEvent has the attributes specversion, id, source and type; `{name}` is absent");
            return Err(Error::invalid(Code::MissingField, Some(place), message));
        };
        name::check_text(&place, &value, limits)?;
        Ok(value)
    }

    fn finish(mut self, payload: Payload, traceparent: Option<String>, limits: &Limits) -> Result<Incoming> {
        let version = self.required("specversion", limits)?;
        if version != "1.0" {
            return Err(Error::field(format!("{}/specversion", self.at), "this engine takes CloudEvents 1.0"));
        }
        let source = (self.required("source", limits)?, self.required("id", limits)?);
        let key = self.required("type", limits)?;
        let place = format!("{}/type", self.at);
        name::check(&place, &key, limits)?;
        // The trace that it belongs to, as its own attribute, says more than that of the request.
        let own = self.attributes.get("traceparent").filter(|text| trace::is_valid(text)).cloned();
        if own.is_some() {
            self.attributes.remove("traceparent");
        }
        let metadata = self.metadata(limits)?;
        Ok(Incoming { key, source: Some(source), payload, metadata, traceparent: own.or(traceparent), key_at: place })
    }

    fn metadata(self, limits: &Limits) -> Result<Payload> {
        let Self { at, attributes, encoded } = self;
        let mut metadata = BTreeMap::new();
        for (name, value) in attributes {
            let place = format!("{at}/{}", name.chars().take(100).collect::<String>());
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            if name.is_empty() || !name.bytes().all(legal) {
                return Err(Error::invalid(
                    Code::UnknownField,
                    Some(place),
                    "the name of an attribute has only lowercase letters and digits",
                ));
            }
            if value.is_empty() || value.chars().any(char::is_control) {
                return Err(Error::field(place, "an attribute is not empty and has no control characters"));
            }
            if name == "time" && DateTime::parse_from_rfc3339(&value).is_err() {
                return Err(Error::field(place, "expected a time such as 2026-01-31T12:00:00Z"));
            }
            // Absent, and what is the default, are the same.
            if name != "datacontenttype" || value != JSON {
                metadata.insert(format!("ce-{name}"), value);
            }
        }
        if encoded {
            metadata.insert(ENCODED.to_owned(), "true".to_owned());
        }
        Metadata::from(metadata).check(at, limits)
    }
}
