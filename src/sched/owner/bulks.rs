//! Bulk requests that wait to be decided: a piece at a time, the tenants in turn.

use std::collections::VecDeque;

use helve_domain::id::TenantId;

/// The requests of each tenant, first come first served; the tenants take turns.
pub(in crate::sched) struct Bulks<W> {
    turns: VecDeque<(TenantId, VecDeque<W>)>,
}

impl<W> Default for Bulks<W> {
    fn default() -> Self {
        Self { turns: VecDeque::new() }
    }
}

impl<W> Bulks<W> {
    pub fn push(&mut self, tenant: TenantId, work: W) {
        match self.turns.iter_mut().find(|(t, _)| *t == tenant) {
            Some((_, waiting)) => waiting.push_back(work),
            None => self.turns.push_back((tenant, VecDeque::from([work]))),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether one of the tenants has room for more.
    pub fn any(&self, room: impl Fn(TenantId) -> bool) -> bool {
        self.turns.iter().any(|(tenant, _)| room(*tenant))
    }

    /// What is next: the oldest request of the next tenant with room. If something is left of it, it comes back by
    /// [`Bulks::put_back`].
    pub fn take(&mut self, room: impl Fn(TenantId) -> bool) -> Option<(TenantId, W)> {
        let at = self.turns.iter().position(|(tenant, _)| room(*tenant))?;
        let (tenant, mut waiting) = self.turns.remove(at)?;
        let work = waiting.pop_front()?;
        if !waiting.is_empty() {
            self.turns.push_back((tenant, waiting));
        }
        Some((tenant, work))
    }

    /// The rest of a request stays the first of its tenant, behind the other tenants.
    pub fn put_back(&mut self, tenant: TenantId, work: W) {
        match self.turns.iter_mut().find(|(t, _)| *t == tenant) {
            Some((_, waiting)) => waiting.push_front(work),
            None => self.turns.push_back((tenant, VecDeque::from([work]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Timestamp;

    use super::*;

    #[test]
    fn tenants_take_turns_and_a_request_ends_before_the_next_of_its_tenant() {
        let [a, b] = [1, 2].map(|n| TenantId::generate(Timestamp::from_micros(n * 1_000_000)));
        let mut bulks: Bulks<(char, u32)> = Bulks::default();
        for (tenant, name) in [(a, 'p'), (a, 'q'), (a, 'r'), (b, 'x')] {
            bulks.push(tenant, (name, 2));
        }
        let mut order = String::new();
        while let Some((tenant, (name, left))) = bulks.take(|_| true) {
            order.push(name);
            if left > 1 {
                bulks.put_back(tenant, (name, left - 1));
            }
        }
        assert_eq!(order, "pxpxqqrr");
        assert!(bulks.is_empty());
    }

    #[test]
    fn a_tenant_without_room_waits_and_holds_nobody_up() {
        let [a, b] = [1, 2].map(|n| TenantId::generate(Timestamp::from_micros(n * 1_000_000)));
        let mut bulks = Bulks::default();
        bulks.push(a, 1);
        bulks.push(b, 2);
        assert_eq!(bulks.take(|t| t == b), Some((b, 2)));
        assert!(!bulks.any(|t| t == b) && bulks.take(|t| t == b).is_none());
        assert_eq!(bulks.take(|t| t == a), Some((a, 1)));
    }
}
