//! A worker as the owner's memory shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::WorkerInfo;
use helve_domain::pause::Pause;

/// A worker as it stands in memory.
#[derive(Debug, Clone)]
pub struct WorkerState {
    /// Its id.
    pub id: helve_domain::id::WorkerId,
    /// How it describes itself.
    pub info: WorkerInfo,
    /// Slots in use, by kind.
    pub used: BTreeMap<Arc<str>, u32>,
    /// Whether a socket is open.
    pub connected: bool,
    /// Whether it takes no more work.
    pub draining: bool,
    /// When its socket was lost.
    pub lost_at: Option<Timestamp>,
    /// Its pause, or its gentle start.
    pub pause: Option<Arc<Pause>>,
}
