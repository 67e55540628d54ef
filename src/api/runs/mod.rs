//! Runs: trigger, bulk, get, list, logs, cancel, replay, unpark.

pub mod bulk;
pub mod cancel;
pub mod create;
pub mod get;
pub mod list;
pub mod logs;
pub mod replay;
pub mod request;
pub mod unpark;
pub(in crate::api) mod view;
mod wait;
pub mod why;

pub use request::header_key;

use super::ApiState;
use crate::db;
use crate::domain::run::Run;
use crate::error::{Error, Result};
use crate::id::{RunId, TenantId};

/// One run of the tenant.
async fn read(state: &ApiState, tenant: TenantId, id: RunId) -> Result<Run> {
    db::runs::get(&state.pool, tenant, id).await?.ok_or_else(|| Error::not_found("run", id))
}
