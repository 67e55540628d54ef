//! Which process owns which shard, as far as this one knows: read at every renewal of the lease.

use std::sync::Arc;
use std::time::Duration;

use helve_domain::id::{NodeId, SHARDS, TenantId};
use helve_domain::secret::Secret;
use tokio::sync::watch;

/// Another engine on the same database.
#[derive(Debug)]
pub struct Peer {
    /// Which.
    pub node: NodeId,
    /// Host and port at which other engines reach it.
    pub address: String,
    /// What proves to it that a request comes from an engine on the same database.
    pub secret: Secret,
}

/// Where a tenant's work is decided.
#[derive(Debug, Clone)]
pub enum Place {
    /// In this process.
    Here,
    /// In another one.
    At(Arc<Peer>),
    /// Nowhere: the owner is gone or about to change, and the next one is not known yet.
    Nowhere,
}

impl Place {
    /// Whether both mean the same process.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Here, Self::Here) | (Self::Nowhere, Self::Nowhere) => true,
            (Self::At(one), Self::At(other)) => one.node == other.node,
            _ => false,
        }
    }
}

/// The owner of each shard. Clones share one memory.
#[derive(Clone)]
pub struct Directory(Arc<watch::Sender<Vec<Place>>>);

impl Default for Directory {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new((0..SHARDS).map(|_| Place::Nowhere).collect())))
    }
}

impl Directory {
    /// Where the tenant's work is decided now.
    pub fn place(&self, tenant: TenantId) -> Place {
        at(&self.0.borrow(), tenant)
    }

    /// Waits at most `within` until the tenant's place is known and is not `than`; gives what is known by then.
    pub async fn other(&self, tenant: TenantId, than: &Place, within: Duration) -> Place {
        let mut changes = self.0.subscribe();
        let fit = |places: &Vec<Place>| {
            let place = at(places, tenant);
            !matches!(place, Place::Nowhere) && !place.is(than)
        };
        // Past the time, or with the sender gone, what is known now is the answer.
        let _ = tokio::time::timeout(within, changes.wait_for(fit)).await;
        self.place(tenant)
    }

    /// Resolves when the tenant's work is not decided by `node` any more, as far as this process knows.
    pub async fn left(&self, tenant: TenantId, node: NodeId) {
        let mut changes = self.0.subscribe();
        let left = |places: &Vec<Place>| !matches!(at(places, tenant), Place::At(peer) if peer.node == node);
        if changes.wait_for(left).await.is_err() {
            // Nobody is left who could change it.
            std::future::pending::<()>().await;
        }
    }

    /// The shards that are owned here.
    pub fn here(&self) -> Vec<i16> {
        let places = self.0.borrow();
        (0..SHARDS)
            .zip(places.iter())
            .filter(|(_, place)| matches!(place, Place::Here))
            .map(|(shard, _)| shard)
            .collect()
    }

    /// Resolves when a shard is owned here that is not among `known`; gives all that are.
    pub async fn gained(&self, known: &[i16]) -> Vec<i16> {
        let mut changes = self.0.subscribe();
        loop {
            let here = self.here();
            if here.iter().any(|shard| !known.contains(shard)) {
                return here;
            }
            if changes.changed().await.is_err() {
                // Nobody is left who could change it.
                std::future::pending::<()>().await;
            }
        }
    }

    /// From now on every tenant is at this place, until the next look: for tests.
    pub fn move_to(&self, place: &Place) {
        self.set((0..SHARDS).map(|_| place.clone()).collect());
    }

    /// Learns who owns what. Every tunnel and every request that was passed on waits for a change: a look that finds
    /// none wakes nobody.
    pub(crate) fn set(&self, places: Vec<Place>) {
        self.0.send_if_modified(|known| {
            let same = known.len() == places.len() && known.iter().zip(&places).all(|(old, new)| old.is(new));
            *known = places;
            !same
        });
    }
}

fn at(places: &[Place], tenant: TenantId) -> Place {
    usize::try_from(tenant.shard()).ok().and_then(|shard| places.get(shard)).cloned().unwrap_or(Place::Nowhere)
}

/// An address that others can use: a server that listens everywhere is reached where the database sees it.
pub(crate) fn reachable(address: &str, seen: Option<String>) -> String {
    match (address.parse::<std::net::SocketAddr>(), seen.and_then(|host| host.parse().ok())) {
        (Ok(mut listens), Some(host)) if listens.ip().is_unspecified() => {
            listens.set_ip(host);
            listens.to_string()
        }
        (Ok(mut listens), None) if listens.ip().is_unspecified() => {
            listens.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            listens.to_string()
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
impl Directory {
    /// Every tenant is at this place.
    pub(crate) fn everywhere(place: &Place) -> Self {
        let directory = Self::default();
        directory.move_to(place);
        directory
    }
}
