//! What a worker that came by a ticket may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::delivery::WorkerInfo;
use crate::error::{Error, Result};

/// The longest that a ticket may wait for its use, and how long it does when nothing else is said.
pub const MAX_LIFETIME: Duration = Duration::from_secs(60);

/// The most that a worker may say of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// What it may offer to do.
    pub actions: BTreeSet<String>,
    /// The most slots that it may have, by kind.
    pub slots: BTreeMap<String, u32>,
    /// The labels that it may have: work is routed by them.
    pub labels: BTreeMap<String, String>,
}

impl Allowed {
    /// Whether a worker may be like this.
    ///
    /// # Errors
    /// `Forbidden`, with the field.
    pub fn check(&self, info: &WorkerInfo) -> Result<()> {
        if let Some(other) = info.actions.iter().find(|action| !self.actions.contains(&***action)) {
            return Err(Error::not_allowed("/actions", format!("the ticket does not allow the action `{other}`")));
        }
        self.check_slots(&info.slots)?;
        self.check_labels(&info.labels)
    }

    /// Whether a worker may have these slots.
    ///
    /// # Errors
    /// `Forbidden`, with the field.
    pub fn check_slots(&self, slots: &BTreeMap<Arc<str>, u32>) -> Result<()> {
        for (kind, count) in slots {
            let most = self.slots.get(&**kind).copied().unwrap_or(0);
            if *count > most {
                let message = format!("the ticket allows {most} slots of the kind `{kind}`; got {count}");
                return Err(Error::not_allowed(format!("/slots/{kind}"), message));
            }
        }
        Ok(())
    }

    /// Whether a worker may have these labels: each must stand in the ticket as it is.
    ///
    /// # Errors
    /// `Forbidden`, with the field.
    pub fn check_labels(&self, labels: &BTreeMap<String, String>) -> Result<()> {
        match labels.iter().find(|(key, value)| self.labels.get(*key) != Some(*value)) {
            Some((key, _)) => {
                let message = format!("the ticket does not allow this value of the label `{key}`");
                Err(Error::not_allowed(format!("/labels/{key}"), message))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn map<K: Ord + From<&'static str>, V>(pairs: impl IntoIterator<Item = (&'static str, V)>) -> BTreeMap<K, V> {
        pairs.into_iter().map(|(key, value)| (K::from(key), value)).collect()
    }

    fn info(actions: &[&'static str], slots: &[(&'static str, u32)], labels: &[(&'static str, &str)]) -> WorkerInfo {
        WorkerInfo {
            name: "w".into(),
            sdk: "".into(),
            actions: actions.iter().map(|action| Arc::from(*action)).collect(),
            slots: map(slots.iter().copied()),
            labels: map(labels.iter().map(|(key, value)| (*key, (*value).to_owned()))),
        }
    }

    #[test]
    fn a_worker_may_be_less_than_its_ticket_allows_and_never_more() {
        let allowed = Allowed {
            actions: ["a", "b"].map(str::to_owned).into(),
            slots: map([("default", 2), ("gpu", 1)]),
            labels: map([("zone", "z1".to_owned())]),
        };
        for right in [
            info(&["a", "b"], &[("default", 2), ("gpu", 1)], &[("zone", "z1")]),
            info(&["b"], &[("default", 1)], &[]),
            info(&["a"], &[("other", 0)], &[]),
        ] {
            assert!(allowed.check(&right).is_ok(), "{right:?}");
        }
        for (wrong, at) in [
            (info(&["a", "c"], &[], &[]), "/actions"),
            (info(&["A"], &[], &[]), "/actions"),
            (info(&["a"], &[("default", 3)], &[]), "/slots/default"),
            (info(&["a"], &[("other", 1)], &[]), "/slots/other"),
            (info(&["a"], &[], &[("zone", "z2")]), "/labels/zone"),
            (info(&["a"], &[], &[("other", "z1")]), "/labels/other"),
        ] {
            let err = allowed.check(&wrong).unwrap_err();
            assert_eq!((err.code(), err.pointer()), (Code::Forbidden, Some(at)), "{wrong:?}");
        }
    }
}
