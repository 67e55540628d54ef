//! What follows from a change in the same statement. One list, in a fixed order: the change itself, then the claims
//! that use what it gives back. Whatever else a change brings about, it is added here, so that a crash finds all of
//! it or nothing.

use helve_domain::id::TenantId;

use crate::state::flight::{Change, Draft, Note};
use crate::turn::Turn;

impl Turn<'_> {
    /// Writes a change with what follows from it. The slots that it gives back are free for everyone else only after
    /// the commit.
    pub(crate) fn write_with_consequences(&mut self, tenant: TenantId, change: Change, note: &Note) {
        let mut draft = Draft::from(change);
        let mut actions = Vec::new();
        if let Some((session, attempt)) = note.lender() {
            let loan = self.shard.lend(session, attempt);
            while let Some(claim) = self.claim_for(session) {
                draft.push(claim);
            }
            if let Some(loan) = loan {
                self.shard.end_loan(session, attempt, loan);
                actions = self.shard.sessions.get(&session).map(|s| s.info.actions.clone()).unwrap_or_default();
            }
        }
        self.write_changes(tenant, draft);
        for action in actions {
            self.refill_action(tenant, action);
        }
    }
}
