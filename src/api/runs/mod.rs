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

use helve_domain::error::{Error, Result};
use helve_domain::id::{RunId, TenantId};
use helve_domain::run::{Losses, Run};

use super::ApiState;
use crate::db;

/// One run of the tenant.
async fn read(state: &ApiState, tenant: TenantId, id: RunId) -> Result<Run> {
    db::runs::get(&state.reads.of(tenant), tenant, id).await?.ok_or_else(|| Error::not_found("run", id))
}

/// How a run lost its workers. A run that cannot have is not looked for.
async fn losses(state: &ApiState, run: &Run) -> Result<Option<Losses>> {
    if !run.may_have_lost_a_worker() {
        return Ok(None);
    }
    db::live::losses(&state.reads.of(run.tenant), run.tenant, run.id).await
}

/// As [`read`], of a run that this request has just changed.
async fn read_changed(state: &ApiState, tenant: TenantId, id: RunId) -> Result<Run> {
    read(state, tenant, id).await.map_err(after_change)
}

/// That the database cannot be reached, or not in time, means that nothing was done, which is not so after a change.
fn after_change(error: Error) -> Error {
    match error {
        Error::Unavailable { .. } | Error::Limited { .. } => Error::OutcomeUnknown,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::error::Code;

    use super::*;

    #[test]
    fn after_a_change_nobody_is_told_that_nothing_was_done() {
        assert_eq!(after_change(Error::unavailable("the database cannot be reached")).code(), Code::OutcomeUnknown);
        let limited = Error::Limited { message: "too much".to_owned(), retry_after: std::time::Duration::ZERO };
        assert_eq!(after_change(limited).code(), Code::OutcomeUnknown);
        assert_eq!(after_change(Error::not_found("run", "run_1")).code(), Code::NotFound);
    }
}
