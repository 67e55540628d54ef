//! A schema's own shape, before the validator compiles it: its limits, its references, and what it may not contain.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::meter::Weights;
use super::weigh::weigh;
use crate::error::{Error, Result};

/// The dialect, as `$schema` may name it.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Levels of a schema's JSON. The validator compiles by recursion.
const DEPTH: usize = 64;
/// Patterns of one schema: each becomes an automaton of its own.
const PATTERNS: usize = 100;

/// Keywords whose value is a schema.
const ONE: &[&str] = &[
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const NAMED: &[&str] = &["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// What a schema's patterns cost.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) weights: Weights,
    /// Bytes of all compiled patterns.
    pub(super) memory: usize,
}

/// Checks a schema that stands at the JSON pointer `at`, and makes every part of it look at the value that it judges.
pub(super) fn prepare(at: &str, schema: &mut Value) -> Result<Prepared> {
    check_depth(at, schema, DEPTH)?;
    let mut walk = Walk { at, ..Walk::default() };
    walk.schema("", schema)?;
    for (place, target) in &walk.references {
        if !walk.places.contains(target) {
            let message = format!("`#{target}` is no schema of this document; put shared ones into `$defs`");
            return Err(Error::field(format!("{at}{place}"), message));
        }
    }
    // What is left over is judged part by part, with the patterns of every part.
    let names = if walk.unevaluated { walk.names_of_all } else { walk.names_of_one };
    Ok(Prepared { weights: Weights { text: walk.text, names }, memory: walk.memory })
}

fn check_depth(at: &str, value: &Value, left: usize) -> Result<()> {
    if left == 0 {
        return Err(Error::field(at, format!("a schema is nested at most {DEPTH} levels deep")));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(at, item, left - 1)),
        Value::Object(members) => members.values().try_for_each(|item| check_depth(at, item, left - 1)),
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Walk<'a> {
    /// Where the schema stands in the request.
    at: &'a str,
    /// Pointers of everything that is a schema.
    places: HashSet<String>,
    /// Where a pointer stands, and where it leads.
    references: Vec<(String, String)>,
    patterns: usize,
    /// The weight of the heaviest pattern for texts.
    text: usize,
    /// The weight of the patterns for names: of the part that has most, and of all.
    names_of_one: usize,
    names_of_all: usize,
    unevaluated: bool,
    memory: usize,
}

impl Walk<'_> {
    fn wrong<T>(&self, place: &str, keyword: &str, message: impl Into<String>) -> Result<T> {
        Err(Error::field(format!("{}{place}/{}", self.at, escape(keyword)), message))
    }

    fn schema(&mut self, place: &str, schema: &mut Value) -> Result<()> {
        self.places.insert(place.to_owned());
        // What is neither an object nor a boolean is refused by the validator, with the keyword's own words.
        let Value::Object(members) = schema else { return Ok(()) };
        self.identifiers(place, members)?;
        self.references(place, members)?;
        for keyword in ONE {
            if let Some(inner) = members.get_mut(*keyword) {
                self.schema(&format!("{place}/{keyword}"), inner)?;
            }
        }
        for keyword in LIST {
            if let Some(Value::Array(list)) = members.get_mut(*keyword) {
                for (i, inner) in list.iter_mut().enumerate() {
                    self.schema(&format!("{place}/{keyword}/{i}"), inner)?;
                }
            }
        }
        for keyword in NAMED {
            if let Some(Value::Object(named)) = members.get_mut(*keyword) {
                if *keyword == "patternProperties" {
                    self.patterns(named.keys())?;
                }
                for (name, inner) in named.iter_mut() {
                    self.schema(&format!("{place}/{keyword}/{}", escape(name)), inner)?;
                }
            }
        }
        self.unevaluated |= members.contains_key("unevaluatedProperties");
        if let Some(Value::String(pattern)) = members.get("pattern") {
            self.text = self.text.max(self.pattern(pattern)?);
        }
        // A part that only refers to others would cost nothing, however often it is visited: see `meter.rs`.
        members.entry("type").or_insert_with(|| ["array", "boolean", "null", "number", "object", "string"].into());
        Ok(())
    }

    /// The patterns for names of one part.
    fn patterns<'p>(&mut self, patterns: impl Iterator<Item = &'p String>) -> Result<()> {
        let mut sum = 0_usize;
        for pattern in patterns {
            sum = sum.saturating_add(self.pattern(pattern)?);
        }
        self.names_of_one = self.names_of_one.max(sum);
        self.names_of_all = self.names_of_all.saturating_add(sum);
        Ok(())
    }

    /// Counts a pattern; gives what it costs for each byte.
    fn pattern(&mut self, pattern: &str) -> Result<usize> {
        self.patterns += 1;
        if self.patterns > PATTERNS {
            return Err(Error::field(self.at, format!("a schema has at most {PATTERNS} patterns")));
        }
        let weight = weigh(pattern);
        self.memory += weight.memory;
        Ok(weight.time)
    }

    fn identifiers(&self, place: &str, members: &Map<String, Value>) -> Result<()> {
        if let Some(dialect) = members.get("$schema")
            && dialect.as_str().is_none_or(|uri| uri.trim_end_matches('#') != DIALECT)
        {
            return self.wrong(place, "$schema", format!("the dialect is JSON Schema 2020-12: `{DIALECT}`, or absent"));
        }
        if members.contains_key("$id") && !place.is_empty() {
            return self.wrong(
                place,
                "$id",
                "`$id` may only stand at the top; name a part with `$anchor` or in `$defs`",
            );
        }
        for keyword in ["$vocabulary", "$recursiveRef", "$recursiveAnchor", "dependencies", "additionalItems"] {
            if members.contains_key(keyword) {
                return self.wrong(place, keyword, format!("`{keyword}` is not allowed in an input schema"));
            }
        }
        Ok(())
    }

    fn references(&mut self, place: &str, members: &Map<String, Value>) -> Result<()> {
        for keyword in ["$ref", "$dynamicRef"] {
            let Some(target) = members.get(keyword) else { continue };
            let Some(local) = target.as_str().and_then(|text| text.strip_prefix('#')) else {
                let message = "a reference leads into the schema itself and begins with `#`; other documents are not \
                    fetched: copy what is needed into `$defs`";
                return self.wrong(place, keyword, message);
            };
            // The rest are anchors, which the validator looks up.
            if local.is_empty() || local.starts_with('/') {
                let target = percent_encoding::percent_decode_str(local).decode_utf8_lossy().into_owned();
                self.references.push((format!("{place}/{keyword}"), target));
            }
        }
        Ok(())
    }
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
