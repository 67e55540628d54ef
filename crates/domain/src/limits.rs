//! Every limit on what a client may send: a default, a reason, and the name that errors use.

use std::time::Duration;

/// Limits of requests and frames. Each can be set by `HELVE_LIMIT_*`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Limits {
    /// Bytes of one input, event payload or output. 1 MiB keeps a batch and a frame small.
    pub payload_bytes: usize,
    /// Bytes of one request body; a bulk of ordinary items fits.
    pub body_bytes: usize,
    /// Bytes of one frame of the worker socket.
    pub frame_bytes: usize,
    /// Bytes of memory that one tenant's requests, results and outboxes may hold; past it its requests are refused.
    pub tenant_bytes: usize,
    /// Items of one bulk request.
    pub bulk_items: usize,
    /// Keys of one metadata object.
    pub metadata_keys: usize,
    /// Bytes of one metadata object.
    pub metadata_bytes: usize,
    /// Bytes of a name, an action, an event key or an idempotency key.
    pub name_bytes: usize,
    /// Nesting of any JSON document.
    pub json_depth: usize,
    /// Runs that one event may start.
    pub event_matches: usize,
    /// Items of one page of a list.
    pub page_items: usize,
    /// The longest `wait` of a trigger.
    #[serde(serialize_with = "crate::duration::as_text")]
    pub wait: Duration,
    /// The longest delay of a run.
    #[serde(serialize_with = "crate::duration::as_text")]
    pub delay: Duration,
    /// Actions that one worker may offer.
    pub actions: usize,
    /// Slots of one kind that one worker may have.
    pub slots: u32,
    /// Labels of one worker.
    pub labels: usize,
    /// Bytes of one log line that are kept.
    pub log_line_bytes: usize,
    /// Log lines of one run that are kept.
    pub log_lines: usize,
    /// Bytes of all log lines of one run that are kept.
    pub log_bytes: usize,
    /// Log lines, and KiB of them, that one worker may send a second over ten seconds.
    pub log_rate: u32,
    /// Bytes of the `data` of one progress.
    pub progress_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: 1 << 20,
            body_bytes: 4 << 20,
            frame_bytes: 4 << 20,
            tenant_bytes: 64 << 20,
            bulk_items: 1_000,
            metadata_keys: 64,
            metadata_bytes: 16 << 10,
            name_bytes: 255,
            json_depth: 128,
            event_matches: 1_000,
            page_items: 1_000,
            wait: Duration::from_secs(60),
            delay: Duration::from_secs(366 * 24 * 3_600),
            actions: 1_000,
            slots: 100_000,
            labels: 64,
            log_line_bytes: 8 << 10,
            log_lines: 10_000,
            log_bytes: 4 << 20,
            log_rate: 1_000,
            progress_bytes: 4 << 10,
        }
    }
}

/// The longest execution or schedule timeout and back-off that a definition may ask for.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3_600);
