//! One object of an answer, with every value as the engine wrote it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Fields in the order of the answer. A payload may hold numbers that no number type can, so nothing is parsed
/// before somebody asks for it.
#[derive(Debug, Default)]
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// From a body; `None` when it is not a JSON object.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The fields that have a value.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.get())).filter(|(_, value)| *value != "null")
    }

    /// The JSON of a field; `None` when it is absent or null.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.fields().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// A field for people: a string as it reads, everything else as JSON, nothing as `None`.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.raw(name).map(readable)
    }

    /// As [`Object::text`], empty where there is nothing.
    pub(super) fn cell(&self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    /// A whole number; 0 where there is none.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.raw(name).and_then(|raw| raw.parse().ok()).unwrap_or(0)
    }

    /// A field that is an object itself; an empty one where there is none.
    pub(super) fn object(&self, name: &str) -> Self {
        self.raw(name).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default()
    }

    /// The elements of a field that is a list.
    pub(super) fn list(&self, name: &str) -> Vec<Box<RawValue>> {
        self.raw(name).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default()
    }

    /// A list of strings on one line.
    pub(super) fn words(&self, name: &str) -> String {
        self.list(name).iter().map(|raw| readable(raw.get())).collect::<Vec<_>>().join(",")
    }
}

/// A JSON value for people.
pub(super) fn readable(raw: &str) -> String {
    if raw.starts_with('"') { serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()) } else { raw.to_owned() }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_type_can_hold_is_shown_as_it_came() {
        let body = br#"{"id":"run_1","input":{"n": 1e400,"s":"\ud800"},"output":null,"words":["a","b\n"],"n":7}"#;
        let object = Object::parse(body).unwrap();
        assert_eq!(object.cell("input"), r#"{"n": 1e400,"s":"\ud800"}"#);
        assert_eq!((object.text("id").as_deref(), object.text("output")), (Some("run_1"), None));
        assert_eq!((object.words("words").as_str(), object.number("n")), ("a,b\n", 7));
        assert_eq!(readable(r#""\ud800""#), r#""\ud800""#);
        assert!(Object::parse(b"<html>").is_none());
    }
}
