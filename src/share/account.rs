//! Counts by tenant: how much each has of something, for as long as it has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use helve_domain::id::TenantId;

/// Sums by tenant. Who has nothing is forgotten.
#[derive(Debug, Default)]
pub struct Tally(HashMap<TenantId, usize>);

impl Tally {
    /// What the tenant has.
    pub fn of(&self, tenant: TenantId) -> usize {
        self.0.get(&tenant).copied().unwrap_or(0)
    }

    /// It has another amount now.
    pub fn set(&mut self, tenant: TenantId, amount: usize) {
        match amount {
            0 => self.0.remove(&tenant),
            some => self.0.insert(tenant, some),
        };
    }

    /// It has so much more.
    pub fn add(&mut self, tenant: TenantId, amount: usize) {
        self.set(tenant, self.of(tenant).saturating_add(amount));
    }

    /// It has so much less.
    pub fn sub(&mut self, tenant: TenantId, amount: usize) {
        self.set(tenant, self.of(tenant).saturating_sub(amount));
    }

    /// What all tenants have together, and how many have anything.
    pub fn total(&self) -> (usize, usize) {
        (self.0.values().sum(), self.0.len())
    }
}

/// Who has how much, and gives it back by dropping it. Clones share one account.
#[derive(Clone, Default)]
pub struct Account(Arc<Mutex<Tally>>);

/// What is held of an account; given back when dropped.
pub struct Held {
    account: Account,
    pub(super) tenant: TenantId,
    pub(super) amount: usize,
}

impl Account {
    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so much, of the `limit` that a tenant may have.
    ///
    /// # Errors
    /// What the tenant has, when it would have more than that; then nothing is taken.
    pub fn take(&self, tenant: TenantId, amount: usize, limit: usize) -> Result<Held, usize> {
        let mut tally = self.lock();
        let now = tally.of(tenant);
        if amount > limit.saturating_sub(now) {
            return Err(now);
        }
        tally.set(tenant, now.saturating_add(amount));
        drop(tally);
        Ok(Held { account: self.clone(), tenant, amount })
    }

    /// Counts what is there already and cannot be refused.
    pub fn count(&self, tenant: TenantId, amount: usize) -> Held {
        self.lock().add(tenant, amount);
        Held { account: self.clone(), tenant, amount }
    }

    /// What the tenant has.
    pub fn of(&self, tenant: TenantId) -> usize {
        self.lock().of(tenant)
    }

    /// What all tenants have together, and how many have anything.
    pub fn total(&self) -> (usize, usize) {
        self.lock().total()
    }
}

impl Held {
    /// Another amount, also one past any limit: what is held is held.
    pub fn set(&mut self, amount: usize) {
        if amount == self.amount {
            return;
        }
        let mut tally = self.account.lock();
        let others = tally.of(self.tenant).saturating_sub(self.amount);
        tally.set(self.tenant, others.saturating_add(amount));
        drop(tally);
        self.amount = amount;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Timestamp;

    use super::*;

    #[test]
    fn places_are_given_back_and_tenants_do_not_share() {
        let places = Account::default();
        let [a, b] = [1, 2].map(|n| TenantId::generate(Timestamp::from_micros(n)));
        let held = places.take(a, 1, 1).unwrap();
        assert_eq!(places.take(a, 1, 1).err(), Some(1));
        assert!(places.take(b, 1, 1).is_ok());
        drop(held);
        assert!(places.take(a, 1, 1).is_ok());
        assert_eq!(places.total(), (0, 0), "who has nothing is forgotten");
        assert_eq!((places.take(b, 1, 0).err(), places.total()), (Some(0), (0, 0)));
    }
}
