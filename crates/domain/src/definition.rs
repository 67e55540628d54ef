//! Workflow definitions: the document of a client, its checks, and the compiled form that runs use.

mod retries;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::duration::Span;
use crate::error::{Error, Result};
use crate::event::Pattern;
use crate::labels::{self, LabelDefinition, Requirements};
use crate::limits::Limits;
use crate::name;
use crate::retention;
use crate::retry::RetryPolicy;
use crate::run::Priority;
use crate::schema::InputSchema;

pub use retries::{Retries, RetryDefinition, RuleDefinition};

/// What a workflow is, as a client writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowDefinition {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub description: Option<String>,
    /// Its tasks: one, until workflows of several tasks come.
    #[schema(min_items = 1, max_items = 1)]
    pub tasks: Vec<TaskDefinition>,
    /// How long its finished runs are kept: `1m` to `366d`. The tenant's default, or as long as the engine keeps
    /// anything, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// Patterns of event keys that start a run, with `*` for any characters: `image.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub events: Vec<String>,
    /// What the input of its runs must be: a JSON Schema 2020-12, at most 64 KiB, without references to other
    /// documents. Any input if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, required = false)]
    pub input_schema: Option<Value>,
}

/// A definition with its name, as it stands in a worker's `hello`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedDefinition {
    /// The workflow's name.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its tasks.
    pub tasks: Vec<TaskDefinition>,
    /// How long its finished runs are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// Patterns of event keys that start a run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// What the input of its runs must be: a JSON Schema 2020-12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, required = false)]
    pub input_schema: Option<Value>,
}

impl NamedDefinition {
    /// The name and the definition apart.
    pub fn split(self) -> (String, WorkflowDefinition) {
        let Self { name, description, tasks, retention, events, input_schema } = self;
        (name, WorkflowDefinition { description, tasks, retention, events, input_schema })
    }
}

/// One step of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskDefinition {
    /// Its name, unique in the workflow.
    pub name: String,
    /// What a worker must offer to get it; the task's name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Retries after a failed attempt: a count, or a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// How long an attempt may take from the worker's `received`. Default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_timeout: Option<Span>,
    /// How long the run may wait in the queue before it is cancelled with `schedule_timeout`. No limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_timeout: Option<Span>,
    /// Priority of its runs, 1 (lowest) to 4, where the trigger gives none. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4)]
    pub priority: Option<i64>,
    /// What it takes of a worker: one kind of slot and how many. Default `{"default": 1}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<BTreeMap<String, u32>>,
    /// What it asks of the labels of its worker. A run may have its own instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub labels: Vec<LabelDefinition>,
}

/// The compiled form of a version: what the scheduler needs of it. Shared by all its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The version's number, from 1.
    pub version: i32,
    /// What a worker must offer.
    pub action: Arc<str>,
    /// The kind of slot that it takes.
    pub slot_kind: Arc<str>,
    /// How many of them.
    pub slot_cost: u32,
    /// How long an attempt may take.
    pub execution_timeout: Duration,
    /// How long a run may wait in the queue.
    pub schedule_timeout: Option<Duration>,
    /// What it asks of the labels of a worker.
    pub labels: Requirements,
    /// What happens after a failure.
    pub retry: RetryPolicy,
    /// Priority of runs whose trigger gives none.
    pub priority: Priority,
    /// What the input must be; `None`: anything.
    pub input_schema: Option<Arc<InputSchema>>,
}

impl Spec {
    /// The same without its input schema, which only what starts runs needs.
    #[must_use]
    pub fn without_schema(&self) -> Self {
        Self { input_schema: None, ..self.clone() }
    }
}

/// Execution timeout of a task that gives none.
pub const DEFAULT_EXECUTION_TIMEOUT: Duration = Duration::from_secs(300);
/// The kind of slot of a task or worker that names none.
pub const DEFAULT_SLOT_KIND: &str = "default";

impl WorkflowDefinition {
    /// Checks everything that the types do not, with the JSON pointer of what is wrong under `at`; but for the input
    /// schema, whose check takes long: see [`WorkflowDefinition::check_schema`].
    pub fn check(&self, at: &str, limits: &Limits) -> Result<()> {
        if self.description.as_ref().is_some_and(|d| d.len() > 1_024 || d.contains('\0')) {
            return Err(Error::field(format!("{at}/description"), "at most 1024 bytes, without NUL"));
        }
        let [task] = self.tasks.as_slice() else {
            return Err(Error::field(
                format!("{at}/tasks"),
                format!("a workflow has exactly one task; got {}", self.tasks.len()),
            ));
        };
        task.check(&format!("{at}/tasks/0"), limits)?;
        retention::check(&format!("{at}/retention"), self.retention.map(|span| span.0))?;
        if self.events.len() > 100 {
            return Err(Error::field(
                format!("{at}/events"),
                format!("at most 100 event patterns are allowed; got {}", self.events.len()),
            ));
        }
        self.patterns(at, limits).map(drop)
    }

    /// Checks the input schema. May take a second.
    pub fn check_schema(&self, at: &str) -> Result<()> {
        let validate = |schema| InputSchema::validate(&format!("{at}/input_schema"), schema);
        self.input_schema.as_ref().map_or(Ok(()), validate)
    }

    /// Its event patterns, compiled.
    pub fn patterns(&self, at: &str, limits: &Limits) -> Result<Vec<Pattern>> {
        let parse = |(i, text): (usize, &String)| Pattern::parse(&format!("{at}/events/{i}"), text, limits);
        self.events.iter().enumerate().map(parse).collect()
    }

    /// The one text of this definition: registrations with equal text are the same version.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The compiled form, without the input schema, which only triggers need; `None` for a definition that
    /// [`WorkflowDefinition::check`] refuses.
    pub fn compile(&self, workflow: &str, version: i32) -> Option<Spec> {
        let task = self.tasks.first()?;
        let (slot_kind, slot_cost) = match task.slots.as_ref().and_then(|s| s.first_key_value()) {
            Some((kind, cost)) => (kind.as_str(), *cost),
            None => (DEFAULT_SLOT_KIND, 1),
        };
        Some(Spec {
            workflow: workflow.into(),
            version,
            action: task.action.as_deref().unwrap_or(&task.name).into(),
            slot_kind: slot_kind.into(),
            slot_cost,
            execution_timeout: task.execution_timeout.map_or(DEFAULT_EXECUTION_TIMEOUT, |s| s.0),
            schedule_timeout: task.schedule_timeout.map(|s| s.0),
            labels: Requirements::of_task(&task.labels),
            retry: task.retries.as_ref().map_or_else(RetryPolicy::none, Retries::compile),
            priority: task.priority.and_then(Priority::new).unwrap_or(Priority::DEFAULT),
            input_schema: None,
        })
    }
}

impl TaskDefinition {
    fn check(&self, at: &str, limits: &Limits) -> Result<()> {
        name::check_new(&format!("{at}/name"), &self.name, limits)?;
        if let Some(action) = &self.action {
            name::check_new(&format!("{at}/action"), action, limits)?;
        }
        for (field, span) in
            [("execution_timeout", self.execution_timeout), ("schedule_timeout", self.schedule_timeout)]
        {
            if span.is_some_and(|s| s.0 < Duration::from_millis(1)) {
                return Err(Error::field(format!("{at}/{field}"), "a timeout is at least 1ms"));
            }
        }
        if let Some(priority) = self.priority
            && Priority::new(priority).is_none()
        {
            return Err(Error::field(format!("{at}/priority"), format!("a priority is 1 to 4; got {priority}")));
        }
        if let Some(slots) = &self.slots {
            let one = slots.len() == 1 && slots.values().all(|n| (1..=limits.slots).contains(n));
            if !one {
                return Err(Error::field(
                    format!("{at}/slots"),
                    format!(
                        "expected one kind of slot with a cost of 1 to {}, such as {{\"default\": 1}}",
                        limits.slots
                    ),
                ));
            }
            for kind in slots.keys() {
                name::check(&format!("{at}/slots"), kind, limits)?;
            }
        }
        labels::check(&format!("{at}/labels"), &self.labels, limits)?;
        self.retries.as_ref().map_or(Ok(()), |r| r.check(&format!("{at}/retries"), limits))
    }
}

#[cfg(test)]
mod tests;
