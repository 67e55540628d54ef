//! One tenant's workflows in memory: compiled, with their event patterns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use helve_domain::clock::Timestamp;
use helve_domain::definition::{Spec, WorkflowDefinition};
use helve_domain::error::{Error, Result};
use helve_domain::event::Pattern;
use helve_domain::id::TenantId;
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::schema::InputSchema;

use crate::db::workflows::Workflow;

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
        // Its runs need no input schema, and there may be thousands of versions.
        let kept = if spec.input_schema.is_some() { Arc::new(spec.without_schema()) } else { Arc::clone(spec) };
        let before = by_name.insert(Arc::clone(&spec.workflow), kept);
        self.count += usize::from(before.is_none());
    }
}

/// Names that a catalog knows to be absent; past that it forgets them all.
const ABSENT: usize = 1_024;
/// Bytes of such a name. Longer ones are hardly asked for twice.
const ABSENT_BYTES: usize = 255;

/// Workflows of a tenant that are not deleted: those that were asked for by name, or all.
#[derive(Default)]
pub(super) struct Catalog {
    entries: HashMap<Arc<str>, Entry>,
    /// When all were read from the database; `None`: some may be missing.
    complete: Option<Timestamp>,
    /// Names that were not there when the database was asked.
    absent: HashMap<String, Timestamp>,
}

pub(super) struct Entry {
    workflow: Arc<Workflow>,
    spec: Arc<Spec>,
    patterns: Vec<Pattern>,
    /// A deletion is under way: no trigger may get through.
    leaving: bool,
    /// Another entry goes on with its spec.
    passed_on: bool,
}

/// The compiled schema of a version that no trigger starts any more goes with it: runs of it keep its spec for long.
impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(schema) = self.spec.input_schema.as_ref().filter(|_| !self.passed_on) {
            schema.forget();
        }
    }
}

impl Entry {
    /// Reads a row. Its input schema is compiled when the first input is checked.
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
            passed_on: false,
        })
    }

    pub(super) fn spec(&self) -> &Arc<Spec> {
        &self.spec
    }

    pub(super) fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    /// Goes on with the spec of an entry before, when it is the same: with what is compiled of it.
    fn succeed(&mut self, before: &mut Self) {
        if (before.workflow.version, &before.workflow.checksum) == (self.workflow.version, &self.workflow.checksum) {
            self.spec = Arc::clone(&before.spec);
            before.passed_on = true;
        }
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
    /// Takes what was read of all the tenant's workflows in place of what was known.
    pub(super) fn replace(&mut self, entries: Vec<Entry>, read_at: Timestamp) {
        let mut before = std::mem::take(&mut self.entries);
        for mut entry in entries {
            if let Some(same) = before.get_mut(&entry.spec.workflow) {
                entry.succeed(same);
            }
            self.entries.insert(Arc::clone(&entry.spec.workflow), entry);
        }
        self.complete = Some(read_at);
        self.absent.clear();
    }

    pub(super) fn insert(&mut self, mut entry: Entry) {
        let name = Arc::clone(&entry.spec.workflow);
        self.absent.remove(&*name);
        if let Some(before) = self.entries.get_mut(&name) {
            entry.succeed(before);
        }
        self.entries.insert(name, entry);
    }

    /// The database was asked for a name, and has no such workflow.
    pub(super) fn note_absent(&mut self, name: &str, at: Timestamp) {
        self.entries.remove(name);
        if self.absent.len() >= ABSENT {
            self.absent.clear();
        }
        if name.len() <= ABSENT_BYTES {
            self.absent.insert(name.to_owned(), at);
        }
    }

    /// Since when a name is known to be absent.
    pub(super) fn absent_since(&self, name: &str) -> Option<Timestamp> {
        let never_read = || self.complete.filter(|_| !self.entries.contains_key(name));
        self.absent.get(name).copied().or_else(never_read)
    }

    /// When all the tenant's workflows were read.
    pub(super) const fn complete_since(&self) -> Option<Timestamp> {
        self.complete
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

    /// Those of these actions that no workflow has.
    pub(super) fn without_workflow(&self, actions: &[Arc<str>]) -> Vec<Arc<str>> {
        let used: HashSet<&str> = self.entries.values().map(|entry| &*entry.spec.action).collect();
        actions.iter().filter(|action| !used.contains(&***action)).cloned().collect()
    }

    /// Workflows with a pattern that matches, by name.
    pub(super) fn matching(&self, key: &str) -> Vec<Arc<Spec>> {
        let hit = |entry: &&Entry| !entry.leaving && entry.patterns.iter().any(|p| p.matches(key));
        let mut specs: Vec<_> = self.entries.values().filter(hit).map(|entry| Arc::clone(&entry.spec)).collect();
        specs.sort_unstable_by(|a, b| a.workflow.cmp(&b.workflow));
        specs
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use helve_domain::schema::Input;
    use serde_json::json;

    use super::*;

    fn entry(version: i32) -> Entry {
        let definition = json!({"tasks": [{"name": "t"}], "input_schema": {"maxLength": version}});
        let at = Timestamp::from_micros(1);
        let definition = Payload::trusted(Bytes::from(definition.to_string()));
        let checksum = vec![u8::try_from(version).unwrap(); 32];
        let row = Workflow { name: "w".to_owned(), version, created_at: at, updated_at: at, checksum, definition };
        Entry::of(row, &Limits::default()).unwrap()
    }

    fn use_schema(catalog: &Catalog) -> Arc<InputSchema> {
        let schema = catalog.spec("w").unwrap().input_schema.clone().unwrap();
        schema.check(Input { at: "", workflow: "w", payload: &Payload::null() }, &Arc::default()).unwrap();
        schema
    }

    #[test]
    fn only_the_current_version_stays_compiled() {
        let (mut catalog, at) = (Catalog::default(), Timestamp::from_micros(1));
        catalog.insert(entry(1));
        let first = use_schema(&catalog);
        // Runs of the first version hold its spec for as long as they are open.
        catalog.insert(entry(2));
        let second = use_schema(&catalog);
        assert_eq!((first.compiled_bytes(), second.compiled_bytes().is_some()), (None, true));
        // A fresh read of the same version goes on with it.
        catalog.replace(vec![entry(2)], at);
        catalog.insert(entry(2));
        assert!(second.compiled_bytes().is_some());
        assert!(Arc::ptr_eq(catalog.spec("w").unwrap().input_schema.as_ref().unwrap(), &second));
        let mut versions = Versions::default();
        let tenant = TenantId::generate(at);
        versions.keep(tenant, &catalog.spec("w").unwrap());
        assert!(versions.get(tenant, "w", 2).unwrap().input_schema.is_none());
        catalog.replace(Vec::new(), at);
        assert_eq!(second.compiled_bytes(), None);
    }

    #[test]
    fn a_name_is_known_to_be_absent_until_it_is_there() {
        let (mut catalog, [first, second]) = (Catalog::default(), [1, 2].map(Timestamp::from_micros));
        assert_eq!(catalog.absent_since("w"), None);
        catalog.note_absent("w", first);
        assert_eq!((catalog.absent_since("w"), catalog.absent_since("v")), (Some(first), None));
        catalog.replace(vec![entry(1)], second);
        assert_eq!((catalog.absent_since("w"), catalog.absent_since("v")), (None, Some(second)));
        for n in 0..3 * ABSENT {
            catalog.note_absent(&n.to_string(), first);
        }
        assert!(catalog.absent.len() <= ABSENT);
    }
}
