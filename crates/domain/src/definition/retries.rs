//! How failures of a task are retried, as a client writes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::duration::{self, Span};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::name;
use crate::retry::{ErrorRule, OnExhausted, RetryPolicy};

const MAX_RETRIES: u32 = 10_000;

/// `3`, or `{"count": 3, "base": "1s", "factor": 2, "cap": "5m", "jitter": true}`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Retries {
    /// That many, with the default back-off.
    Count(u32),
    /// All of it.
    Policy(RetryDefinition),
}

impl<'de> Deserialize<'de> for Retries {
    /// By hand: an untagged enum would not say which field of a policy is wrong.
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Retries;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(
                    f,
                    "0 to {MAX_RETRIES} retries, or an object {{count, base, factor, cap, jitter, on_exhausted, rules}}"
                )
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Retries, E> {
                u32::try_from(v)
                    .map(Retries::Count)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(v), &self))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Retries, A::Error> {
                RetryDefinition::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Retries::Policy)
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// A retry policy as a client writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryDefinition {
    /// Retries after the first attempt, 0 to 10000.
    #[serde(deserialize_with = "some_count")]
    #[schema(minimum = 0, maximum = 10000)]
    pub count: u32,
    /// Wait before the first retry. Default `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Span>,
    /// What each further wait is multiplied by, 1 to 100. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub factor: Option<f64>,
    /// The longest wait, no shorter than any `base`. Default `5m`, or the longest `base` where that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<Span>,
    /// Full jitter: the wait is drawn evenly from zero to the computed one. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<bool>,
    /// What becomes of the run after a failure that is not retried: `fail` (the default), or `park` it for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub on_exhausted: Option<OnExhausted>,
    /// What is different for some error codes; the first rule that names the code decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub rules: Vec<RuleDefinition>,
}

/// A rule for some error codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleDefinition {
    /// Codes of a worker's failure, or `timeout`.
    #[schema(min_items = 1, max_items = 32)]
    pub codes: Vec<String>,
    /// False: such an error is final. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<bool>,
    /// Retries allowed for it, if not the policy's.
    #[serde(default, deserialize_with = "count_if_any", skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// First wait for it, if not the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Span>,
    /// What becomes of the run after it, if not what the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub on_exhausted: Option<OnExhausted>,
}

/// A count of retries: the type would take others, and say of one below zero only that it is not a `u32`.
fn some_count<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    of_count(i64::deserialize(d)?)
}

fn count_if_any<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    Option::<i64>::deserialize(d)?.map(of_count).transpose()
}

fn of_count<E: serde::de::Error>(n: i64) -> Result<u32, E> {
    let count = u32::try_from(n).ok().filter(|n| *n <= MAX_RETRIES);
    count.ok_or_else(|| E::custom(format_args!("expected 0 to {MAX_RETRIES} retries; got `{n}`")))
}

impl Retries {
    pub(super) fn check(&self, at: &str, limits: &Limits) -> Result<()> {
        let count = |pointer: String, n: u32| match n <= MAX_RETRIES {
            true => Ok(()),
            false => Err(Error::field(pointer, format!("at most {MAX_RETRIES} retries are allowed; got {n}"))),
        };
        let policy = match self {
            Self::Count(n) => return count(at.to_owned(), *n),
            Self::Policy(policy) => policy,
        };
        count(format!("{at}/count"), policy.count)?;
        if let Some(factor) = policy.factor
            && !(1.0..=100.0).contains(&factor)
        {
            return Err(Error::field(format!("{at}/factor"), format!("a factor is 1 to 100; got {factor}")));
        }
        if policy.rules.len() > 32 {
            return Err(Error::field(format!("{at}/rules"), "at most 32 rules are allowed"));
        }
        policy.within_cap(&format!("{at}/base"), policy.base)?;
        for (i, rule) in policy.rules.iter().enumerate() {
            let at = format!("{at}/rules/{i}");
            policy.within_cap(&format!("{at}/base"), rule.base)?;
            if rule.codes.is_empty() || rule.codes.len() > 32 {
                return Err(Error::field(format!("{at}/codes"), "a rule names 1 to 32 error codes"));
            }
            for (j, code) in rule.codes.iter().enumerate() {
                name::check_text(&format!("{at}/codes/{j}"), code, limits)?;
            }
            if let Some(n) = rule.count {
                count(format!("{at}/count"), n)?;
            }
        }
        Ok(())
    }

    pub(super) fn compile(&self) -> RetryPolicy {
        let default = RetryPolicy::none();
        match self {
            Self::Count(count) => RetryPolicy { count: *count, ..default },
            Self::Policy(p) => RetryPolicy {
                count: p.count,
                base: p.base.map_or(default.base, |s| s.0),
                factor: p.factor.unwrap_or(default.factor),
                cap: p.cap.map_or_else(|| p.longest_base().max(default.cap), |s| s.0),
                jitter: p.jitter.unwrap_or(default.jitter),
                on_exhausted: p.on_exhausted.unwrap_or(default.on_exhausted),
                rules: p
                    .rules
                    .iter()
                    .map(|r| ErrorRule {
                        codes: r.codes.clone(),
                        retry: r.retry.unwrap_or(true),
                        count: r.count,
                        base: r.base.map(|s| s.0),
                        on_exhausted: r.on_exhausted,
                    })
                    .collect(),
            },
        }
    }
}

impl RetryDefinition {
    fn longest_base(&self) -> Duration {
        self.rules.iter().filter_map(|rule| rule.base).chain(self.base).map(|base| base.0).max().unwrap_or_default()
    }

    /// Refuses a wait that would never be as long as it says.
    fn within_cap(&self, at: &str, base: Option<Span>) -> Result<()> {
        let Some((base, cap)) = base.zip(self.cap).filter(|(base, cap)| base > cap) else { return Ok(()) };
        let [base, cap] = [base, cap].map(|span| duration::format(span.0));
        Err(Error::field(
            at,
            format!("a first wait is no longer than `cap`, the longest; got {base}, and `cap` is {cap}"),
        ))
    }
}
