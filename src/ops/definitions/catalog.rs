//! One tenant's workflows in memory: compiled, with their event patterns.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::db::workflows::Workflow;
use crate::domain::definition::{Spec, WorkflowDefinition};
use crate::domain::event::Pattern;
use crate::domain::json::Payload;
use crate::domain::limits::Limits;
use crate::domain::schema::InputSchema;
use crate::error::{Error, Result};
use crate::id::TenantId;

/// Versions that are kept compiled for runs that were loaded from rows.
const MAX_VERSIONS: usize = 50_000;

/// Compiled versions of every tenant, also old ones.
#[derive(Default)]
pub(super) struct Versions {
    /// By name under the rest of the key, so that a look needs no copy of the name.
    specs: HashMap<(TenantId, i32), HashMap<Arc<str>, Arc<Spec>>>,
    count: usize,
}

impl Versions {
    pub(super) fn get(&self, tenant: TenantId, name: &str, version: i32) -> Option<Arc<Spec>> {
        self.specs.get(&(tenant, version))?.get(name).cloned()
    }

    pub(super) fn keep(&mut self, tenant: TenantId, spec: &Arc<Spec>) {
        if self.count >= MAX_VERSIONS {
            // Rare, and each is one read to get back.
            *self = Self::default();
        }
        let by_name = self.specs.entry((tenant, spec.version)).or_default();
        let before = by_name.insert(Arc::clone(&spec.workflow), Arc::clone(spec));
        self.count += usize::from(before.is_none());
    }
}

/// Every workflow of a tenant that is not deleted.
pub(super) struct Catalog {
    entries: HashMap<Arc<str>, Entry>,
    /// When it was read from the database.
    pub(super) read_at: Timestamp,
}

pub(super) struct Entry {
    workflow: Arc<Workflow>,
    spec: Arc<Spec>,
    patterns: Vec<Pattern>,
    /// A deletion is under way: no trigger may get through.
    leaving: bool,
}

impl Entry {
    /// Compiles a row.
    pub(super) fn of(workflow: Workflow, limits: &Limits) -> Result<Self> {
        let definition = read(&workflow.name, &workflow.definition)?;
        let mut spec = compile(&workflow.name, workflow.version, &workflow.definition)?;
        // Old versions, which no trigger starts, do without.
        spec.input_schema = definition.input_schema.as_ref().map(|schema| Arc::new(InputSchema::stored(schema)));
        Ok(Self {
            spec: Arc::new(spec),
            patterns: definition.patterns("", limits)?,
            workflow: Arc::new(workflow),
            leaving: false,
        })
    }

    pub(super) fn spec(&self) -> &Arc<Spec> {
        &self.spec
    }

    pub(super) fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }
}

fn read(name: &str, definition: &Payload) -> Result<WorkflowDefinition> {
    serde_json::from_slice(definition.bytes())
        .map_err(|e| Error::Internal(format!("the stored definition of `{name}` cannot be read: {e}")))
}

/// The compiled form of a stored version.
pub(super) fn compile(name: &str, version: i32, definition: &Payload) -> Result<Spec> {
    read(name, definition)?
        .compile(name, version)
        .ok_or_else(|| Error::Internal(format!("version {version} of `{name}` has no task")))
}

impl Catalog {
    /// The catalog of these rows.
    pub(super) fn of(rows: Vec<Workflow>, read_at: Timestamp, limits: &Limits) -> Result<Self> {
        let mut catalog = Self { entries: HashMap::with_capacity(rows.len()), read_at };
        for row in rows {
            catalog.insert(Entry::of(row, limits)?);
        }
        Ok(catalog)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.entries.insert(Arc::clone(&entry.spec.workflow), entry);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.entries.remove(name);
    }

    pub(super) fn set_leaving(&mut self, name: &str, leaving: bool) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.leaving = leaving;
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name).filter(|entry| !entry.leaving)
    }

    pub(super) fn spec(&self, name: &str) -> Option<Arc<Spec>> {
        self.entry(name).map(|entry| Arc::clone(&entry.spec))
    }

    pub(super) fn workflow(&self, name: &str) -> Option<Arc<Workflow>> {
        self.entry(name).map(|entry| Arc::clone(&entry.workflow))
    }

    /// Workflows with a pattern that matches, by name.
    pub(super) fn matching(&self, key: &str) -> Vec<Arc<Spec>> {
        let hit = |entry: &&Entry| !entry.leaving && entry.patterns.iter().any(|p| p.matches(key));
        let mut specs: Vec<_> = self.entries.values().filter(hit).map(|entry| Arc::clone(&entry.spec)).collect();
        specs.sort_unstable_by(|a, b| a.workflow.cmp(&b.workflow));
        specs
    }
}
