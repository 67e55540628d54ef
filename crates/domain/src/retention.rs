//! How long finished runs are kept: the workflow's word, else the tenant's, else the engine's.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::duration;
use crate::error::{Error, Result};
use crate::limits::MAX_DURATION;

/// The shortest time: whoever waits for a run must be able to read it.
pub const SHORTEST: Duration = Duration::from_secs(60);

/// Who says how long a run is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptBy {
    /// The workflow's definition.
    Workflow,
    /// The tenant's default.
    Tenant,
    /// The engine, which keeps nothing longer.
    Engine,
}

/// How long finished runs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = WorkflowRetention)]
pub struct Kept {
    /// At least this long after their end.
    #[serde(serialize_with = "duration::as_text")]
    #[schema(value_type = String)]
    pub keep: Duration,
    /// Who says so.
    pub by: KeptBy,
}

impl Kept {
    /// What holds: an engine that keeps less goes before everybody.
    pub fn of(workflow: Option<Duration>, tenant: Option<Duration>, engine: Duration) -> Self {
        let said = workflow.map(|keep| Self { keep, by: KeptBy::Workflow });
        let said = said.or_else(|| tenant.map(|keep| Self { keep, by: KeptBy::Tenant }));
        said.filter(|kept| kept.keep < engine).unwrap_or(Self { keep: engine, by: KeptBy::Engine })
    }
}

/// Checks a retention that somebody may give.
///
/// # Errors
/// `InvalidField`.
pub fn check(at: &str, keep: Option<Duration>) -> Result<()> {
    let Some(keep) = keep else { return Ok(()) };
    if (SHORTEST..=MAX_DURATION).contains(&keep) {
        return Ok(());
    }
    let (shortest, longest) = (duration::format(SHORTEST), duration::format(MAX_DURATION));
    Err(Error::field(at, format!("a retention is {shortest} to {longest}; got {}", duration::format(keep))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_holds_within_what_the_engine_keeps() {
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        let kept = |workflow: Option<u64>, tenant: Option<u64>| {
            let kept = Kept::of(workflow.map(hours), tenant.map(hours), hours(24));
            (kept.keep, kept.by)
        };
        assert_eq!(kept(None, None), (hours(24), KeptBy::Engine));
        assert_eq!(kept(None, Some(5)), (hours(5), KeptBy::Tenant));
        assert_eq!(kept(Some(7), Some(5)), (hours(7), KeptBy::Workflow));
        assert_eq!(kept(Some(2), None), (hours(2), KeptBy::Workflow));
        // Longer than the engine's: nobody can keep what it drops.
        assert_eq!(kept(Some(48), Some(5)), (hours(24), KeptBy::Engine));
        assert_eq!(kept(None, Some(48)), (hours(24), KeptBy::Engine));
    }

    #[test]
    fn what_nobody_can_mean_is_refused() {
        assert!(check("/retention", Some(Duration::from_secs(60))).is_ok());
        let error = check("/retention", Some(Duration::from_secs(59))).unwrap_err().to_string();
        assert!(error.contains("1m to 366d; got 59s"), "{error}");
        assert!(check("/retention", Some(MAX_DURATION + Duration::from_secs(1))).is_err());
    }
}
