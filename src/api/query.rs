//! Query parameters, with an error that names what is wrong and what there is.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use helve_domain::clock::Timestamp;
use helve_domain::error::{Code, Error, Result};
use helve_domain::event::Pattern;
use helve_domain::limits::Limits;
use helve_domain::{duration, name};

use super::page::DEFAULT_LIMIT;
use super::problem::ApiError;

/// The parameters of a request. Each is taken by name; what is left at the end is unknown and refused.
#[derive(Debug)]
pub struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| Error::invalid(Code::Malformed, None, "the query string cannot be read"))?;
        Ok(Self { pairs: pairs.0, known: Vec::new() })
    }
}

/// A parameter with a value that is not allowed.
fn invalid(name: &str, message: impl std::fmt::Display) -> Error {
    Error::parameter(Code::InvalidField, name, format!("query parameter `{name}`: {message}"))
}

impl Query {
    /// Every value of a parameter that may be repeated.
    pub fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let taken = self.pairs.extract_if(.., |(key, _)| key == name);
        taken.map(|(_, value)| value).collect()
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// `InvalidField` when it is repeated.
    pub fn one(&mut self, name: &'static str) -> Result<Option<String>> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(invalid(name, "given more than once")),
        }
    }

    /// A parameter read by `parse`, which says what it expects.
    ///
    /// # Errors
    /// `InvalidField` when it is repeated, or not what is expected.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let value = self.one(name)?;
        value.map(|text| parse(&text).ok_or_else(|| invalid(name, format!("expected {expected}")))).transpose()
    }

    /// A name, such as a workflow's.
    ///
    /// # Errors
    /// `InvalidField`.
    pub fn name(&mut self, parameter: &'static str, limits: &Limits) -> Result<Option<String>> {
        let value = self.one(parameter)?;
        if let Some(text) = &value {
            name::check("", text, limits).map_err(|e| invalid(parameter, e.client_text()))?;
        }
        Ok(value)
    }

    /// A pattern over event keys.
    ///
    /// # Errors
    /// `InvalidField`.
    pub fn pattern(&mut self, parameter: &'static str, limits: &Limits) -> Result<Option<String>> {
        let value = self.one(parameter)?;
        if let Some(text) = &value {
            Pattern::parse("", text, limits).map_err(|e| invalid(parameter, e.client_text()))?;
        }
        Ok(value)
    }

    /// Free text without control characters.
    ///
    /// # Errors
    /// `InvalidField`.
    pub fn text(&mut self, parameter: &'static str, limits: &Limits) -> Result<Option<String>> {
        let value = self.one(parameter)?;
        if let Some(text) = &value {
            name::check_text("", text, limits).map_err(|e| invalid(parameter, e.client_text()))?;
        }
        Ok(value)
    }

    /// A point in time.
    ///
    /// # Errors
    /// `InvalidField`.
    pub fn time(&mut self, name: &'static str) -> Result<Option<Timestamp>> {
        self.parsed(name, "a time as in RFC 3339, such as 2026-01-31T12:00:00Z (`+` as %2B)", super::time::parse)
    }

    /// A duration, such as `30s`.
    ///
    /// # Errors
    /// `InvalidField`.
    pub fn duration(&mut self, name: &'static str) -> Result<Option<Duration>> {
        let value = self.one(name)?;
        value.map(|text| duration::parse_field("", &text).map_err(|e| invalid(name, e.client_text()))).transpose()
    }

    /// `metadata=key=value`, repeated for more of them.
    ///
    /// # Errors
    /// `InvalidField`.
    pub fn metadata(&mut self, limits: &Limits) -> Result<Vec<(String, String)>> {
        let pairs = self.all("metadata");
        if pairs.len() > limits.metadata_keys {
            return Err(invalid("metadata", format!("at most {} pairs are allowed", limits.metadata_keys)));
        }
        let split = |pair: String| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() && !pair.contains('\0') => Ok((key.to_owned(), value.to_owned())),
            _ => Err(invalid("metadata", "expected key=value without NUL, such as metadata=user=42")),
        };
        pairs.into_iter().map(split).collect()
    }

    /// How many items a page has.
    ///
    /// # Errors
    /// `InvalidField`.
    pub fn limit(&mut self, limits: &Limits) -> Result<usize> {
        let max = limits.page_items;
        let expected = format!("a number from 1 to {max}");
        let parse = |text: &str| text.parse().ok().filter(|n| (1..=max).contains(n));
        Ok(self.parsed("limit", &expected, parse)?.unwrap_or(DEFAULT_LIMIT.min(max)))
    }

    /// Where the page begins.
    ///
    /// # Errors
    /// `InvalidField` when it is repeated.
    pub fn cursor(&mut self) -> Result<Option<String>> {
        self.one("cursor")
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// `UnknownField`.
    pub fn finish(self) -> Result<()> {
        let Some((name, _)) = self.pairs.first() else {
            return Ok(());
        };
        let shown: String = name.chars().take(60).flat_map(char::escape_default).collect();
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        let message = format!("query parameter `{shown}` is unknown; this route knows: {known}");
        Err(Error::parameter(Code::UnknownField, shown, message))
    }
}
