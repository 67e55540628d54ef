//! What the scheduler counts.

/// Counters of the process since its start.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Stats {
    /// Runs created.
    pub created: u64,
    /// Runs that were created already assigned.
    pub optimistic: u64,
    /// Runs ended.
    pub finished: u64,
    /// Statements of the lanes.
    pub batches: u64,
    /// Statements whose answer was lost.
    pub unknown: u64,
    /// Assignments sent again.
    pub resent: u64,
    /// Attempts taken back.
    pub taken_back: u64,
}
