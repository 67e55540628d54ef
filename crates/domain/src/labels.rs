//! Labels that a task asks of its worker: required ones decide who may take it, preferred ones who takes it first.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::name;

/// Requirements of one task or run.
const MAX_REQUIREMENTS: usize = 16;
/// Values of one requirement.
const MAX_VALUES: usize = 32;
/// Values that are named to a person.
const SHOWN: usize = 5;
/// Bytes of the requirements of one run: they stand in its row.
const MAX_OWN: usize = 4 << 10;
const MAX_WEIGHT: u32 = 100;

/// What a label of the worker is compared with, as a client writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelDefinition {
    /// The label's name. A worker need not have it.
    #[schema(min_length = 1, max_length = 255)]
    pub key: String,
    /// How it is compared.
    pub op: LabelOp,
    /// For `eq` and `ne` any text, for `gt` and `lt` a number as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub value: Option<String>,
    /// For `in` and `not_in`, 1 to 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 32)]
    pub values: Option<Vec<String>>,
    /// False: a worker that has it is preferred. Default true: no other worker is given the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub required: Option<bool>,
    /// How much a preferred one counts, 1 to 100. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, maximum = 100)]
    pub weight: Option<u32>,
}

/// How a label is compared. A label that the worker does not have is unequal to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelOp {
    /// It is `value`.
    Eq,
    /// It is not `value`, or absent.
    Ne,
    /// It is one of `values`.
    In,
    /// It is none of `values`, or absent.
    NotIn,
    /// It is a number greater than `value`.
    Gt,
    /// It is a number less than `value`.
    Lt,
    /// The worker has it.
    Exists,
}

#[derive(Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
    /// `None`: required.
    weight: Option<u32>,
}

#[derive(Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Gt(f64),
    Lt(f64),
    Exists,
}

/// The compiled requirements. Nearly every task has none, and then this costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Requirements(Option<Arc<Compiled>>);

#[derive(Debug)]
struct Compiled {
    list: Vec<Requirement>,
    /// Of the text, so that two that differ are told apart at once.
    digest: u64,
    /// The text, of a run that has its own.
    own: Option<String>,
}

impl PartialEq for Requirements {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || (a.digest == b.digest && a.list == b.list),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Requirements {
    /// Those of a task. A definition that [`check`] refuses has none.
    pub fn of_task(list: &[LabelDefinition]) -> Self {
        Self::compile(list, None)
    }

    /// Those of one run, which are stored with it; also none is a decision.
    ///
    /// # Errors
    /// `InvalidField`, as [`check`], and for more than 4 KiB.
    pub fn of_run(at: &str, list: &[LabelDefinition], limits: &Limits) -> Result<Self> {
        check(at, list, limits)?;
        let text = text(list);
        if text.len() > MAX_OWN {
            let message = format!("the labels of a run have at most {MAX_OWN} bytes; got {}", text.len());
            return Err(Error::field(at, message));
        }
        Ok(Self::compile(list, Some(text)))
    }

    /// Those of a run as they stand in its row.
    ///
    /// # Errors
    /// `Internal` for a text that is not one of ours.
    pub fn stored(text: &str) -> Result<Self> {
        let list: Vec<LabelDefinition> = serde_json::from_str(text)
            .map_err(|e| Error::Internal(format!("the labels of a stored run cannot be read: {e}")))?;
        Ok(Self::compile(&list, Some(text.to_owned())))
    }

    fn compile(list: &[LabelDefinition], own: Option<String>) -> Self {
        if list.is_empty() && own.is_none() {
            return Self(None);
        }
        let mut hasher = DefaultHasher::new();
        text(list).hash(&mut hasher);
        let list = list.iter().filter_map(LabelDefinition::compile).collect();
        Self(Some(Arc::new(Compiled { list, digest: hasher.finish(), own })))
    }

    /// What stands in the row of a run that has its own.
    pub fn own(&self) -> Option<&str> {
        self.0.as_ref()?.own.as_deref()
    }

    /// Whether any worker will do.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|c| c.list.is_empty())
    }

    /// Tells different requirements apart; equal ones have the same.
    pub fn digest(&self) -> u64 {
        self.0.as_ref().map_or(0, |c| c.digest)
    }

    /// Whether a worker with these labels may take it.
    pub fn allow(&self, labels: &BTreeMap<String, String>) -> bool {
        self.list().iter().all(|r| r.weight.is_some() || r.holds(labels))
    }

    /// What a worker with these labels lacks to take it, each as a person would say it.
    pub fn lacking(&self, labels: &BTreeMap<String, String>) -> Vec<String> {
        self.list().iter().filter(|r| r.weight.is_none() && !r.holds(labels)).map(Requirement::text).collect()
    }

    /// How much a worker with these labels is preferred.
    pub fn preference(&self, labels: &BTreeMap<String, String>) -> u32 {
        self.list().iter().filter(|r| r.holds(labels)).filter_map(|r| r.weight).sum()
    }

    fn list(&self) -> &[Requirement] {
        self.0.as_ref().map_or(&[], |c| &c.list)
    }
}

impl Requirement {
    /// `gpu=a100`, `zone in a,b`: as short as it can be said.
    fn text(&self) -> String {
        let key = &self.key;
        let list = |values: &[String]| {
            let more = if values.len() > SHOWN { ",.." } else { "" };
            values.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",") + more
        };
        match &self.test {
            Test::In(values) if values.len() == 1 => format!("{key}={}", values[0]),
            Test::In(values) => format!("{key} in {}", list(values)),
            Test::NotIn(values) if values.len() == 1 => format!("{key} other than {}", values[0]),
            Test::NotIn(values) => format!("{key} not in {}", list(values)),
            Test::Gt(than) => format!("{key}>{than}"),
            Test::Lt(than) => format!("{key}<{than}"),
            Test::Exists => key.clone(),
        }
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.key);
        let number = || label.and_then(|l| l.trim().parse::<f64>().ok());
        match &self.test {
            Test::In(values) => label.is_some_and(|l| values.contains(l)),
            Test::NotIn(values) => label.is_none_or(|l| !values.contains(l)),
            Test::Gt(than) => number().is_some_and(|n| n > *than),
            Test::Lt(than) => number().is_some_and(|n| n < *than),
            Test::Exists => label.is_some(),
        }
    }
}

/// The one text of a list.
fn text(list: &[LabelDefinition]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

impl LabelDefinition {
    fn compile(&self) -> Option<Requirement> {
        let (value, values) = (self.value.clone(), self.values.clone());
        let test = match self.op {
            LabelOp::Eq => Test::In(vec![value?]),
            LabelOp::Ne => Test::NotIn(vec![value?]),
            LabelOp::In => Test::In(values?),
            LabelOp::NotIn => Test::NotIn(values?),
            LabelOp::Gt => Test::Gt(number(&value?)?),
            LabelOp::Lt => Test::Lt(number(&value?)?),
            LabelOp::Exists => Test::Exists,
        };
        let weight = (self.required == Some(false)).then(|| self.weight.unwrap_or(1));
        Some(Requirement { key: self.key.clone(), test, weight })
    }

    fn check(&self, at: &str, limits: &Limits) -> Result<()> {
        name::check_text(&format!("{at}/key"), &self.key, limits)?;
        let (one, many) = match self.op {
            LabelOp::Eq | LabelOp::Ne | LabelOp::Gt | LabelOp::Lt => (true, false),
            LabelOp::In | LabelOp::NotIn => (false, true),
            LabelOp::Exists => (false, false),
        };
        if self.value.is_some() != one {
            let message = match (one, many) {
                (true, _) => "this comparison needs a `value`",
                (false, true) => "this comparison has no `value`, but `values`, a list",
                (false, false) => "this comparison has no `value`",
            };
            return Err(Error::field(format!("{at}/value"), message));
        }
        let count = self.values.as_ref().map_or(0, Vec::len);
        if self.values.is_some() != many || (many && !(1..=MAX_VALUES).contains(&count)) {
            let message = match many {
                true => format!("this comparison needs 1 to {MAX_VALUES} `values`; got {count}"),
                false => "only `in` and `not_in` have `values`; the others have a `value`".to_owned(),
            };
            return Err(Error::field(format!("{at}/values"), message));
        }
        let values = self.values.iter().flatten().enumerate().map(|(i, v)| (format!("{at}/values/{i}"), v));
        for (pointer, value) in self.value.iter().map(|v| (format!("{at}/value"), v)).chain(values) {
            if value.len() > limits.name_bytes || value.contains('\0') {
                let message = format!("a label's value has at most {} bytes and no NUL", limits.name_bytes);
                return Err(Error::field(pointer, message));
            }
        }
        if matches!(self.op, LabelOp::Gt | LabelOp::Lt) && self.value.as_deref().and_then(number).is_none() {
            return Err(Error::field(format!("{at}/value"), "`gt` and `lt` compare with a number, such as \"40\""));
        }
        match self.weight {
            Some(_) if self.required != Some(false) => {
                Err(Error::field(format!("{at}/weight"), "only a preferred label has a weight: `required` is false"))
            }
            Some(weight) if !(1..=MAX_WEIGHT).contains(&weight) => {
                Err(Error::field(format!("{at}/weight"), format!("a weight is 1 to {MAX_WEIGHT}; got {weight}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Checks what the types do not, with the JSON pointer of what is wrong.
///
/// # Errors
/// `InvalidField`.
pub fn check(at: &str, list: &[LabelDefinition], limits: &Limits) -> Result<()> {
    if list.len() > MAX_REQUIREMENTS {
        return Err(Error::field(at, format!("at most {MAX_REQUIREMENTS} labels are allowed; got {}", list.len())));
    }
    list.iter().enumerate().try_for_each(|(i, label)| label.check(&format!("{at}/{i}"), limits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Requirements, String> {
        let list: Vec<LabelDefinition> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        Requirements::of_run("/labels", &list, &Limits::default()).map_err(|e| format!("{:?} {e}", e.pointer()))
    }

    fn worker(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn each_comparison_with_a_label_that_fits_that_does_not_and_that_is_absent() {
        for (test, fits, other, absent) in [
            (r#""op":"eq","value":"a""#, "a", "b", false),
            (r#""op":"ne","value":"a""#, "b", "a", true),
            (r#""op":"in","values":["a","b"]"#, "b", "c", false),
            (r#""op":"not_in","values":["a","b"]"#, "c", "a", true),
            (r#""op":"gt","value":"9""#, "10", "9", false),
            (r#""op":"gt","value":"-1.5""#, "-1", "many", false),
            (r#""op":"lt","value":"9""#, "8.5", "10", false),
        ] {
            let required = parse(&format!(r#"[{{"key":"k",{test}}}]"#)).unwrap();
            let allowed = [worker(&[("k", fits)]), worker(&[("k", other)]), worker(&[])].map(|w| required.allow(&w));
            assert_eq!(allowed, [true, false, absent], "{test}");
        }
        let exists = parse(r#"[{"key":"k","op":"exists"}]"#).unwrap();
        assert!(exists.allow(&worker(&[("k", "")])) && !exists.allow(&worker(&[("l", "")])));
    }

    #[test]
    fn preferred_labels_add_up_and_exclude_nobody() {
        let text = r#"[{"key":"zone","op":"eq","value":"a","required":false,"weight":5},
            {"key":"ssd","op":"exists","required":false},{"key":"arch","op":"eq","value":"x"}]"#;
        let r = parse(text).unwrap();
        let scores = [("zone", "a"), ("ssd", "y"), ("zone", "b")].map(|l| r.preference(&worker(&[l])));
        assert_eq!((scores, r.preference(&worker(&[("zone", "a"), ("ssd", "y")]))), ([5, 1, 0], 6));
        assert!(r.allow(&worker(&[("arch", "x")])) && !r.allow(&worker(&[("zone", "a")])));
    }

    #[test]
    fn what_a_worker_lacks_is_named() {
        let text = r#"[{"key":"gpu","op":"eq","value":"a100"},{"key":"zone","op":"in","values":["a","b"]},
            {"key":"os","op":"not_in","values":["x"]},{"key":"mem","op":"gt","value":"4.5"},{"key":"ssd","op":"exists"},
            {"key":"near","op":"exists","required":false}]"#;
        let r = parse(text).unwrap();
        assert_eq!(
            r.lacking(&worker(&[("os", "x")])),
            ["gpu=a100", "zone in a,b", "os other than x", "mem>4.5", "ssd"]
        );
        assert_eq!(r.lacking(&worker(&[("gpu", "a100"), ("zone", "b"), ("mem", "8"), ("ssd", "")])), [""; 0]);
    }

    #[test]
    fn what_is_stored_is_what_was_said() {
        let r = parse(r#"[{"op":"gt","key":"mem","value":"4"}]"#).unwrap();
        assert_eq!(Requirements::stored(r.own().unwrap()).unwrap(), r);
        assert_ne!(r, parse("[]").unwrap());
        assert!(parse("[]").unwrap().own().is_some(), "none is a decision, too");
        assert!(Requirements::of_task(&[]).own().is_none() && Requirements::default().is_empty());
        assert!(Requirements::stored("{").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many = format!("[{}]", vec![r#"{"key":"k","op":"exists"}"#; 17].join(","));
        let long = r#"{"key":"k","op":"eq","value":"VALUE"}"#.replace("VALUE", &"x".repeat(250));
        let large = format!("[{}]", vec![long; 16].join(","));
        for (text, part) in [
            (many.as_str(), "at most 16"),
            (large.as_str(), "at most 4096 bytes"),
            (r#"[{"key":"","op":"exists"}]"#, "/labels/0/key"),
            (r#"[{"key":"k","op":"eq"}]"#, "/labels/0/value"),
            (r#"[{"key":"k","op":"eq","value":"a","values":["b"]}]"#, "/labels/0/values"),
            (r#"[{"key":"k","op":"in","value":"a"}]"#, "`values`, a list"),
            (r#"[{"key":"k","op":"in","values":[]}]"#, "1 to 32"),
            (r#"[{"key":"k","op":"exists","value":"a"}]"#, "has no `value`"),
            (r#"[{"key":"k","op":"gt","value":"much"}]"#, "a number"),
            (r#"[{"key":"k","op":"lt","value":"inf"}]"#, "a number"),
            (r#"[{"key":"k","op":"eq","value":"\u0000"}]"#, "no NUL"),
            (r#"[{"key":"k","op":"exists","weight":2}]"#, "only a preferred"),
            (r#"[{"key":"k","op":"exists","required":false,"weight":101}]"#, "1 to 100"),
            (r#"[{"key":"k","op":"like"}]"#, "unknown variant `like`"),
            (r#"[{"key":"k","op":"exists","x":1}]"#, "unknown field `x`"),
        ] {
            let err = parse(text).unwrap_err();
            assert!(err.contains(part), "{text}: {err}");
        }
    }
}
