//! Points in time as clients write them.

use chrono::{DateTime, Utc};
use helve_domain::clock::Timestamp;

/// Reads RFC 3339; `None` for anything else, and for years that no database holds.
pub fn parse(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    let years = 1970..=9_999;
    years.contains(&chrono::Datelike::year(&time)).then(|| time.into())
}
