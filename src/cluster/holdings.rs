//! Where each shard stands in this process, and where everybody in it finds a shard.

use std::collections::BTreeSet;
use std::sync::Arc;

use helve_domain::id::{NodeId, SHARDS};

use super::directory::{Peer, Place};
use crate::db::lease::NodeView;

/// Where a shard stands in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// Not here.
    Elsewhere,
    /// The owner rebuilds it.
    Gaining,
    /// It is served.
    Here,
    /// The owner finishes what is on its way.
    Losing,
    /// The owner has nothing of it any more; the database does not know yet.
    Lost,
}

/// One for each shard.
pub(crate) struct Holdings(Vec<Holding>);

impl Default for Holdings {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Holding::Elsewhere).collect())
    }
}

/// What the rows say that a node owns.
pub(crate) fn shards_of(nodes: &[NodeView], node: NodeId) -> BTreeSet<usize> {
    let rows = nodes.iter().filter(|n| n.id == node);
    rows.flat_map(|n| n.shards.iter().filter_map(|s| usize::try_from(*s).ok())).collect()
}

impl Holdings {
    fn that(&self, fits: impl Fn(usize, Holding) -> bool) -> Vec<usize> {
        self.0.iter().enumerate().filter(|(shard, holding)| fits(*shard, **holding)).map(|(shard, _)| shard).collect()
    }

    /// Shards that stand so.
    pub fn of(&self, holding: Holding) -> Vec<usize> {
        self.that(|_, h| h == holding)
    }

    /// Whether nothing is here.
    pub fn are_empty(&self) -> bool {
        self.0.iter().all(|h| *h == Holding::Elsewhere)
    }

    /// These shards stand so now.
    pub fn set(&mut self, shards: &[usize], holding: Holding) {
        for shard in shards {
            if let Some(held) = self.0.get_mut(*shard) {
                *held = holding;
            }
        }
    }

    /// Shards that the rows say are ours and of which nothing is here.
    pub fn missing(&self, ours: &BTreeSet<usize>) -> Vec<usize> {
        self.that(|shard, h| h == Holding::Elsewhere && ours.contains(&shard))
    }

    /// Whether a shard is served here that is not ours by the rows: only a fence can do that.
    pub fn strays(&self, ours: &BTreeSet<usize>) -> bool {
        let served = |h: Holding| matches!(h, Holding::Here | Holding::Gaining);
        self.0.iter().enumerate().any(|(shard, h)| served(*h) && !ours.contains(&shard))
    }

    /// Where each shard is found.
    pub fn places(&self, nodes: &[NodeView], me: NodeId) -> Vec<Place> {
        let mut places: Vec<Place> = self.0.iter().map(|_| Place::Nowhere).collect();
        for node in nodes.iter().filter(|n| n.id != me) {
            let (address, secret) = (node.address.clone(), node.secret.clone());
            let peer = Arc::new(Peer { node: node.id, address, secret });
            for shard in shards_of(std::slice::from_ref(node), node.id) {
                if let Some(place) = places.get_mut(shard) {
                    *place = Place::At(Arc::clone(&peer));
                }
            }
        }
        for (place, holding) in places.iter_mut().zip(&self.0) {
            match holding {
                Holding::Here => *place = Place::Here,
                Holding::Gaining | Holding::Losing | Holding::Lost => *place = Place::Nowhere,
                Holding::Elsewhere => {}
            }
        }
        places
    }
}
