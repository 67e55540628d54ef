//! How events are shown.

use helve_domain::clock::Timestamp;
use helve_domain::error::Error;
use helve_domain::id::{EventId, RunId};
use helve_domain::json::Payload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::db::events::Event;

/// An event that was taken in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IngestedEvent)]
pub struct EventView<'a> {
    /// Its id.
    id: EventId,
    /// What happened.
    key: &'a str,
    /// As given.
    payload: &'a Payload,
    /// As given.
    #[schema(value_type = HashMap<String, String>)]
    metadata: &'a Payload,
    /// Where it comes from.
    #[schema(required)]
    source: Option<&'a str>,
    /// Its id there.
    #[schema(required)]
    source_id: Option<&'a str>,
    /// The runs that it started.
    runs: &'a [RunId],
    /// Workflows that match, and that it did not start because the payload does not fit their input schema.
    #[schema(value_type = Vec<SkippedWorkflow>)]
    skipped: Payload,
    /// The event that it repeats.
    #[schema(required)]
    replay_of: Option<EventId>,
    /// When it was taken in.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// True: its source had sent it before, and this is the event of then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    deduplicated: bool,
}

/// A workflow that an event matches and did not start.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SkippedWorkflow {
    /// Its name.
    workflow: String,
    /// Its version at that time.
    version: i32,
    /// Why: `schema_mismatch`.
    code: String,
    /// JSON pointer of what does not fit, from the event.
    pointer: String,
    /// What was expected there.
    detail: String,
}

impl SkippedWorkflow {
    /// Why this workflow was not started.
    pub fn of(workflow: &str, version: i32, error: &Error) -> Self {
        Self {
            workflow: workflow.to_owned(),
            version,
            code: error.code().as_str().to_owned(),
            pointer: error.pointer().unwrap_or_default().to_owned(),
            detail: error.client_text(),
        }
    }
}

/// A page of events, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventList)]
pub struct EventListView<'a> {
    /// The events. A page of large payloads ends before its limit.
    pub items: Vec<EventView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

impl<'a> EventView<'a> {
    /// The view of an event.
    pub fn of(event: &'a Event, deduplicated: bool) -> Self {
        Self {
            id: event.id,
            key: &event.key,
            payload: &event.payload,
            metadata: &event.metadata,
            source: event.source.as_ref().map(|(source, _)| source.as_str()),
            source_id: event.source.as_ref().map(|(_, id)| id.as_str()),
            runs: &event.runs,
            skipped: event.skipped.clone().unwrap_or_else(Payload::empty_list),
            replay_of: event.replay_of,
            created_at: event.id.created_at(),
            deduplicated,
        }
    }
}
