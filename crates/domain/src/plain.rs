//! What is wrong with a piece of JSON, in the words of JSON: the parser speaks of `i64`, maps and variants.

use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

/// The types of the parser that are whole numbers, and whether one may be below zero.
const WHOLE: [(&str, bool); 12] = [
    ("i8", true),
    ("i16", true),
    ("i32", true),
    ("i64", true),
    ("i128", true),
    ("isize", true),
    ("u8", false),
    ("u16", false),
    ("u32", false),
    ("u64", false),
    ("u128", false),
    ("usize", false),
];

/// What is wrong with a value, without the position: inside one field it would mislead, and a pointer says where.
pub fn value(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match error.classify() {
        Category::Data => reword(text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text)),
        Category::Eof => "the JSON ends too early".to_owned(),
        Category::Syntax if is_no_name(&text) => NO_NAME.to_owned(),
        Category::Syntax | Category::Io => text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text).to_owned(),
    }
}

/// What is wrong with a value that is no string where one of a few names must stand.
pub const NO_NAME: &str = "expected a string, one of the names that are allowed here";

/// Whether the parser says of valid JSON that it is none: where one of a few names must stand, it knows only strings.
pub fn is_no_name(error: &str) -> bool {
    error.starts_with("expected value at ")
}

/// What is wrong with a text that is not JSON, with line and column.
pub fn syntax(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return format!("it ends too early, at line {} column {}", error.line(), error.column());
    }
    error.to_string()
}

/// The JSON pointer of a place below `at`.
pub fn pointer(at: &str, path: &Path) -> String {
    let mut pointer = at.to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => push_key(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Adds a key to a JSON pointer, which must stay readable also where a client sends a megabyte as a key.
pub fn push_key(pointer: &mut String, key: &str) {
    let key: String = key.chars().take(100).collect();
    pointer.push('/');
    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

/// The one of these names that was meant, if one is but a slip away.
pub fn meant<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let slips = if name.len() > 8 { 3 } else { 2 };
    let near = known.into_iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    near.filter(|(distance, known)| *distance <= slips.min((known.len() - 1) / 2)).min().map(|(_, known)| known)
}

fn reword(text: &str) -> String {
    let mismatch = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    if let Some((got, expected)) = mismatch.and_then(|rest| rest.rsplit_once(", expected ")) {
        return mismatched(got, expected);
    }
    if let Some((got, expected)) =
        text.strip_prefix("unknown variant `").and_then(|rest| rest.rsplit_once("`, expected "))
    {
        return format!("expected {expected}; got `{got}`");
    }
    if let Some(name) = named(text, "missing field `") {
        return format!("`{name}` is required");
    }
    if let Some(name) = named(text, "duplicate field `") {
        return format!("`{name}` stands twice");
    }
    text.to_owned()
}

fn named<'t>(text: &'t str, before: &str) -> Option<&'t str> {
    text.strip_prefix(before)?.strip_suffix('`')
}

fn mismatched(got: &str, expected: &str) -> String {
    let text = got.strip_prefix("string ");
    let is_number = |text: &str| text.trim_matches('"').parse::<f64>().is_ok();
    let (wanted, hint) = match expected {
        "f32" | "f64" => ("a number", text.filter(|t| is_number(t)).map(|_| "without quotes")),
        "a boolean" => {
            ("`true` or `false`", text.filter(|t| matches!(*t, "\"true\"" | "\"false\"")).map(|_| "without quotes"))
        }
        "a borrowed string" | "a string" | "string or map" => {
            let is_bare = ["integer ", "floating point ", "boolean "].iter().any(|kind| got.starts_with(kind));
            ("a string", is_bare.then_some("in quotes"))
        }
        "a map" => ("an object", None),
        "a sequence" => ("a list", None),
        name if name.starts_with("struct ") => ("an object", None),
        name => match WHOLE.iter().find(|(whole, _)| *whole == name) {
            Some((_, signed)) => (whole(got, *signed), text.filter(|t| is_number(t)).map(|_| "without quotes")),
            None => (name, None),
        },
    };
    let hint = hint.map(|hint| format!("; write it {hint}")).unwrap_or_default();
    format!("expected {wanted}; got {}{hint}", found(got))
}

/// Which whole numbers there are, as far as that is what is wrong.
fn whole(got: &str, signed: bool) -> &'static str {
    match got.strip_prefix("integer `") {
        Some(number) if !signed && number.starts_with('-') => "a whole number from 0 on",
        Some(_) => "a whole number that is not as large",
        None => "a whole number",
    }
}

/// What stands there.
fn found(got: &str) -> String {
    let bare = ["integer ", "floating point ", "boolean "].iter().find_map(|kind| got.strip_prefix(kind));
    match (got, bare) {
        // In its quotes: the engine's log leaves out what stands in some.
        (_, Some(value)) => value.to_owned(),
        ("sequence", _) => "a list".to_owned(),
        ("map", _) => "an object".to_owned(),
        ("unit value", _) => "null".to_owned(),
        (other, None) => other.replacen("string ", "the string ", 1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    fn wrong<T: DeserializeOwned>(json: &str) -> String {
        value(&serde_json::from_str::<T>(json).err().unwrap())
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
        Blue,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Paint {
        colour: Colour,
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_json() {
        assert_eq!(wrong::<i64>("\"3\""), "expected a whole number; got the string \"3\"; write it without quotes");
        assert_eq!(wrong::<i64>("\"many\""), "expected a whole number; got the string \"many\"");
        assert_eq!(wrong::<u32>("-1"), "expected a whole number from 0 on; got `-1`");
        assert_eq!(wrong::<u8>("300"), "expected a whole number that is not as large; got `300`");
        assert_eq!(wrong::<i64>("1.5"), "expected a whole number; got `1.5`");
        assert_eq!(wrong::<f64>("true"), "expected a number; got `true`");
        assert_eq!(
            wrong::<bool>("\"true\""),
            "expected `true` or `false`; got the string \"true\"; write it without quotes"
        );
        assert_eq!(wrong::<String>("42"), "expected a string; got `42`; write it in quotes");
        assert_eq!(wrong::<String>("null"), "expected a string; got null");
        assert_eq!(wrong::<Vec<u8>>("{}"), "expected a list; got an object");
        assert_eq!(wrong::<BTreeMap<String, u8>>("[]"), "expected an object; got a list");
        assert_eq!(wrong::<Paint>("7"), "expected an object; got `7`");
        assert_eq!(wrong::<Paint>("{}"), "`colour` is required");
        assert_eq!(wrong::<Paint>(r#"{"colour":"red","colour":"red"}"#), "`colour` stands twice");
        assert_eq!(wrong::<Paint>(r#"{"colour":"pink"}"#), "expected one of `red`, `green`, `blue`; got `pink`");
        assert_eq!(wrong::<Colour>("1"), NO_NAME);
        assert_eq!(wrong::<i64>("[1"), "expected a whole number; got a list");
        assert_eq!(wrong::<Vec<i64>>("[1"), "the JSON ends too early");
    }

    #[test]
    fn a_value_that_speaks_as_the_parser_does_stays_whole() {
        assert_eq!(
            wrong::<i64>("\"a, expected i64 at line 3\""),
            "expected a whole number; got the string \"a, expected i64 at line 3\""
        );
    }

    #[test]
    fn a_slip_is_known_and_another_word_is_not() {
        let known = ["type", "slots", "name", "at"];
        for (name, found) in [("slot", Some("slots")), ("na_me", Some("name")), ("result", None), ("t", None)] {
            assert_eq!(meant(name, known), found, "{name}");
        }
    }

    #[test]
    fn a_text_that_is_cut_is_told_where_it_ends() {
        let error = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).err().unwrap();
        assert_eq!(syntax(&error("{\"a\": ")), "it ends too early, at line 1 column 6");
        assert_eq!(syntax(&error("{a}")), "key must be a string at line 1 column 2");
    }
}
