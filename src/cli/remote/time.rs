//! Times as people read them.

use chrono::{DateTime, SecondsFormat, Utc};
use helve_domain::clock::{Clock, Timestamp};
use helve_domain::duration;

use super::failure::{Failure, Result};

/// A time of the interface in microseconds.
pub(super) fn micros(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_micros())
}

/// A length of time in its one or two largest units.
pub(super) fn length(micros: i64) -> String {
    let millis = micros.unsigned_abs() / 1_000;
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis}ms"),
        1..10 => format!("{}.{}s", seconds, millis % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..172_800 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How far a time is from `now`, in its largest unit.
pub(super) fn relative(at: i64, now: i64) -> String {
    let seconds = (now - at).unsigned_abs() / 1_000_000;
    let far = match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    };
    if at > now { format!("in {far}") } else { format!("{far} ago") }
}

/// `2026-11-24T10:00:00Z`.
pub(super) fn absolute(micros: i64) -> String {
    let at = DateTime::<Utc>::from_timestamp_micros(micros);
    at.map_or_else(String::new, |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A time of the command line: RFC 3339 as it is, or how long ago (`90m`, `7d`).
pub(super) fn given(text: &str) -> Result<String> {
    if micros(text).is_some() {
        return Ok(text.to_owned());
    }
    let ago = duration::parse(text)
        .ok_or_else(|| Failure::usage(format!("`{text}` is neither a time (RFC 3339) nor how long ago (90m, 7d)")))?;
    let at: Timestamp = Clock::system().now().minus(ago);
    Ok(at.to_utc().to_rfc3339_opts(SecondsFormat::Micros, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        let now = micros("2026-11-24T10:00:00Z").unwrap();
        for (at, reads) in [
            ("2026-11-24T09:59:30.5Z", "29s ago"),
            ("2026-11-24T09:00:00Z", "1h ago"),
            ("2026-11-20T10:00:00Z", "4d ago"),
            ("2026-11-24T10:05:00+00:00", "in 5m"),
        ] {
            assert_eq!(relative(micros(at).unwrap(), now), reads);
        }
        for (micros, reads) in [(4_000, "4ms"), (1_530_000, "1.5s"), (65_000_000, "1m05s"), (7_260_000_000, "2h01m")] {
            assert_eq!(length(micros), reads);
        }
        assert_eq!(absolute(now), "2026-11-24T10:00:00Z");
        assert!(given("2026-11-24T10:00:00Z").is_ok() && given("90m").unwrap().ends_with('Z'));
        assert!(given("yesterday").is_err());
    }
}
