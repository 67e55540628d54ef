//! The process stops: its shards go to other engines, or are given up.

use std::time::Duration;

use tracing::warn;

use super::balance::looks_gone;
use super::{Cluster, Leave, PATIENCE};

impl Cluster {
    /// The process stops: everything goes to others, if there are any.
    pub(crate) async fn leave(&mut self, reply: Leave) {
        let others = self.nodes.iter().any(|n| n.id != self.parts.node && n.joined && !n.leaving && !looks_gone(n));
        if !others {
            // Who asked may have given up.
            let _ = reply.send(false);
            return;
        }
        let told = async { self.connection().await?.leave().await };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(())) => self.leaving = Some(reply),
            Ok(Err(_)) | Err(_) => drop(reply.send(false)),
        }
    }

    pub(crate) fn finish_leaving(&mut self) {
        if self.holdings.are_empty()
            && let Some(reply) = self.leaving.take()
        {
            let _ = reply.send(true);
        }
    }

    /// Gives everything up, so that others need not wait.
    pub async fn resign(&mut self) {
        let resign = async { self.connection().await?.resign().await };
        match tokio::time::timeout(Duration::from_secs(2), resign).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!(error = %e, "the lease was not given back: it will run out"),
            Err(_) => warn!("the lease was not given back in time: it will run out"),
        }
    }
}
