//! Counts the open sockets of each tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use helve_domain::id::TenantId;

/// Open sockets by tenant. Clones share one count.
#[derive(Clone, Default)]
pub(super) struct Sockets(Arc<Mutex<HashMap<TenantId, usize>>>);

/// One counted socket; gives its place back when dropped.
pub(super) struct Place {
    sockets: Sockets,
    tenant: TenantId,
}

impl Sockets {
    /// A place for one more socket; `None` when the tenant has `limit` open ones.
    pub(super) fn enter(&self, tenant: TenantId, limit: usize) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(tenant).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place { sockets: self.clone(), tenant })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sockets.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Timestamp;

    use super::*;

    #[test]
    fn places_are_given_back_and_tenants_do_not_share() {
        let sockets = Sockets::default();
        let [a, b] = [1, 2].map(|n| TenantId::generate(Timestamp::from_micros(n)));
        let held = sockets.enter(a, 1).unwrap();
        assert!(sockets.enter(a, 1).is_none());
        assert!(sockets.enter(b, 1).is_some());
        drop(held);
        assert!(sockets.enter(a, 1).is_some());
        assert!(sockets.0.lock().unwrap().is_empty());
    }
}
