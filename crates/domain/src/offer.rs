//! What a worker says of itself, and a ticket allows: actions, slots, labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::name;

/// Kinds of slots that one worker may have.
const MAX_SLOT_KINDS: usize = 64;

/// The names of a worker's actions, each once.
pub fn actions(names: &[String], limits: &Limits) -> Result<Vec<Arc<str>>> {
    if names.is_empty() || names.len() > limits.actions {
        let message = format!("a worker offers 1 to {} actions; got {}", limits.actions, names.len());
        return Err(Error::field("/actions", message));
    }
    for (i, action) in names.iter().enumerate() {
        name::check(&format!("/actions/{i}"), action, limits)?;
    }
    let distinct: BTreeSet<Arc<str>> = names.iter().map(|n| n.as_str().into()).collect();
    Ok(distinct.into_iter().collect())
}

/// Slot totals within the limits. Zero is allowed: such a worker only finishes what it holds.
pub fn check_slots(slots: &BTreeMap<String, u32>, limits: &Limits) -> Result<()> {
    if slots.len() > MAX_SLOT_KINDS {
        let message = format!("at most {MAX_SLOT_KINDS} kinds of slots are allowed; got {}", slots.len());
        return Err(Error::field("/slots", message));
    }
    for (kind, count) in slots {
        name::check("/slots", kind, limits)?;
        if *count > limits.slots {
            let message = format!("at most {} slots of a kind are allowed; got {count}", limits.slots);
            return Err(Error::field(format!("/slots/{kind}"), message));
        }
    }
    Ok(())
}

/// Labels within the limits.
pub fn check_labels(labels: &BTreeMap<String, String>, limits: &Limits) -> Result<()> {
    if labels.len() > limits.labels {
        let message = format!("at most {} labels are allowed; got {}", limits.labels, labels.len());
        return Err(Error::field("/labels", message));
    }
    name::check_metadata("/labels", labels, limits)
}
