//! The two lanes: what waits for one, what a batch becomes in a statement, and who writes it.

pub(super) mod aside;
pub(super) mod batch;
pub(super) mod rows;
pub(super) mod slot;
pub(super) mod writer;
