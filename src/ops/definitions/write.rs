//! Changing a tenant's workflows: the database first, then the memory, one change at a time.

use std::sync::Arc;

use helve_domain::definition::WorkflowDefinition;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::TenantId;
use sha2::{Digest, Sha256};

use super::catalog::Entry;
use super::{Registered, Shared, not_found};
use crate::db::workflows::{self, Deleted, Registration};

/// How often a registration is sent again: its answer was lost, or another engine was faster.
const ATTEMPTS: u32 = 4;

/// A definition to register, checked.
pub(super) struct Write {
    pub(super) tenant: TenantId,
    pub(super) name: String,
    pub(super) definition: WorkflowDefinition,
    pub(super) known_becomes_current: bool,
}

impl Write {
    pub(super) async fn run(self, shared: &Shared) -> Result<Registered> {
        let text = self.definition.canonical();
        let checksum: [u8; 32] = Sha256::digest(&text).into();
        if let Some(same) = self.unchanged(shared, checksum).await? {
            return Ok(same);
        }
        let _stripe = shared.stripe(self.tenant).await?;
        let registration = Registration {
            tenant: self.tenant,
            name: self.name.clone(),
            checksum,
            definition: text,
            known_becomes_current: self.known_becomes_current,
        };
        let registered = put(shared, &registration).await?;
        let row = workflows::current(&shared.pool, self.tenant, Some(&self.name)).await;
        let row = row.inspect_err(|_| shared.forget(self.tenant))?.pop();
        let workflow = row.map(|row| self.apply(shared, row)).transpose()?;
        if registered.moved {
            tracing::info!(workflow = self.name, workflow.version = registered.version, "a workflow has changed");
        }
        Ok(Registered { workflow, version: registered.version, created: registered.created })
    }

    /// A worker that comes back, and a client that registers at every start, mostly bring what is current.
    async fn unchanged(&self, shared: &Shared, checksum: [u8; 32]) -> Result<Option<Registered>> {
        let current = shared.named(self.tenant, &self.name, |catalog| catalog.workflow(&self.name)).await?;
        let same = current.filter(|workflow| workflow.checksum == checksum);
        Ok(same.map(|workflow| Registered { version: workflow.version, workflow: Some(workflow), created: false }))
    }

    fn apply(&self, shared: &Shared, row: workflows::Workflow) -> Result<Arc<workflows::Workflow>> {
        let entry = Entry::of(row, &shared.limits)?;
        let workflow = Arc::clone(entry.workflow());
        shared.keep_version(self.tenant, entry.spec());
        shared.change(self.tenant, |catalog| catalog.insert(entry));
        Ok(workflow)
    }
}

/// Sends the registration until its outcome is known. It is one statement that may run twice: a second one waits for
/// the locks of a first that still runs, and then finds its work done.
async fn put(shared: &Shared, registration: &Registration) -> Result<workflows::Registered> {
    let mut lost = None;
    for _ in 0..ATTEMPTS {
        match workflows::put(&shared.pool, registration, shared.clock.now()).await {
            Ok(Some(registered)) => return Ok(registered),
            Ok(None) => {}
            Err(e) if e.code() == Code::OutcomeUnknown => lost = Some(e),
            Err(e) => {
                shared.forget(registration.tenant);
                // What came before this attempt may have been written.
                return Err(lost.unwrap_or(e));
            }
        }
    }
    shared.forget(registration.tenant);
    Err(lost.unwrap_or_else(|| Error::unavailable("another engine registers versions of this workflow just now")))
}

/// Takes the workflow from the memory first, so that no new trigger gets through, then looks for open runs.
///
/// A trigger that took the version before may still be on its way to its commit. Its run is then created of a deleted
/// workflow and executes normally: versions are never deleted.
pub(super) async fn delete(shared: &Shared, tenant: TenantId, name: &str) -> Result<()> {
    if shared.named(tenant, name, |catalog| catalog.spec(name)).await?.is_none() {
        return Err(not_found(name));
    }
    let _stripe = shared.stripe(tenant).await?;
    shared.change(tenant, |catalog| catalog.set_leaving(name, true));
    match workflows::delete(&shared.pool, tenant, name, shared.clock.now()).await {
        Ok(Deleted::Yes) => {
            shared.change(tenant, |catalog| catalog.remove(name));
            tracing::info!(workflow = name, "a workflow was deleted");
            Ok(())
        }
        Ok(Deleted::NotFound) => {
            shared.change(tenant, |catalog| catalog.remove(name));
            Err(not_found(name))
        }
        Ok(Deleted::InUse(run)) => {
            shared.change(tenant, |catalog| catalog.set_leaving(name, false));
            Err(Error::Conflict {
                code: Code::InUse,
                message: format!("runs of `{name}` are open, such as {run}: wait for them or cancel them first"),
                existing: Some(run.to_string()),
            })
        }
        Err(e) => {
            // Whether it is deleted is for the database to say.
            shared.forget(tenant);
            Err(e)
        }
    }
}
