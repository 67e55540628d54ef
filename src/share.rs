//! A tenant's share of the engine's memory: bytes are counted for as long as they are held.

mod account;

use std::time::Duration;

use bytes::Bytes;
use helve_domain::error::{Error, Result};
use helve_domain::id::TenantId;

pub use account::{Account, Held, Tally};

/// What each tenant holds of the engine's memory. Clones share one account.
#[derive(Clone)]
pub struct Shares {
    /// Bytes that one tenant may hold.
    limit: usize,
    held: Account,
}

impl Shares {
    /// Shares of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: Account::default() }
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// `Limited` when the tenant would hold more than its share; then nothing is taken.
    pub fn take(&self, tenant: TenantId, bytes: usize) -> Result<Held> {
        self.held.take(tenant, bytes, self.limit).map_err(|now| Error::Limited {
            message: format!("this tenant has requests of {now} bytes underway, and may have {}", self.limit),
            retry_after: Duration::from_secs(1),
        })
    }

    /// Counts bytes that are there already and cannot be refused.
    pub fn count(&self, tenant: TenantId, bytes: usize) -> Held {
        self.held.count(tenant, bytes)
    }

    /// Whether the tenant holds its whole share, or more.
    pub fn is_used_up(&self, tenant: TenantId) -> bool {
        self.held_by(tenant) >= self.limit
    }

    /// Bytes that the tenant holds.
    pub fn held_by(&self, tenant: TenantId) -> usize {
        self.held.of(tenant)
    }

    /// Bytes that all tenants hold, and how many tenants hold any.
    pub fn total(&self) -> (usize, usize) {
        self.held.total()
    }
}

impl Held {
    /// Counts these bytes until the last slice of them is dropped, wherever it is by then.
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _held: self })
    }
}

struct Kept {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn tenants() -> [TenantId; 3] {
        [1, 2, 3].map(|n| TenantId::generate(Timestamp::from_micros(n * 1_000_000)))
    }

    #[test]
    fn a_tenant_over_its_share_is_refused_and_another_is_not() {
        let (shares, [a, b, _]) = (Shares::new(100), tenants());
        let held = shares.take(a, 60).unwrap();
        let refused = shares.take(a, 41).err().unwrap();
        assert!(refused.client_text().contains("60 bytes underway, and may have 100"), "{}", refused.client_text());
        assert!(refused.retry_after().is_some());
        assert!(shares.take(a, 40).is_ok() && shares.take(b, 100).is_ok());
        drop(held);
        assert!(shares.take(a, 100).is_ok());
        assert_eq!(shares.total(), (0, 0));
    }

    #[test]
    fn what_cannot_be_refused_is_counted_past_the_share() {
        let (shares, [a, b, _]) = (Shares::new(100), tenants());
        let held = shares.count(a, 250);
        assert!(shares.is_used_up(a) && !shares.is_used_up(b));
        assert!(shares.take(a, 1).is_err());
        drop(held);
        assert!(!shares.is_used_up(a));
    }

    #[test]
    fn bytes_are_counted_until_their_last_slice_is_gone() {
        let (shares, [a, ..]) = (Shares::new(1_000), tenants());
        let body = shares.take(a, 700).unwrap().keep(Bytes::from(vec![7; 700]));
        let slice = body.slice(10..20);
        drop(body);
        assert_eq!((shares.held_by(a), &slice[..]), (700, &[7; 10][..]));
        drop(slice.clone());
        drop(slice);
        assert_eq!(shares.total(), (0, 0));
    }

    /// What a caller does with the account.
    #[derive(Debug, Clone)]
    enum Act {
        Take(usize, usize),
        Count(usize, usize),
        Set(usize, usize),
        Keep(usize),
        Slice(usize),
        Drop(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let (tenant, bytes, which) = (0..3_usize, 0..80_usize, 0..20_usize);
        prop_oneof![
            (tenant.clone(), bytes.clone()).prop_map(|(t, b)| Act::Take(t, b)),
            (tenant, bytes.clone()).prop_map(|(t, b)| Act::Count(t, b)),
            (which.clone(), bytes).prop_map(|(w, b)| Act::Set(w, b)),
            which.clone().prop_map(Act::Keep),
            which.clone().prop_map(Act::Slice),
            which.prop_map(Act::Drop),
        ]
    }

    proptest! {
        /// The account is the sum of what is held, whatever the order, and nothing when nothing is.
        #[test]
        fn the_account_adds_up(acts in prop::collection::vec(act(), 0..200)) {
            let (shares, tenants) = (Shares::new(100), tenants());
            let mut held: Vec<Held> = Vec::new();
            // A kept body: its tenant, its size, and its living slices.
            let mut kept: Vec<(usize, usize, Vec<Bytes>)> = Vec::new();
            let place = |which: usize, len: usize| (len > 0).then(|| which % len);
            for act in acts {
                match act {
                    Act::Take(t, bytes) => {
                        let before = shares.held_by(tenants[t]);
                        match shares.take(tenants[t], bytes) {
                            Ok(taken) => held.push(taken),
                            Err(_) => prop_assert!(before + bytes > 100),
                        }
                        prop_assert!(shares.held_by(tenants[t]) <= before.max(100));
                    }
                    Act::Count(t, bytes) => held.push(shares.count(tenants[t], bytes)),
                    Act::Set(which, bytes) => {
                        if let Some(at) = place(which, held.len()) { held[at].set(bytes); }
                    }
                    Act::Keep(which) => {
                        if let Some(at) = place(which, held.len()) {
                            let one = held.swap_remove(at);
                            let tenant = tenants.iter().position(|t| *t == one.tenant).unwrap();
                            let size = one.amount;
                            kept.push((tenant, size, vec![one.keep(Bytes::from(vec![0; size]))]));
                        }
                    }
                    Act::Slice(which) => {
                        if let Some(at) = place(which, kept.len()) {
                            let slice = kept[at].2[0].slice(..);
                            kept[at].2.push(slice);
                        }
                    }
                    Act::Drop(which) => {
                        if let Some(at) = place(which, kept.len()) {
                            kept[at].2.swap_remove(0);
                            if kept[at].2.is_empty() { kept.swap_remove(at); }
                        } else if let Some(at) = place(which, held.len()) {
                            held.swap_remove(at);
                        }
                    }
                }
                for (n, tenant) in tenants.iter().enumerate() {
                    let bare: usize = held.iter().filter(|h| h.tenant == *tenant).map(|h| h.amount).sum();
                    let bodies: usize = kept.iter().filter(|k| k.0 == n).map(|k| k.1).sum();
                    prop_assert_eq!(shares.held_by(*tenant), bare + bodies);
                }
            }
            drop((held, kept));
            prop_assert_eq!(shares.total(), (0, 0));
        }
    }
}
