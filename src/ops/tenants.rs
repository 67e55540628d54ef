//! Creating and finding tenants.

use std::time::Duration;

use helve_domain::clock::Clock;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::TenantId;
use helve_domain::limits::Limits;
use helve_domain::{name, retention};

use crate::db::{Pool, tenants};

pub use crate::db::tenants::Tenant;

/// Creates a tenant.
///
/// # Errors
/// `InvalidField` for a name that is not allowed, a conflict with the existing id when it is taken.
pub async fn create(pool: &Pool, clock: &Clock, name: &str) -> Result<Tenant> {
    name::check("/name", name, &Limits::default())?;
    let now = clock.now();
    if let Some(tenant) = tenants::insert(pool, TenantId::generate(now), name, now).await? {
        return Ok(tenant);
    }
    let existing = find(pool, name).await?.map(|tenant| tenant.id.to_string());
    Err(Error::Conflict { code: Code::InUse, message: format!("there is a tenant called `{name}` already"), existing })
}

/// Every tenant, by name.
///
/// # Errors
/// `Unavailable`.
pub async fn list(pool: &Pool) -> Result<Vec<Tenant>> {
    tenants::list(pool, None).await
}

/// The tenant called `name`, if there is one.
///
/// # Errors
/// `Unavailable`.
pub async fn find(pool: &Pool, name: &str) -> Result<Option<Tenant>> {
    Ok(tenants::list(pool, Some(name)).await?.pop())
}

/// The tenant called `name`, created if there is none.
///
/// # Errors
/// As [`create`], without the conflict.
pub async fn ensure(pool: &Pool, clock: &Clock, name: &str) -> Result<Tenant> {
    if let Some(tenant) = find(pool, name).await? {
        return Ok(tenant);
    }
    match create(pool, clock, name).await {
        // Somebody else was faster.
        Err(Error::Conflict { .. }) => find(pool, name).await?.ok_or_else(|| Error::not_found("tenant", name)),
        other => other,
    }
}

/// Sets how long the finished runs of the tenant called `name` are kept where a workflow says nothing else. `None`: as
/// long as the engine keeps anything.
///
/// # Errors
/// `InvalidField`; `NotFound`; `Unavailable`; `OutcomeUnknown`. Safe to repeat.
pub async fn keep(pool: &Pool, name: &str, keep: Option<Duration>) -> Result<()> {
    retention::check("/retention", keep)?;
    match crate::db::retention::set(pool, name, keep).await? {
        Some(_) => Ok(()),
        None => Err(Error::not_found("tenant", name)),
    }
}
