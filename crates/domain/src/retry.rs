//! When a failed attempt is tried again, and how much later.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::run::RunError;

/// What becomes of a run after a failure that is not retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// It has failed.
    Fail,
    /// It is kept for a person.
    Park,
}

/// How failures of a task are retried, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Retries after the first attempt.
    pub count: u32,
    /// The wait before the first retry.
    pub base: Duration,
    /// What the wait is multiplied by for each further retry.
    pub factor: f64,
    /// The longest wait.
    pub cap: Duration,
    /// Full jitter: the wait is drawn evenly between zero and the computed one.
    pub jitter: bool,
    /// What becomes of the run after a failure that is not retried.
    pub on_exhausted: OnExhausted,
    /// The first rule that names the error's code decides instead.
    pub rules: Vec<ErrorRule>,
}

/// What is different for some error codes.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorRule {
    /// Codes of a worker's failure, or `timeout`.
    pub codes: Vec<String>,
    /// False: such an error is final.
    pub retry: bool,
    /// Retries allowed for it, if not the policy's.
    pub count: Option<u32>,
    /// First wait for it, if not the policy's.
    pub base: Option<Duration>,
    /// What becomes of the run after it, if not what the policy says.
    pub on_exhausted: Option<OnExhausted>,
}

impl RetryPolicy {
    /// No retries.
    pub const fn none() -> Self {
        Self {
            count: 0,
            base: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_secs(300),
            jitter: true,
            on_exhausted: OnExhausted::Fail,
            rules: Vec::new(),
        }
    }

    /// What becomes of the run after this failure, if it is not retried. A person who wants to see what went wrong
    /// wants to see all of it: it makes no difference whether the retries are spent or there were none to spend.
    pub fn after_last(&self, error: &RunError) -> OnExhausted {
        self.rule(error).and_then(|r| r.on_exhausted).unwrap_or(self.on_exhausted)
    }

    fn rule(&self, error: &RunError) -> Option<&ErrorRule> {
        let code = error.code.as_deref().unwrap_or("");
        self.rules.iter().find(|r| r.codes.iter().any(|c| c == code))
    }

    /// How long to wait before the next attempt; `None` when the failure is final.
    ///
    /// `spent` is the number of retries that were used up, `random` lies in 0..1. The worker's own
    /// `retry_after` wins over the computed wait, and `retryable: false` over everything.
    pub fn next_wait(&self, spent: u32, error: &RunError, random: f64) -> Option<Duration> {
        if error.retryable == Some(false) {
            return None;
        }
        let rule = self.rule(error);
        if rule.is_some_and(|r| !r.retry) {
            return None;
        }
        if spent >= rule.and_then(|r| r.count).unwrap_or(self.count) {
            return None;
        }
        if let Some(ms) = error.retry_after_ms {
            return Some(Duration::from_millis(ms).min(crate::limits::MAX_DURATION));
        }
        let base = rule.and_then(|r| r.base).unwrap_or(self.base).as_secs_f64();
        // The exponent is capped: a run with thousands of retries must not overflow.
        let grown = base * self.factor.powi(i32::try_from(spent.min(64)).unwrap_or(64));
        let wait = grown.min(self.cap.as_secs_f64()).max(0.0);
        let wait = if self.jitter { wait * random.clamp(0.0, 1.0) } else { wait };
        Some(Duration::from_secs_f64(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy { count: 3, jitter: false, ..RetryPolicy::none() }
    }

    fn error(code: &str) -> RunError {
        RunError { message: "boom".into(), code: Some(code.into()), retryable: None, retry_after_ms: None }
    }

    #[test]
    fn waits_grow_to_the_cap_and_end_after_the_count() {
        let p = RetryPolicy { count: 100, cap: Duration::from_secs(5), ..policy() };
        let waits: Vec<_> = [0, 1, 2, 3, 99].map(|n| p.next_wait(n, &error("x"), 0.5)).to_vec();
        let secs = |s| Some(Duration::from_secs(s));
        assert_eq!(waits, [secs(1), secs(2), secs(4), secs(5), secs(5)]);
        assert_eq!(p.next_wait(100, &error("x"), 0.5), None);
    }

    fn rule(code: &str, retry: bool) -> ErrorRule {
        ErrorRule { codes: vec![code.into()], retry, count: None, base: None, on_exhausted: None }
    }

    #[test]
    fn a_rule_may_say_otherwise_what_becomes_of_the_run() {
        let mut p = RetryPolicy { on_exhausted: OnExhausted::Park, ..policy() };
        p.rules.push(rule("fatal", false));
        p.rules.push(ErrorRule { on_exhausted: Some(OnExhausted::Fail), ..rule("hopeless", false) });
        let after = ["x", "fatal", "hopeless"].map(|code| p.after_last(&error(code)));
        assert_eq!(after, [OnExhausted::Park, OnExhausted::Park, OnExhausted::Fail]);
        assert_eq!(policy().after_last(&error("x")), OnExhausted::Fail);
    }

    #[test]
    fn the_worker_and_the_rules_have_their_say() {
        let mut p = policy();
        p.rules.push(rule("fatal", false));
        p.rules.push(ErrorRule { count: Some(1), base: Some(Duration::from_secs(30)), ..rule("busy", true) });
        assert_eq!(p.next_wait(0, &error("fatal"), 0.0), None);
        assert_eq!(p.next_wait(0, &error("busy"), 0.0), Some(Duration::from_secs(30)));
        assert_eq!(p.next_wait(1, &error("busy"), 0.0), None);
        let asked = RunError { retry_after_ms: Some(500), ..error("x") };
        assert_eq!(p.next_wait(0, &asked, 0.0), Some(Duration::from_millis(500)));
        let refused = RunError { retryable: Some(false), ..error("x") };
        assert_eq!(p.next_wait(0, &refused, 0.0), None);
    }

    proptest::proptest! {
        #[test]
        fn a_wait_never_passes_the_cap(spent in 0_u32..5_000, factor in 1.0_f64..100.0, random in 0.0_f64..1.0) {
            let p = RetryPolicy { count: u32::MAX, factor, jitter: true, ..RetryPolicy::none() };
            proptest::prop_assert!(p.next_wait(spent, &error("x"), random).unwrap() <= p.cap);
        }
    }
}
