//! Input schemas: JSON Schema 2020-12 in a workflow, with a bounded cost of each check.

mod meter;
mod walk;
mod weigh;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::json::Payload;
use meter::{Budget, Exhausted, Metered, Seen, metered, refuel};
use walk::Prepared;

/// Bytes of one schema.
const BYTES: usize = 64 << 10;
/// Looks at values that one check may take, whatever the input; each byte of it adds some. An ordinary check takes
/// fewer than one for each byte; what takes all of this was made to.
const FUEL: usize = 100_000;
const FUEL_PER_BYTE: usize = 40;
const FUEL_AT_MOST: usize = 10_000_000;
/// Bytes of texts times the weights of the patterns that they may be matched with: about a second at worst.
const MATCHES: usize = 150_000_000;
/// What a check may take where it is asked for: about a millisecond. What needs more is done elsewhere.
const QUICK: Budget = Budget { fuel: 30_000, matches: 100_000 };
const QUICK_BYTES: usize = 16 << 10;
/// Bytes of a validator for each byte of its schema, without patterns.
const SOURCE_TIMES: usize = 20;
/// Bytes of one compiled pattern.
const PATTERN_BYTES: usize = 256 << 10;
/// Characters of an expectation that are shown.
const SHOWN: usize = 300;

/// The schema of a workflow's input. Its compiled form, which may take megabytes, is made when it is first needed and
/// may be given up at any time.
pub struct InputSchema {
    source: Box<str>,
    compiled: Mutex<Option<Arc<Compiled>>>,
}

/// What checks inputs.
struct Compiled {
    /// `None`: a stored schema that this engine does not compile. It lets nothing through.
    validator: Option<Validator<Metered>>,
    prepared: Prepared,
}

/// What is to be checked, and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The JSON pointer of the input in the request.
    pub at: &'a str,
    /// The workflow's name, for the error.
    pub workflow: &'a str,
    /// The input.
    pub payload: &'a Payload,
}

impl InputSchema {
    /// The schema of a stored workflow, which was checked when it was registered. Should another version of the engine
    /// not take it, then runs of this one workflow are refused, and nothing else suffers.
    pub fn stored(source: &Value) -> Self {
        Self { source: source.to_string().into(), compiled: Mutex::default() }
    }

    /// Checks a schema that stands at the JSON pointer `at` of a request, by compiling it: what may take a second.
    ///
    /// # Errors
    /// `InvalidField` for what is no schema, refers to another document, or is over a limit.
    pub fn validate(at: &str, source: &Value) -> Result<()> {
        compile(at, source).map(drop)
    }

    /// Checks an input where that is sure to be quick; `None`: it is not, and needs [`InputSchema::check`].
    pub fn check_quickly(&self, input: Input<'_>) -> Option<Result<()>> {
        if input.payload.len() > QUICK_BYTES {
            return None;
        }
        let compiled = Arc::clone(self.slot().as_ref()?);
        refuel(QUICK, compiled.prepared.weights, None);
        compiled.check(input).ok()
    }

    /// Checks an input, and compiles the schema first where that is not done. May take a second or two, and ends early
    /// when `stop` is set.
    ///
    /// # Errors
    /// `SchemaMismatch` with the pointer of what does not fit and what was expected there.
    pub fn check(&self, input: Input<'_>, stop: &Arc<AtomicBool>) -> Result<()> {
        let compiled = self.compiled();
        let fuel = (FUEL + input.payload.len().saturating_mul(FUEL_PER_BYTE)).min(FUEL_AT_MOST);
        refuel(Budget { fuel, matches: MATCHES }, compiled.prepared.weights, Some(stop));
        compiled.check(input).unwrap_or_else(|Exhausted| {
            let message = "checking it takes too long; give it less to check, or the schema less to try";
            mismatch(input, "", message.to_owned())
        })
    }

    /// Bytes that its compiled form takes; `None`: there is none.
    pub fn compiled_bytes(&self) -> Option<usize> {
        let slot = self.slot();
        slot.as_ref().map(|compiled| self.source.len() * SOURCE_TIMES + compiled.prepared.memory)
    }

    /// Gives the compiled form up.
    pub fn forget(&self) {
        *self.slot() = None;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Compiled>>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compiled(&self) -> Arc<Compiled> {
        if let Some(known) = &*self.slot() {
            return Arc::clone(known);
        }
        let source = serde_json::from_str(&self.source).unwrap_or(Value::Null);
        let compiled = Arc::new(compile("", &source).unwrap_or_else(|error| {
            tracing::error!(%error, "a stored input schema does not compile");
            Compiled { validator: None, prepared: Prepared::default() }
        }));
        *self.slot() = Some(Arc::clone(&compiled));
        compiled
    }
}

fn compile(at: &str, source: &Value) -> Result<Compiled> {
    if !source.is_object() {
        return Err(Error::field(at, "an input schema is a JSON object in the words of JSON Schema 2020-12"));
    }
    let size = source.to_string().len();
    if size > BYTES {
        return Err(Error::field(at, format!("an input schema has at most {BYTES} bytes; got {size}")));
    }
    let mut schema = source.clone();
    let prepared = walk::prepare(at, &mut schema)?;
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES);
    let options = jsonschema::options_for::<Metered>().with_draft(Draft::Draft202012).offline();
    let validator = options.should_validate_formats(false).with_pattern_options(patterns).build(&schema);
    let validator = validator.map_err(|error| {
        let place = error.instance_path().as_str();
        let message = match error.kind() {
            ValidationErrorKind::Format { .. } => format!(
                "a pattern is a regular expression without look-around and back-references, and small when compiled; \
                 got {}",
                shown(&error.instance().to_string())
            ),
            _ => format!("not a JSON Schema 2020-12: {}", shown(&error.to_string())),
        };
        Error::field(format!("{at}{place}"), message)
    })?;
    Ok(Compiled { validator: Some(validator), prepared })
}

impl Compiled {
    /// Checks with the fuel that the thread has.
    fn check(&self, input: Input<'_>) -> Result<Result<()>, Exhausted> {
        let Some(validator) = &self.validator else {
            let message = "this engine cannot compile it; register the workflow again, and the answer says why";
            return Ok(mismatch(input, "", message.to_owned()));
        };
        // The parser takes less than the interface, which passes on what it does not read.
        let Ok(value) = serde_json::from_slice::<Value>(input.payload.bytes()) else {
            let message = "a schema cannot judge a number beyond 1.8e308, a lone surrogate, or more than 127 levels";
            return Ok(mismatch(input, "", message.to_owned()));
        };
        if metered(|| validator.is_valid(Seen(&value)))? {
            return Ok(Ok(()));
        }
        let (place, message) = reason(validator, &value);
        Ok(mismatch(input, &place, message))
    }
}

fn mismatch(input: Input<'_>, place: &str, message: String) -> Result<()> {
    let message = format!("does not fit the input schema of `{}`: {message}", input.workflow);
    Err(Error::invalid(Code::SchemaMismatch, Some(format!("{}{}", input.at, pointer(place))), message))
}

/// Where an input that does not fit fails first, and what was expected: as far as the fuel of the check goes, so that
/// the reason does not cost as much again.
fn reason(validator: &Validator<Metered>, input: &Value) -> (String, String) {
    let found = metered(|| {
        let error = validator.validate(Seen(input)).err()?;
        Some((error.instance_path().as_str().to_owned(), expected(&error)))
    });
    let unknown = || (String::new(), "to find where would take too long".to_owned());
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
        write!(f, "InputSchema({} bytes)", self.source.len())
    }
}

#[cfg(test)]
mod tests;
