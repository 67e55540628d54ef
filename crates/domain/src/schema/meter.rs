//! JSON as the validator sees it, metered: every look at a value costs fuel, and without fuel the validation ends.
//!
//! A small schema can ask for an exponential amount of work, and the validator knows no limit. So it gets values whose
//! accessors count. A schema's node that looks at no value does no work worth counting: `prepare` in `walk.rs` sees to
//! it that every one looks.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp, unique};
use serde_json::{Map, Number, Value};

/// Bytes of a string that cost as much as one look at a value.
const BYTES: usize = 64;

/// Looks between two looks at whether anybody still waits.
const STEP: usize = 4_096;
/// What noting an error costs.
const NOTE: usize = 500;
/// Bytes of the thread's stack that one validation may take. A thread of the runtime has 2 MiB.
const STACK: usize = 1 << 20;

thread_local! {
    static FUEL: Cell<usize> = const { Cell::new(0) };
    /// What is left for matching: bytes of texts times the weights of patterns.
    static MATCHES: Cell<usize> = const { Cell::new(0) };
    static WEIGHTS: Cell<Weights> = const { Cell::new(Weights { text: 0, names: 0 }) };
    /// Where the stack stood when the validation began.
    static BASE: Cell<usize> = const { Cell::new(0) };
    static STOP: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

/// The fuel, the matches or the stack are used up, or nobody waits any more.
#[derive(Debug)]
pub(super) struct Exhausted;

/// What one check may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Looks at values.
    pub(super) fuel: usize,
    /// Bytes times weights of patterns.
    pub(super) matches: usize,
}

/// How much patterns cost for each byte. The validator does not tell which one it tries: the largest counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weights {
    /// The heaviest pattern.
    pub(super) text: usize,
    /// The patterns that one name of a property may be tried with.
    pub(super) names: usize,
}

/// Ends a validation from another thread.
pub(super) type Stop = Arc<AtomicBool>;

/// From now on this thread has this much for its validations, until nobody waits for them.
pub(super) fn refuel(budget: Budget, weights: Weights, stop: Option<&Stop>) {
    FUEL.set(budget.fuel);
    MATCHES.set(budget.matches);
    WEIGHTS.set(weights);
    STOP.set(stop.cloned());
}

/// Runs a validation with the fuel that is left.
///
/// The validator has no way to be stopped but to unwind. It is not a panic: no hook hears of it.
pub(super) fn metered<T>(run: impl FnOnce() -> T) -> Result<T, Exhausted> {
    BASE.set(stack());
    catch_unwind(AssertUnwindSafe(run)).map_err(|cause| match cause.downcast::<Exhausted>() {
        Ok(exhausted) => *exhausted,
        // A defect of the validator: it goes on its way.
        Err(other) => resume_unwind(other),
    })
}

/// The address of something that stands on the stack.
fn stack() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)) as usize
}

fn burn(cost: usize) {
    let (before, room) = (FUEL.get(), BASE.get().abs_diff(stack()) < STACK);
    let left = before.checked_sub(cost).filter(|_| room).unwrap_or_else(|| exhausted());
    FUEL.set(left);
    let waited_for = || STOP.with_borrow(|stop| stop.as_ref().is_none_or(|stop| !stop.load(Ordering::Relaxed)));
    if before / STEP != left / STEP && !waited_for() {
        exhausted();
    }
}

/// A text of so many bytes may be matched, with patterns of this weight: each byte may move every state of theirs.
fn burn_match(bytes: usize, weight: usize) {
    match MATCHES.get().checked_sub(bytes.saturating_mul(weight)) {
        Some(left) => MATCHES.set(left),
        None => exhausted(),
    }
}

fn exhausted() -> ! {
    resume_unwind(Box::new(Exhausted))
}

/// The representation.
pub(super) struct Metered;

/// One value.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a>(pub(super) &'a Value);

/// One object.
pub(super) struct SeenObject<'a>(&'a Map<String, Value>);

/// One array.
pub(super) struct SeenArray<'a>(&'a [Value]);

impl Json for Metered {
    type Node<'a> = Seen<'a>;
    type PreparedKey = String;
    type StringBuffer = ();
    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(Seen<'_>) -> T) -> T {
        burn(1 + string.len() / BYTES);
        f(Seen(&Value::String(string.to_owned())))
    }
}

impl<'a> Node<'a, Metered> for Seen<'a> {
    type Object = SeenObject<'a>;
    type Array = SeenArray<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<SeenObject<'a>> {
        burn(1);
        self.0.as_object().map(SeenObject)
    }

    fn as_array(&self) -> Option<SeenArray<'a>> {
        burn(1);
        self.0.as_array().map(|items| SeenArray(items))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let text = self.0.as_str();
        let bytes = text.map_or(0, str::len);
        burn(1 + bytes / BYTES);
        burn_match(bytes, WEIGHTS.get().text);
        text.map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<&'a Number> {
        burn(1);
        self.0.as_number()
    }

    fn as_boolean(&self) -> Option<bool> {
        burn(1);
        self.0.as_bool()
    }

    fn is_null(&self) -> bool {
        burn(1);
        self.0.is_null()
    }

    fn json_type(&self) -> JsonType {
        burn(1);
        match self.0 {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        // Two values that differ are found to differ early, unless they are large and nearly equal.
        burn(weight(expected, 1_024));
        cmp::equal(self.0, expected)
    }

    /// What an error would show of the value, and it is not shown: an error must not copy a megabyte. The validator
    /// notes every way in which an input does not fit, and each note takes memory: so it costs more than a look.
    fn to_value(&self) -> Cow<'a, Value> {
        burn(NOTE);
        Cow::Owned(Value::Null)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        burn(1);
        Some(NodeIdentity::new(std::ptr::from_ref(self.0) as usize))
    }
}

impl<'a> Object<'a, Metered> for SeenObject<'a> {
    type Node = Seen<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        burn(1);
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<Seen<'a>> {
        burn(1);
        self.0.get(key).map(Seen)
    }

    fn members(&self) -> Members<'a> {
        Members(self.0.iter())
    }
}

/// The members of an object.
pub(super) struct Members<'a>(serde_json::map::Iter<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Seen<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        burn(1 + name.len() / BYTES);
        burn_match(name.len(), WEIGHTS.get().names);
        Some((name.as_str(), Seen(value)))
    }
}

impl<'a> Array<'a, Metered> for SeenArray<'a> {
    type Node = Seen<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        burn(1);
        self.0.len()
    }

    fn elements(&self) -> Elements<'a> {
        Elements(self.0.iter())
    }

    fn is_unique(&self) -> bool {
        let items: usize = self.0.iter().map(|item| weight(item, usize::MAX)).sum();
        // Large integers share hashes, and are then compared with each other.
        let large = self.0.iter().filter(|item| item.as_f64().is_some_and(|n| n.abs() >= 9e15)).count();
        burn(items.saturating_add(large.saturating_mul(large) / 64));
        unique::is_unique(self.0)
    }
}

/// The elements of an array.
pub(super) struct Elements<'a>(std::slice::Iter<'a, Value>);

impl<'a> Iterator for Elements<'a> {
    type Item = Seen<'a>;

    fn next(&mut self) -> Option<Seen<'a>> {
        let item = self.0.next()?;
        burn(1);
        Some(Seen(item))
    }
}

/// How many looks a comparison with the whole of a value costs, counted up to about a limit.
fn weight(value: &Value, limit: usize) -> usize {
    let mut sum = 1;
    match value {
        Value::String(text) => sum += text.len() / BYTES,
        Value::Array(items) => {
            for item in items {
                if sum >= limit {
                    break;
                }
                sum += weight(item, limit - sum);
            }
        }
        Value::Object(members) => {
            for (name, item) in members {
                if sum >= limit {
                    break;
                }
                sum += 1 + name.len() / BYTES + weight(item, limit.saturating_sub(sum));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    sum
}
