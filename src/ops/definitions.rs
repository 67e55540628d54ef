//! Registered workflows: written one at a time a tenant, read from memory on the hot path.

mod catalog;
mod checks;
mod compiled;
mod find;
mod write;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use helve_domain::clock::Clock;
use helve_domain::definition::{Spec, WorkflowDefinition};
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::TenantId;
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::schema::Input;
use helve_supervisor::Supervisor;
use tokio::sync::{Mutex, MutexGuard};

use crate::db::page::Page;
use crate::db::workflows::{self, Version, Workflow};
use crate::db::{Pool, TenantPools};
use catalog::{Catalog, Versions};
use checks::{Checks, Stop};
use compiled::Compiled;

/// How long a caller waits for its tenant's turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Writes of different tenants that may run at once, and the parts that tenants are spread over.
const STRIPES: usize = 64;

/// Every tenant's workflows. Clones share one memory.
#[derive(Clone)]
pub struct Definitions(Arc<Shared>);

struct Shared {
    pool: Pool,
    /// For lists, which only tenants ask for.
    reads: TenantPools,
    clock: Clock,
    limits: Arc<Limits>,
    supervisor: Supervisor,
    catalogs: RwLock<HashMap<TenantId, Catalog>>,
    /// Counts what was forgotten: a catalog that was read before is not kept.
    forgotten: AtomicU64,
    versions: RwLock<Versions>,
    checks: Checks,
    compiled: Compiled,
    /// Whoever fills or changes a tenant's catalog holds its stripe from the statement to the memory: what is in
    /// memory then follows the order of the commits.
    stripes: [Mutex<()>; STRIPES],
}

/// What became of a registration.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The workflow as triggers find it now; `None`: it is deleted, and a worker's known version does not bring it
    /// back.
    pub workflow: Option<Arc<Workflow>>,
    /// The version of the registered text.
    pub version: i32,
    /// Whether this text is new.
    pub created: bool,
}

/// What the definitions are made of.
pub struct Parts {
    /// For what a trigger or the scheduler needs: one read of a tenant at a time.
    pub pool: Pool,
    /// For lists, which only tenants ask for.
    pub reads: TenantPools,
    /// The engine's clock.
    pub clock: Clock,
    /// What clients may send.
    pub limits: Arc<Limits>,
    /// Long reads are its tasks.
    pub supervisor: Supervisor,
}

impl Definitions {
    /// An empty memory; a tenant's part is read when it is first needed.
    ///
    /// # Errors
    /// `Internal` when the process can have no more threads.
    pub fn start(parts: Parts) -> Result<Self> {
        let Parts { pool, reads, clock, limits, supervisor } = parts;
        let checks = Checks::start()?;
        Ok(Self(Arc::new(Shared {
            pool,
            reads,
            clock,
            limits,
            supervisor,
            catalogs: RwLock::default(),
            forgotten: AtomicU64::new(0),
            versions: RwLock::default(),
            checks,
            compiled: Compiled::default(),
            stripes: std::array::from_fn(|_| Mutex::new(())),
        })))
    }

    /// The version that a trigger of `name` starts.
    ///
    /// # Errors
    /// `WorkflowNotFound`; `Unavailable` when the tenant's workflows cannot be read.
    pub async fn current(&self, tenant: TenantId, name: &str) -> Result<Arc<Spec>> {
        let found = self.0.named(tenant, name, |catalog| catalog.spec(name)).await?;
        found.ok_or_else(|| not_found(name))
    }

    /// Checks the input of a run, which stands at the JSON pointer `at` of the request. Without a schema it is free; a
    /// check that may be long is done elsewhere, in the tenant's turn.
    ///
    /// # Errors
    /// `SchemaMismatch`; `Limited` or `Unavailable` when too many long checks wait.
    pub async fn check_input(&self, tenant: TenantId, spec: &Spec, at: &str, input: &Payload) -> Result<()> {
        let Some(schema) = &spec.input_schema else { return Ok(()) };
        if let Some(checked) = schema.check_quickly(Input { at, workflow: &spec.workflow, payload: input }) {
            return checked;
        }
        let (shared, schema) = (Arc::clone(&self.0), Arc::clone(schema));
        let (at, workflow, input) = (at.to_owned(), Arc::clone(&spec.workflow), input.clone());
        let check = move |stop: &Stop| {
            let fresh = schema.compiled_bytes().is_none();
            let checked = schema.check(Input { at: &at, workflow: &workflow, payload: &input }, stop);
            if fresh {
                shared.compiled.note(tenant, &schema);
            }
            checked
        };
        self.0.checks.run(tenant, check).await?
    }

    /// The current versions of the workflows whose event patterns match `key`, by name.
    ///
    /// # Errors
    /// `Unavailable` when the tenant's workflows cannot be read.
    pub async fn matching(&self, tenant: TenantId, key: &str) -> Result<Vec<Arc<Spec>>> {
        self.0.matching(tenant, key).await
    }

    /// Those of these actions that no workflow of the tenant has.
    ///
    /// # Errors
    /// As [`Definitions::current`].
    pub async fn without_workflow(&self, tenant: TenantId, actions: &[Arc<str>]) -> Result<Vec<Arc<str>>> {
        self.0.without_workflow(tenant, actions).await
    }

    /// The workflow as a trigger finds it.
    ///
    /// # Errors
    /// `WorkflowNotFound`; `Unavailable`.
    pub async fn get(&self, tenant: TenantId, name: &str) -> Result<Arc<Workflow>> {
        let found = self.0.named(tenant, name, |catalog| catalog.workflow(name)).await?;
        found.ok_or_else(|| not_found(name))
    }

    /// A version that a run keeps, also of a deleted workflow.
    ///
    /// # Errors
    /// `WorkflowNotFound` when there never was such a version; `Unavailable`.
    pub async fn version(&self, tenant: TenantId, name: &str, version: i32) -> Result<Arc<Spec>> {
        if let Some(spec) = self.0.known_version(tenant, name, version) {
            return Ok(spec);
        }
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        // The scheduler asks for versions too, and its thread has other things to do.
        let read = async move {
            let row =
                workflows::version(&shared.pool, tenant, &name, version).await?.ok_or_else(|| not_found(&name))?;
            let spec = Arc::new(catalog::compile(&name, version, &row.definition)?);
            shared.keep_version(tenant, &spec);
            Ok(spec)
        };
        self.0.supervisor.shared(read).await
    }

    /// At most `limit` workflows whose name comes after `after`, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list(&self, tenant: TenantId, after: Option<&str>, limit: usize) -> Result<Page<Workflow>> {
        let asked = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        Ok(Page::cut(workflows::list(&self.0.reads.of(tenant), tenant, after.unwrap_or(""), asked).await?, limit))
    }

    /// At most `limit` versions of a workflow with a number below `before`, newest first.
    ///
    /// # Errors
    /// `WorkflowNotFound`; `Unavailable`.
    pub async fn versions(
        &self,
        tenant: TenantId,
        name: &str,
        before: Option<i32>,
        limit: usize,
    ) -> Result<Page<Version>> {
        self.get(tenant, name).await?;
        let asked = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let before = before.unwrap_or(i32::MAX);
        Ok(Page::cut(workflows::versions(&self.0.reads.of(tenant), tenant, name, before, asked).await?, limit))
    }

    /// Makes `definition` the current version of `name`. The same text as the current one changes nothing; one known
    /// from earlier becomes current again under its old number. `at` is the JSON pointer of the definition in the request,
    /// for errors.
    ///
    /// # Errors
    /// `InvalidField`; `Unavailable`; `OutcomeUnknown` when the database was lost meanwhile. Safe to repeat.
    pub async fn put(
        &self,
        tenant: TenantId,
        at: &str,
        name: &str,
        definition: WorkflowDefinition,
    ) -> Result<Registered> {
        self.write(tenant, at, name, definition, true).await
    }

    /// Registers what a worker brings: a new text becomes current, a known one changes nothing. `at` is as in
    /// [`Definitions::put`].
    ///
    /// # Errors
    /// As [`Definitions::put`].
    pub async fn register(
        &self,
        tenant: TenantId,
        at: &str,
        name: &str,
        definition: WorkflowDefinition,
    ) -> Result<Registered> {
        self.write(tenant, at, name, definition, false).await
    }

    /// Deletes a workflow. Its versions stay for its runs in the history; a later `put` goes on counting.
    ///
    /// # Errors
    /// `WorkflowNotFound`; `InUse` while a run of it is open; `Unavailable`; `OutcomeUnknown`.
    pub async fn delete(&self, tenant: TenantId, name: &str) -> Result<()> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        self.0.finish("workflow.delete", async move { write::delete(&shared, tenant, &name).await }).await
    }

    /// The tenant's workflows have changed elsewhere: the next look reads them again.
    pub fn forget(&self, tenant: TenantId) {
        self.0.forget(tenant);
    }

    /// As [`Definitions::forget`], for every tenant.
    pub fn forget_all(&self) {
        let mut catalogs = self.0.catalogs.write().unwrap_or_else(PoisonError::into_inner);
        self.0.forgotten.fetch_add(1, Ordering::AcqRel);
        catalogs.clear();
    }

    async fn write(
        &self,
        tenant: TenantId,
        at: &str,
        name: &str,
        definition: WorkflowDefinition,
        known_becomes_current: bool,
    ) -> Result<Registered> {
        helve_domain::name::check_new(&format!("{at}/name"), name, &self.0.limits)?;
        definition.check(at, &self.0.limits)?;
        let definition = self.0.checked(tenant, at, definition).await?;
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let write = write::Write { tenant, name, definition, known_becomes_current };
        self.0.finish("workflow.put", async move { write.run(&shared).await }).await
    }
}

impl Shared {
    /// The tenant's turn. When the database hangs, those who wait for it are told so instead of queueing up.
    async fn stripe(&self, tenant: TenantId) -> Result<MutexGuard<'_, ()>> {
        let stripe = &self.stripes[usize::try_from(tenant.shard()).unwrap_or(0) % STRIPES];
        let late = || Error::unavailable("this tenant's workflows are being read or changed for too long");
        tokio::time::timeout(PATIENCE, stripe.lock()).await.map_err(|_| late())
    }

    /// A definition whose input schema, if it has one, is good.
    async fn checked(&self, tenant: TenantId, at: &str, definition: WorkflowDefinition) -> Result<WorkflowDefinition> {
        if definition.input_schema.is_none() {
            return Ok(definition);
        }
        let at = at.to_owned();
        self.checks.run(tenant, move |_| definition.check_schema(&at).map(|()| definition)).await?
    }

    fn change(&self, tenant: TenantId, change: impl FnOnce(&mut Catalog)) {
        let mut catalogs = self.catalogs.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(catalog) = catalogs.get_mut(&tenant) {
            change(catalog);
        }
    }

    fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    /// The next look reads the tenant's catalog again.
    fn forget(&self, tenant: TenantId) {
        let mut catalogs = self.catalogs.write().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        catalogs.remove(&tenant);
    }

    fn known_version(&self, tenant: TenantId, name: &str, version: i32) -> Option<Arc<Spec>> {
        self.versions.read().unwrap_or_else(PoisonError::into_inner).get(tenant, name, version)
    }

    fn keep_version(&self, tenant: TenantId, spec: &Arc<Spec>) {
        self.versions.write().unwrap_or_else(PoisonError::into_inner).keep(tenant, spec);
    }

    /// Runs a write to its end also when its caller goes away: the memory must follow what was committed.
    async fn finish<T: Send + 'static>(
        &self,
        name: &'static str,
        write: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.supervisor.spawn(name, async move {
            // Nobody may be left to hear the answer.
            let _ = reply.send(write.await);
        });
        answer.await.map_err(|_| Error::Internal("a write of a definition panicked".to_owned()))?
    }
}

fn not_found(name: &str) -> Error {
    Error::NotFound { code: Code::WorkflowNotFound, what: "workflow", id: name.chars().take(255).collect() }
}
