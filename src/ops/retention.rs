//! How long finished runs are kept: as their workflow, their tenant or the engine says.

use std::time::Duration;

use helve_domain::definition::WorkflowDefinition;
use helve_domain::error::Result;
use helve_domain::id::TenantId;
use helve_domain::json::Payload;
use helve_domain::retention::Kept;

use crate::db::{TenantPools, retention};

/// Says how long a workflow's runs are kept.
#[derive(Clone)]
pub struct Retention {
    reads: TenantPools,
    engine: Duration,
}

/// What a tenant says, for its workflows.
#[derive(Debug, Clone, Copy)]
pub struct OfTenant {
    tenant: Option<Duration>,
    engine: Duration,
}

impl Retention {
    /// `engine`: how long the engine keeps anything.
    pub const fn new(reads: TenantPools, engine: Duration) -> Self {
        Self { reads, engine }
    }

    /// What holds for the tenant's workflows.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn of(&self, tenant: TenantId) -> Result<OfTenant> {
        Ok(OfTenant { tenant: retention::of_tenant(&self.reads.of(tenant), tenant).await?, engine: self.engine })
    }
}

impl OfTenant {
    /// How long the runs of a workflow with this definition are kept.
    pub fn workflow(&self, definition: &Payload) -> Kept {
        Kept::of(of_definition(definition), self.tenant, self.engine)
    }
}

/// What a stored definition says.
pub(crate) fn of_definition(definition: &Payload) -> Option<Duration> {
    let definition: WorkflowDefinition = serde_json::from_slice(definition.bytes()).ok()?;
    definition.retention.map(|span| span.0)
}
