//! The `hello` frame: its form, and the limits on what a worker may say of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use helve_domain::definition::{DEFAULT_SLOT_KIND, NamedDefinition, WorkflowDefinition};
use helve_domain::delivery::Resume;
use helve_domain::delivery::WorkerInfo;
use helve_domain::error::{Code, Error, Result};
use helve_domain::limits::Limits;
use helve_domain::name;
use helve_domain::secret::Secret;
use helve_domain::{offer, plain};
use serde_json::value::RawValue;

use super::fields::{self, Fields};
use super::incoming::{Top, attempts};
use super::{Fault, Faults, PROTOCOL, loose};

/// A `hello` of the right form, not yet checked against the limits.
#[derive(Debug)]
pub(crate) struct HelloFrame {
    protocol: u32,
    name: String,
    sdk: String,
    actions: Vec<String>,
    slots: Option<BTreeMap<String, u32>>,
    labels: BTreeMap<String, String>,
    workflows: Vec<NamedDefinition>,
    resume: Option<Resume>,
    ticket: Option<Secret>,
}

/// What a `hello` says that is hardly meant; it stands in the `welcome`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Warning {
    /// Which kind: `unknown_field`, `no_slots` or `no_workflow`.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
    /// Where in the `hello`.
    pub(crate) pointer: String,
}

/// A `hello` that may be acted on.
#[derive(Debug)]
pub(crate) struct Checked {
    /// How the worker describes itself.
    pub(crate) info: WorkerInfo,
    /// Workflows to register, in the order given.
    pub(crate) workflows: Vec<(String, WorkflowDefinition)>,
    /// The session to go on with.
    pub(crate) resume: Option<Resume>,
}

impl Checked {
    /// What is allowed and hardly meant.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let slots = &self.info.slots;
        if slots.is_empty() {
            let message = "this worker has no slots, and gets no work: `capacity` may give it some".to_owned();
            return vec![Warning { code: "no_slots", message, pointer: "/slots".to_owned() }];
        }
        let none = slots.iter().filter(|(_, count)| **count == 0).map(|(kind, _)| {
            let mut pointer = "/slots".to_owned();
            plain::push_key(&mut pointer, kind);
            let message = format!("this worker has no slot of kind `{kind}`, and gets no work that needs one");
            Warning { code: "no_slots", message, pointer }
        });
        none.collect()
    }
}

impl Warning {
    /// Of an action of this `hello` that no workflow has.
    pub(crate) fn no_workflow(action: &str) -> Self {
        let message = format!("no workflow has a task with the action `{action}`: nothing can come for it yet");
        Self { code: "no_workflow", message, pointer: "/actions".to_owned() }
    }
}

impl From<Fault> for Warning {
    /// Of a field that nobody knows.
    fn from(Fault { code, pointer, message }: Fault) -> Self {
        Self { code: code.as_str(), message, pointer: pointer.unwrap_or_default() }
    }
}

pub(super) fn read(top: &Top<'_>, faults: &mut Faults) -> Result<HelloFrame, Fault> {
    let resume = match top.optional::<&RawValue>("resume")? {
        Some(raw) => Some(resume(raw, top.pointer("resume"), faults)?),
        None => None,
    };
    let mut workflows = Vec::new();
    for (i, raw) in top.optional::<Vec<&RawValue>>("workflows")?.unwrap_or_default().into_iter().enumerate() {
        workflows.push(fields::value(raw, || format!("/workflows/{i}"))?);
    }
    Ok(HelloFrame {
        protocol: top.whole("protocol")?,
        name: top.required("name")?,
        sdk: top.optional("sdk")?.unwrap_or_default(),
        actions: top.required("actions")?,
        slots: counts(top)?,
        labels: top.optional("labels")?.unwrap_or_default(),
        workflows,
        resume,
        ticket: top.optional::<String>("ticket")?.map(Secret::new),
    })
}

/// The field `slots`: whole numbers by name, however they are written.
pub(super) fn counts(top: &Top<'_>) -> Result<Option<BTreeMap<String, u32>>, Fault> {
    top.optional("slots").or_else(|fault| {
        let written = top.optional::<BTreeMap<String, &RawValue>>("slots")?.unwrap_or_default();
        let read = |(kind, raw): (String, &RawValue)| Some((kind, loose::number(raw)?));
        written.into_iter().map(read).collect::<Option<_>>().map(Some).ok_or(fault)
    })
}

fn resume(raw: &RawValue, at: String, faults: &mut Faults) -> Result<Resume, Fault> {
    let fields = Fields::read(raw.get(), ["session", "secret", "holding"], at)?;
    faults.note_unknown(&fields);
    let holding = attempts(fields.optional("holding")?, &fields.pointer("holding"), faults)?;
    Ok(Resume { session: fields.required("session")?, secret: fields.required("secret")?, holding })
}

impl HelloFrame {
    /// The ticket by which the worker comes, where the socket was opened without one.
    pub(crate) const fn take_ticket(&mut self) -> Option<Secret> {
        self.ticket.take()
    }

    /// Checks everything that the form does not say, with the JSON pointer of what is wrong.
    pub(crate) fn check(self, limits: &Limits) -> Result<Checked> {
        if self.protocol != PROTOCOL {
            let message = format!("this engine speaks protocol {PROTOCOL}; got {}", self.protocol);
            return Err(Error::invalid(Code::UnsupportedProtocol, Some("/protocol".to_owned()), message));
        }
        name::check_text("/name", &self.name, limits)?;
        if !self.sdk.is_empty() {
            name::check_text("/sdk", &self.sdk, limits)?;
        }
        offer::check_labels(&self.labels, limits)?;
        let slots = self.slots.unwrap_or_else(|| BTreeMap::from([(DEFAULT_SLOT_KIND.to_owned(), 1)]));
        let info = WorkerInfo {
            name: self.name.into(),
            sdk: self.sdk.into(),
            actions: offer::actions(&self.actions, limits)?,
            slots: self::slots(slots, limits)?,
            labels: self.labels,
        };
        Ok(Checked { info, workflows: workflows(self.workflows, limits)?, resume: self.resume })
    }
}

/// Slot totals within the limits.
pub(super) fn slots(slots: BTreeMap<String, u32>, limits: &Limits) -> Result<BTreeMap<Arc<str>, u32>> {
    offer::check_slots(&slots, limits)?;
    Ok(slots.into_iter().map(|(kind, count)| (kind.into(), count)).collect())
}

fn workflows(named: Vec<NamedDefinition>, limits: &Limits) -> Result<Vec<(String, WorkflowDefinition)>> {
    if named.len() > limits.actions {
        let message = format!("at most {} workflows are allowed; got {}", limits.actions, named.len());
        return Err(Error::field("/workflows", message));
    }
    let mut checked = Vec::with_capacity(named.len());
    for (i, definition) in named.into_iter().enumerate() {
        let at = format!("/workflows/{i}");
        let (name, definition) = definition.split();
        name::check(&format!("{at}/name"), &name, limits)?;
        definition.check(&at, limits)?;
        checked.push((name, definition));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::super::{Frame, decode};
    use super::*;

    fn hello(changes: Value) -> Value {
        let mut hello = json!({"type": "hello", "protocol": 1, "name": "w1", "actions": ["resize"]});
        hello.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        hello
    }

    /// The code and the pointer of what is wrong.
    fn check(hello: &Value) -> Result<Checked, (Code, String)> {
        let limits = Limits::default();
        let decoded = decode(&Bytes::from(hello.to_string()), &limits);
        let Some(Frame::Hello(frame)) = decoded.frame else { panic!("{decoded:?}") };
        let place = |f: Fault| (f.code, f.pointer.unwrap());
        frame.map_err(place)?.check(&limits).map_err(|e| place(Fault::from(&e)))
    }

    #[test]
    fn what_is_absent_has_a_default() {
        let checked = check(&hello(json!({"actions": ["b", "a", "b"], "unknown": 1}))).unwrap();
        assert_eq!(checked.info.slots, BTreeMap::from([("default".into(), 1)]));
        assert_eq!(checked.info.actions, ["a".into(), "b".into()]);
        assert!(checked.resume.is_none() && checked.workflows.is_empty());
        assert!(check(&hello(json!({"slots": {}}))).unwrap().info.slots.is_empty());
        let floats = check(&hello(json!({"protocol": 1.0, "slots": {"default": 2.0, "gpu": "1"}}))).unwrap();
        assert_eq!(floats.info.slots, BTreeMap::from([("default".into(), 2), ("gpu".into(), 1)]));
    }

    #[test]
    fn what_is_hardly_meant_is_told() {
        let told = |changes: Value| {
            let warnings = check(&hello(changes)).unwrap().warnings();
            warnings.into_iter().map(|w| (w.code, w.pointer)).collect::<Vec<_>>()
        };
        assert_eq!(told(json!({})), []);
        assert_eq!(told(json!({"slots": {}})), [("no_slots", "/slots".to_owned())]);
        assert_eq!(told(json!({"slots": {"a/b": 0, "gpu": 1}})), [("no_slots", "/slots/a~1b".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many: Vec<_> = (0..1_001).map(|i| format!("a{i}")).collect();
        let labels: BTreeMap<_, _> = (0..65).map(|i| (format!("l{i}"), "x")).collect();
        let holding = json!([{"task_run": "x", "attempt": 1}]);
        for (changes, code, pointer) in [
            (json!({"protocol": 2}), Code::UnsupportedProtocol, "/protocol"),
            (json!({"protocol": "one"}), Code::BadFrame, "/protocol"),
            (json!({"name": null}), Code::BadFrame, "/name"),
            (json!({"name": ""}), Code::InvalidField, "/name"),
            (json!({"name": "a\u{0}"}), Code::InvalidField, "/name"),
            (json!({"actions": []}), Code::InvalidField, "/actions"),
            (json!({"actions": many}), Code::InvalidField, "/actions"),
            (json!({"actions": ["a b"]}), Code::InvalidField, "/actions/0"),
            (json!({"slots": {"default": 1.5}}), Code::BadFrame, "/slots/default"),
            (json!({"slots": {"default": 100_001}}), Code::InvalidField, "/slots/default"),
            (json!({"labels": {"a": 1}}), Code::BadFrame, "/labels/a"),
            (json!({"actions": ["a", 2]}), Code::BadFrame, "/actions/1"),
            (json!({"labels": labels}), Code::InvalidField, "/labels"),
            (json!({"workflows": [{"name": "w", "tasks": [], "x": 1}]}), Code::BadFrame, "/workflows/0/x"),
            (
                json!({"workflows": [{"name": "w", "tasks": [{"name": "t", "retries": {"count": "3"}}]}]}),
                Code::BadFrame,
                "/workflows/0/tasks/0/retries/count",
            ),
            (json!({"workflows": [{"name": "w", "tasks": []}]}), Code::InvalidField, "/workflows/0/tasks"),
            (json!({"workflows": [{"name": "", "tasks": []}]}), Code::InvalidField, "/workflows/0/name"),
            (json!({"resume": {"session": "ses_x", "secret": ""}}), Code::BadFrame, "/resume/session"),
            (json!({"resume": {"holding": holding}}), Code::BadFrame, "/resume/holding/0/task_run"),
        ] {
            let found = check(&hello(changes.clone())).unwrap_err();
            assert_eq!(found, (code, pointer.to_owned()), "{changes}");
        }
    }
}
