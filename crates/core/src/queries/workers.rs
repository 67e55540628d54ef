//! A worker as the owner's memory shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::WorkerInfo;
use helve_domain::pause::{Pause, Target};

use crate::state::Shard;

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

impl Shard {
    /// The tenant's sessions with what they hold, for `GET /v1/workers`.
    pub fn workers(&self, tenant: helve_domain::id::TenantId) -> Vec<crate::WorkerState> {
        let mut workers: Vec<_> = self
            .sessions
            .values()
            .filter(|s| s.tenant == tenant && s.ready)
            .map(|s| crate::WorkerState {
                id: s.worker,
                info: s.info.clone(),
                used: s.used.clone(),
                connected: s.transport.is_some(),
                draining: s.draining,
                lost_at: s.lost_at,
                pause: self.pauses.get(tenant, &Target::Worker(s.worker)).map(Arc::clone),
            })
            .collect();
        workers.sort_unstable_by_key(|w| w.id);
        workers
    }
}
