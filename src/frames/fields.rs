//! Reads the known fields of one JSON object as raw text, without building a tree.

use std::fmt;

use helve_domain::error::Code;
use helve_domain::plain;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Fault, loose, shown};

/// Fields that are listed.
const FEW: usize = 8;
/// Characters of an unknown name that are kept.
const LONGEST: usize = 60;

/// The raw values of an object's known fields, in the order of `names`; unknown fields are skipped, and the first of them
/// is remembered.
pub(super) struct Fields<'a, const N: usize> {
    names: [&'static str; N],
    values: [Option<&'a RawValue>; N],
    unknown: Option<String>,
    at: String,
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Reads `text`, which stands at the JSON pointer `at`. A known field that stands twice is an error:
    /// two readers could disagree on which of them counts.
    pub(super) fn read(text: &'a str, names: [&'static str; N], at: String) -> Result<Self, Fault> {
        let (values, unknown) = values(text, &names, Names::Texts)
            // A name with half an emoji is one that nobody knows, and no reason to refuse the whole.
            .or_else(|_| values(text, &names, Names::Bytes))
            .map_err(|err| Fault::bad_frame(&at, plain::value(&err)))?;
        Ok(Self { names, values, unknown, at })
    }

    /// The first field that nobody knows.
    pub(super) fn unknown_name(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// A word on the first field that nobody knows: whoever misspells one would look for it in vain.
    pub(super) fn unknown(&self) -> Option<Fault> {
        let name = self.unknown.as_deref()?;
        let hint = match plain::meant(name, self.names) {
            Some(meant) => format!(": did you mean `{meant}`?"),
            // The top has the fields of every frame.
            None if N > FEW => String::new(),
            None => {
                let names: Vec<_> = self.names.iter().map(|known| format!("`{known}`")).collect();
                format!("; known are {}", names.join(", "))
            }
        };
        let message = format!("the field `{}` is not known here and was ignored{hint}", shown(name));
        let mut pointer = self.at.clone();
        plain::push_key(&mut pointer, name);
        Some(Fault { code: Code::UnknownField, pointer: Some(pointer), message })
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
            Some(raw) => self.read_value(name, raw),
            None => Ok(None),
        }
    }

    /// A field that must be there.
    pub(super) fn required<T: Deserialize<'a>>(&self, name: &str) -> Result<T, Fault> {
        match self.raw(name) {
            Some(raw) => self.read_value(name, raw),
            None => Err(self.missing(name)),
        }
    }

    fn read_value<T: Deserialize<'a>>(&self, name: &str, raw: &'a RawValue) -> Result<T, Fault> {
        value(raw, || self.pointer(name))
    }

    /// Calls `each` with every item of a list that must be there. The list is never held as a whole:
    /// a frame may have a million items.
    pub(super) fn each(&self, name: &str, mut each: impl FnMut(usize, &'a RawValue)) -> Result<(), Fault> {
        let raw = self.raw(name).ok_or_else(|| self.missing(name))?;
        serde_json::Deserializer::from_str(raw.get())
            .deserialize_seq(List(&mut each))
            .map_err(|err| Fault::bad_frame(&self.pointer(name), plain::value(&err)))
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

/// Reads a value that stands at the JSON pointer `at`. What is wrong inside it is pointed at.
pub(super) fn value<'a, T: Deserialize<'a>>(raw: &'a RawValue, at: impl Fn() -> String) -> Result<T, Fault> {
    serde_json::from_str(raw.get()).map_err(|error| {
        // Following the path costs time, so only what failed is read again with it.
        let mut again = serde_json::Deserializer::from_str(raw.get());
        match serde_path_to_error::deserialize::<_, T>(&mut again) {
            Err(traced) => Fault::bad_frame(&plain::pointer(&at(), traced.path()), plain::value(traced.inner())),
            Ok(_) => Fault::bad_frame(&at(), plain::value(&error)),
        }
    })
}

/// The values of the known fields, and the name of the first that is not known.
type Values<'a, const N: usize> = ([Option<&'a RawValue>; N], Option<String>);

fn values<'a, const N: usize>(
    text: &'a str,
    names: &[&'static str; N],
    read: Names,
) -> serde_json::Result<Values<'a, N>> {
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
    type Value = Values<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = Values<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut unknown) = ([None; N], None);
        while let Some(known) = map.next_key_seed(Name(self.0, self.1, &mut unknown))? {
            let Some(index) = known else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if values[index].replace(map.next_value::<&'de RawValue>()?).is_some() {
                return Err(A::Error::custom(format_args!("`{}` stands twice", self.0[index])));
            }
        }
        Ok((values, unknown))
    }
}

/// The place of a name among those that are known; the first other one is kept.
struct Name<'n, const N: usize>(&'n [&'static str; N], Names, &'n mut Option<String>);

impl<const N: usize> Name<'_, N> {
    fn place_of(self, name: &str) -> Option<usize> {
        let place = self.0.iter().position(|n| *n == name);
        if place.is_none() && self.2.is_none() {
            *self.2 = Some(name.chars().take(LONGEST).collect());
        }
        place
    }
}

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
        Ok(self.place_of(name))
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.place_of(&String::from_utf8_lossy(name)))
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
        let told = fields.unknown().unwrap();
        assert_eq!((told.code, told.pointer.as_deref()), (Code::UnknownField, Some("/x/z")), "{told:?}");
        assert!(read(r#"{"a":1}"#).unwrap().unknown().is_none());
    }

    #[test]
    fn what_is_wrong_inside_a_value_is_pointed_at() {
        let text = r#"{"a":{"k":[1,"x"]}}"#;
        let fields = read(text).unwrap();
        let fault = fields.required::<std::collections::BTreeMap<String, Vec<u32>>>("a").unwrap_err();
        assert_eq!(fault.pointer.as_deref(), Some("/x/a/k/1"), "{}", fault.message);
    }

    #[test]
    fn what_is_wrong_names_the_field() {
        let text = r#"{"a":"x"}"#;
        let fields = read(text).unwrap();
        let fault = fields.required::<u32>("a").unwrap_err();
        assert_eq!(fault.pointer.as_deref(), Some("/x/a"));
        assert_eq!(fault.message, "expected a whole number; got the string \"x\"");
        assert_eq!(fields.whole::<u32>("a").unwrap_err(), fault, "what is no number at all is told in the same words");
        assert_eq!(fields.required::<u32>("b").unwrap_err().message, "`b` is required");
        assert_eq!(fields.each("a", |_, _| {}).unwrap_err().pointer.as_deref(), Some("/x/a"));
        assert!(read(r#"{"a":1,"a":2}"#).err().unwrap().message.contains("`a` stands twice"));
        assert!(read("[]").is_err() && read("{} {}").is_err() && read("{").is_err());
    }
}
