//! Reads the known fields of one JSON object as raw text, without building a tree.

use std::fmt;

use helve_domain::error::Code;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Fault, loose};

/// The raw values of an object's known fields, in the order of `names`; unknown fields are skipped.
pub(super) struct Fields<'a, const N: usize> {
    names: [&'static str; N],
    values: [Option<&'a RawValue>; N],
    at: String,
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Reads `text`, which stands at the JSON pointer `at`. A known field that stands twice is an error:
    /// two readers could disagree on which of them counts.
    pub(super) fn read(text: &'a str, names: [&'static str; N], at: String) -> Result<Self, Fault> {
        let values = values(text, &names, Names::Texts)
            // A name with half an emoji is one that nobody knows, and no reason to refuse the whole.
            .or_else(|_| values(text, &names, Names::Bytes))
            .map_err(|err| Fault::bad_frame(&at, format!("expected an object: {}", without_position(&err))))?;
        Ok(Self { names, values, at })
    }

    /// The JSON pointer of a field.
    pub(super) fn pointer(&self, name: &str) -> String {
        format!("{}/{name}", self.at)
    }

    /// The raw text of a field, `None` if it is absent.
    pub(super) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let index = self.names.iter().position(|n| *n == name);
        debug_assert!(index.is_some(), "`{name}` is not among the fields that were read");
        index.and_then(|i| self.values[i])
    }

    /// A field that may be absent or `null`.
    pub(super) fn optional<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Fault> {
        match self.raw(name) {
            Some(raw) => serde_json::from_str(raw.get())
                .map_err(|err| Fault::bad_frame(&self.pointer(name), without_position(&err))),
            None => Ok(None),
        }
    }

    /// A field that must be there.
    pub(super) fn required<T: Deserialize<'a>>(&self, name: &str) -> Result<T, Fault> {
        match self.raw(name) {
            Some(raw) => serde_json::from_str(raw.get())
                .map_err(|err| Fault::bad_frame(&self.pointer(name), without_position(&err))),
            None => Err(self.missing(name)),
        }
    }

    /// Calls `each` with every item of a list that must be there. The list is never held as a whole:
    /// a frame may have a million items.
    pub(super) fn each(&self, name: &str, mut each: impl FnMut(usize, &'a RawValue)) -> Result<(), Fault> {
        let raw = self.raw(name).ok_or_else(|| self.missing(name))?;
        serde_json::Deserializer::from_str(raw.get())
            .deserialize_seq(List(&mut each))
            .map_err(|err| Fault::bad_frame(&self.pointer(name), without_position(&err)))
    }

    /// A whole number that must be there, however it is written.
    pub(super) fn whole<T: Deserialize<'a> + TryFrom<i64>>(&self, name: &str) -> Result<T, Fault> {
        self.required(name).or_else(|fault| self.raw(name).and_then(loose::number).ok_or(fault))
    }

    /// A whole number that may be absent.
    pub(super) fn optional_whole<T: Deserialize<'a> + TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, Fault> {
        self.optional(name).or_else(|fault| self.raw(name).and_then(loose::number).map(Some).ok_or(fault))
    }

    /// A time in milliseconds that may be absent; a part of one counts as a whole one.
    pub(super) fn optional_millis(&self, name: &str) -> Result<Option<u64>, Fault> {
        self.optional(name).or_else(|fault| self.raw(name).and_then(loose::millis).map(Some).ok_or(fault))
    }

    pub(super) fn missing(&self, name: &str) -> Fault {
        Fault { code: Code::BadFrame, pointer: Some(self.pointer(name)), message: format!("`{name}` is required") }
    }
}

/// A position inside one field would mislead: the pointer says where.
fn without_position(err: &serde_json::Error) -> String {
    let text = err.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn values<'a, const N: usize>(
    text: &'a str,
    names: &[&'static str; N],
    read: Names,
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let values = Object(names, read).deserialize(&mut deserializer)?;
    deserializer.end().map(|()| values)
}

/// How the names of fields are read: as texts costs half as much, as bytes takes those that are no text.
#[derive(Clone, Copy)]
enum Names {
    Texts,
    Bytes,
}

struct Object<'n, const N: usize>(&'n [&'static str; N], Names);

impl<'de, const N: usize> DeserializeSeed<'de> for Object<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(known) = map.next_key_seed(Name(self.0, self.1))? {
            let Some(index) = known else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if values[index].replace(map.next_value::<&'de RawValue>()?).is_some() {
                return Err(A::Error::custom(format_args!("`{}` stands twice", self.0[index])));
            }
        }
        Ok(values)
    }
}

struct Name<'n, const N: usize>(&'n [&'static str; N], Names);

impl<'de, const N: usize> DeserializeSeed<'de> for Name<'_, N> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        match self.1 {
            Names::Texts => d.deserialize_str(self),
            Names::Bytes => d.deserialize_bytes(self),
        }
    }
}

impl<const N: usize> Visitor<'_> for Name<'_, N> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|n| *n == name))
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|n| n.as_bytes() == name))
    }
}

struct List<'f, F>(&'f mut F);

impl<'de, F: FnMut(usize, &'de RawValue)> Visitor<'de> for List<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            (self.0)(index, item);
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Fields<'_, 2>, Fault> {
        Fields::read(text, ["a", "b"], "/x".to_owned())
    }

    #[test]
    fn known_fields_are_read_and_others_skipped() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let text = format!(r#" {{"z":{deep},"\u0061":[1, 2],"c":"\ud800","\ud83d":0}} "#);
        let fields = read(&text).unwrap();
        assert_eq!(fields.raw("a").unwrap().get(), "[1, 2]");
        assert_eq!(fields.optional::<u32>("b").unwrap(), None);
        let mut items = Vec::new();
        fields.each("a", |i, raw| items.push((i, raw.get()))).unwrap();
        assert_eq!(items, [(0, "1"), (1, "2")]);
    }

    #[test]
    fn what_is_wrong_names_the_field() {
        let text = r#"{"a":"x"}"#;
        let fields = read(text).unwrap();
        let fault = fields.required::<u32>("a").unwrap_err();
        assert_eq!(fault.pointer.as_deref(), Some("/x/a"));
        assert_eq!(fault.message, "invalid type: string \"x\", expected u32");
        assert_eq!(fields.whole::<u32>("a").unwrap_err(), fault, "what is no number at all is told in the same words");
        assert_eq!(fields.required::<u32>("b").unwrap_err().message, "`b` is required");
        assert_eq!(fields.each("a", |_, _| {}).unwrap_err().pointer.as_deref(), Some("/x/a"));
        assert!(read(r#"{"a":1,"a":2}"#).err().unwrap().message.contains("`a` stands twice"));
        assert!(read("[]").is_err() && read("{} {}").is_err() && read("{").is_err());
    }
}
