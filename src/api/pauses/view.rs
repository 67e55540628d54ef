//! A pause as the interface shows it.

use helve_domain::clock::Timestamp;
use helve_domain::id::TokenId;
use helve_domain::pause::{Pause, Paused, Target};
use serde::Serialize;
use utoipa::ToSchema;

/// Whose token it was.
#[derive(Debug, Serialize, ToSchema)]
pub struct PausedBy {
    /// Its id.
    token: TokenId,
    /// What it was called then.
    name: String,
}

/// A workflow, an action or a worker of which nothing starts, or only gently.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pause)]
pub struct PauseView {
    /// What kind of thing it is: `workflow`, `action` or `worker`.
    kind: &'static str,
    /// Its name, or the worker's id.
    name: String,
    /// `paused`: nothing starts; `resuming`: the backlog goes at `rate`.
    state: &'static str,
    /// As given.
    reason: String,
    /// Who paused it last.
    by: PausedBy,
    /// Since when it is paused.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// When it ends by itself.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Starts per second while it is resuming.
    #[schema(required)]
    rate: Option<f64>,
    /// Since when it is resuming.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    resumed_at: Option<Timestamp>,
}

/// What a resume did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resumed)]
pub struct ResumedView<'a> {
    /// What kind of thing it is: `workflow`, `action` or `worker`.
    kind: &'a str,
    /// Its name, or the worker's id.
    name: &'a str,
    /// `open`: everything starts as usual; `resuming`: the backlog goes at `rate`.
    state: &'static str,
    /// Starts per second while it is resuming.
    #[schema(required)]
    rate: Option<f64>,
}

impl PauseView {
    /// Shows a pause.
    pub fn of(paused: &Paused) -> Self {
        Self::new(&paused.target, &paused.pause)
    }

    /// Shows a pause of this target.
    pub fn new(target: &Target, pause: &Pause) -> Self {
        let resumed = pause.resumed.as_ref();
        Self {
            kind: target.kind(),
            name: target.name(),
            state: if resumed.is_some() { "resuming" } else { "paused" },
            reason: pause.reason.to_string(),
            by: PausedBy { token: pause.by, name: pause.by_name.to_string() },
            since: pause.since,
            expires_at: pause.expires_at,
            rate: resumed.map(|r| r.rate),
            resumed_at: resumed.map(|r| r.at),
        }
    }
}

impl<'a> ResumedView<'a> {
    /// Shows what is left of a pause.
    pub fn of(kind: &'a str, name: &'a str, left: Option<&Paused>) -> Self {
        let rate = left.and_then(|paused| paused.pause.resumed.as_ref()).map(|r| r.rate);
        Self { kind, name, state: if rate.is_some() { "resuming" } else { "open" }, rate }
    }
}
