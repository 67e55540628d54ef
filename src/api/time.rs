//! Points in time as clients write them.

use chrono::{DateTime, Utc};
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};

/// Reads RFC 3339; `None` for anything else, and for years that no database holds.
pub fn parse(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    let years = 1970..=9_999;
    years.contains(&chrono::Datelike::year(&time)).then(|| time.into())
}

/// Reads the time of the field that `at` points to; `None`: the field is absent.
///
/// # Errors
/// `InvalidField`.
pub fn field(at: &str, text: Option<&str>) -> Result<Option<Timestamp>> {
    let wrong = || Error::field(at, "expected a time such as 2026-01-31T12:00:00Z");
    text.map(|text| parse(text).ok_or_else(wrong)).transpose()
}
