//! Input schemas: JSON Schema 2020-12 in a workflow, compiled once, with a bounded cost of each check.

mod meter;
mod walk;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::domain::json::Payload;
use crate::error::{Code, Error, Result};
use meter::{Exhausted, Metered, Seen, metered};

/// Bytes of one schema.
const BYTES: usize = 64 << 10;
/// Looks at values that one check may take, whatever the input; each byte of it adds some. An ordinary check takes
/// fewer than one for each byte; what takes all of this was made to.
const FUEL: usize = 100_000;
const FUEL_PER_BYTE: usize = 40;
const FUEL_AT_MOST: usize = 10_000_000;
/// Bytes of one compiled pattern.
const PATTERN_BYTES: usize = 256 << 10;
/// Characters of an expectation that are shown.
const SHOWN: usize = 300;

/// The compiled schema of a workflow's input.
pub struct InputSchema {
    /// `None`: a stored schema that this engine does not compile. It lets nothing through.
    validator: Option<Validator<Metered>>,
    source: Value,
}

impl InputSchema {
    /// Compiles a schema that stands at the JSON pointer `at` of a request.
    ///
    /// # Errors
    /// `InvalidField` for what is no schema, refers to another document, or is over a limit.
    pub fn compile(at: &str, source: &Value) -> Result<Self> {
        if !source.is_object() {
            return Err(Error::field(at, "an input schema is a JSON object in the words of JSON Schema 2020-12"));
        }
        let size = source.to_string().len();
        if size > BYTES {
            return Err(Error::field(at, format!("an input schema has at most {BYTES} bytes; got {size}")));
        }
        let mut prepared = source.clone();
        walk::prepare(at, &mut prepared)?;
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES);
        let options = jsonschema::options_for::<Metered>().with_draft(Draft::Draft202012).offline();
        let validator = options.should_validate_formats(false).with_pattern_options(patterns).build(&prepared);
        let validator = validator.map_err(|error| {
            let place = error.instance_path().as_str();
            let message = match error.kind() {
                ValidationErrorKind::Format { .. } => format!(
                    "a pattern is a regular expression without look-around and back-references, and small when \
                     compiled; got {}",
                    shown(&error.instance().to_string())
                ),
                _ => format!("not a JSON Schema 2020-12: {}", shown(&error.to_string())),
            };
            Error::field(format!("{at}{place}"), message)
        })?;
        Ok(Self { validator: Some(validator), source: source.clone() })
    }

    /// Compiles a schema that was checked when it was registered. Should another version of the engine not take it,
    /// then runs of this one workflow are refused, and nothing else suffers.
    pub fn stored(source: &Value) -> Self {
        Self::compile("", source).unwrap_or_else(|error| {
            tracing::error!(%error, "a stored input schema does not compile");
            Self { validator: None, source: source.clone() }
        })
    }

    /// Checks an input that stands at the JSON pointer `at` of a request.
    ///
    /// # Errors
    /// `SchemaMismatch` with the pointer of what does not fit and what was expected there.
    pub fn check(&self, at: &str, workflow: &str, input: &Payload) -> Result<()> {
        let mismatch = |place: &str, message: String| {
            let message = format!("does not fit the input schema of `{workflow}`: {message}");
            Err(Error::invalid(Code::SchemaMismatch, Some(format!("{at}{}", pointer(place))), message))
        };
        let fuel = (FUEL + input.len().saturating_mul(FUEL_PER_BYTE)).min(FUEL_AT_MOST);
        let Some(validator) = &self.validator else {
            let message = "this engine cannot compile it; register the workflow again, and the answer says why";
            return mismatch("", message.to_owned());
        };
        // The parser takes less than the interface, which passes on what it does not read.
        let Ok(input) = serde_json::from_slice::<Value>(input.bytes()) else {
            let message = "a schema cannot judge a number beyond 1.8e308, a lone surrogate, or more than 127 levels";
            return mismatch("", message.to_owned());
        };
        match metered(fuel, || validator.is_valid(Seen(&input))) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let (place, message) = reason(validator, &input, fuel);
                mismatch(&place, message)
            }
            Err(Exhausted) => {
                mismatch("", "checking it takes too long; give it less to check, or the schema less to try".to_owned())
            }
        }
    }
}

/// Where an input that does not fit fails first, and what was expected.
fn reason(validator: &Validator<Metered>, input: &Value, fuel: usize) -> (String, String) {
    let found = metered(fuel, || {
        let error = validator.validate(Seen(input)).err()?;
        Some((error.instance_path().as_str().to_owned(), expected(&error)))
    });
    let unknown = || (String::new(), "it fails in too many ways to name one".to_owned());
    found.ok().flatten().unwrap_or_else(unknown)
}

fn expected(error: &jsonschema::ValidationError<'_>) -> String {
    let schema = error.schema_path().as_str();
    let text = match error.kind() {
        ValidationErrorKind::FalseSchema => "expected nothing here".to_owned(),
        ValidationErrorKind::Required { property } => format!("expected a property {property}"),
        ValidationErrorKind::Constant { expected_value } => format!("expected {expected_value}"),
        ValidationErrorKind::Enum { options } => format!("expected one of {options}"),
        ValidationErrorKind::Pattern { pattern } => format!("expected text that matches {pattern:?}"),
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            format!("expected no property {}", list(unexpected))
        }
        ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            format!("expected no property {}", list(unexpected))
        }
        _ => error.masked().to_string(),
    };
    format!("{} (by `{}` of the schema)", shown(&text), shown(schema))
}

fn list(names: &[String]) -> String {
    names.iter().take(10).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

/// A pointer must stay readable also where a client sends a megabyte as a key.
fn pointer(place: &str) -> String {
    shown(place)
}

impl PartialEq for InputSchema {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl std::fmt::Debug for InputSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InputSchema({} bytes)", self.source.to_string().len())
    }
}

#[cfg(test)]
mod tests;
