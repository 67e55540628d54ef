//! A worker's session in memory: its slots and what holds them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
use helve_domain::delivery::{Attempt, Reason, WorkerInfo};
use helve_domain::id::{SessionId, TenantId, WorkerId};
use helve_domain::secret;

use crate::types::{Transport, WorkerRow};

/// A worker's session in memory.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Session {
    pub worker: WorkerId,
    pub tenant: TenantId,
    pub secret: [u8; 32],
    /// The secret before it: valid until the new one is used, since a `welcome` can be lost.
    pub former: Option<[u8; 32]>,
    pub info: WorkerInfo,
    pub used: BTreeMap<Arc<str>, u32>,
    pub transport: Option<Transport>,
    pub lost_at: Option<Timestamp>,
    /// Its row is committed.
    pub ready: bool,
    pub draining: bool,
    pub congested: bool,
    /// Somebody paused it, or its gentle start has no token now.
    pub paused: bool,
    /// What holds its slots: attempts that run, are on their way, or are told to stop.
    pub holds: HashMap<Attempt, Hold>,
    pub timer: Option<Timestamp>,
    /// Look-ups of attempts that it does not hold: a budget that refills with time.
    pub lookups: Budget,
}

#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub cost: u32,
    pub kind: Arc<str>,
    /// Told to stop: the slot is kept until the worker lets go or until this time.
    pub until: Option<(Timestamp, Reason)>,
    /// Its worker gave the slots back early: it goes on, and costs nothing.
    pub freed: bool,
}

/// Slots of an ending attempt that others may take in the statement that ends it.
pub(crate) struct Loan {
    kind: Arc<str>,
    cost: u32,
    /// Slots of the kind in use before the loan.
    before: u32,
}

/// At most 1,000 a second, with as many in store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    left: u32,
    since: Timestamp,
}

impl Budget {
    const FULL: u32 = 1_000;

    pub const fn full(now: Timestamp) -> Self {
        Self { left: Self::FULL, since: now }
    }

    pub fn take(&mut self, now: Timestamp) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self::full(now);
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

impl Session {
    /// Whether this is the hash of the session's secret, compared in constant time: a secret must not be found out
    /// byte by byte.
    pub fn is_secret(&self, shown: &[u8; 32]) -> bool {
        let same = |a: &[u8; 32]| secret::is_same(a, shown);
        same(&self.secret) | self.former.as_ref().is_some_and(same)
    }

    /// Free slots of a kind. Less than nothing is free after the worker lowered its totals.
    pub fn free(&self, kind: &str) -> u32 {
        let total = self.info.slots.get(kind).copied().unwrap_or(0);
        total.saturating_sub(self.used.get(kind).copied().unwrap_or(0))
    }

    /// Whether it may be given work at all.
    pub const fn takes_work(&self) -> bool {
        self.ready && self.transport.is_some() && !self.draining && !self.congested && !self.paused
    }

    pub fn hold(&mut self, attempt: Attempt, spec: &Spec) {
        let hold = Hold { cost: spec.slot_cost, kind: Arc::clone(&spec.slot_kind), until: None, freed: false };
        *self.used.entry(Arc::clone(&spec.slot_kind)).or_default() += spec.slot_cost;
        let before = self.holds.insert(attempt, hold);
        helve_domain::invariant!(before.is_none(), "I12 {:?} holds a slot twice", attempt);
    }

    /// Frees the slots of an attempt that goes on: it still counts as held. Twice is once.
    pub fn free_early(&mut self, attempt: Attempt) {
        let Some(hold) = self.holds.get_mut(&attempt) else { return };
        let cost = std::mem::take(&mut hold.cost);
        hold.freed = true;
        if let Some(used) = self.used.get_mut(&hold.kind) {
            *used = used.saturating_sub(cost);
        }
    }

    /// Frees the slots of an attempt; false if it held none.
    pub fn release(&mut self, attempt: Attempt) -> bool {
        let Some(hold) = self.holds.remove(&attempt) else { return false };
        if let Some(used) = self.used.get_mut(&hold.kind) {
            *used = used.saturating_sub(hold.cost);
        }
        true
    }

    pub fn row(&self, session: SessionId) -> WorkerRow {
        WorkerRow { worker: self.worker, session, tenant: self.tenant, secret: self.secret, info: self.info.clone() }
    }

    /// Treats the slots of an ending attempt as free for the moment.
    pub fn lend(&mut self, attempt: Attempt) -> Option<Loan> {
        let hold = self.holds.get_mut(&attempt)?;
        let (kind, cost) = (hold.kind.clone(), hold.cost);
        let used = self.used.get_mut(&kind)?;
        let before = *used;
        hold.cost = 0;
        *used = used.saturating_sub(cost);
        Some(Loan { kind, cost, before })
    }

    /// What of the loan was not used stays with the ending attempt until the commit.
    pub fn take_rest(&mut self, attempt: Attempt, loan: Loan) {
        let used = self.used.entry(loan.kind).or_default();
        let rest = loan.before.saturating_sub(*used).min(loan.cost);
        *used += rest;
        if let Some(hold) = self.holds.get_mut(&attempt) {
            hold.cost = rest;
        }
    }
}

/// Slots in use of each session by what it holds; the sum that `used` must equal.
#[cfg(test)]
pub(crate) fn used_by_holds(session: &Session) -> BTreeMap<Arc<str>, u32> {
    let mut used = BTreeMap::new();
    for hold in session.holds.values() {
        *used.entry(Arc::clone(&hold.kind)).or_default() += hold.cost;
    }
    used
}
