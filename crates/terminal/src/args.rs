//! Values of flags that several commands share.

use std::time::Duration;

use helve_domain::duration;

/// Reads a duration of at least a millisecond.
pub fn span(text: &str) -> Result<Duration, String> {
    let parsed = duration::parse_field("", text).map_err(|e| e.client_text())?;
    if parsed < Duration::from_millis(1) { Err("must be longer than zero".to_owned()) } else { Ok(parsed) }
}

/// Reads `name=value`: a setting of a private PostgreSQL.
pub fn pg_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.');
    if name.is_empty() || !name.bytes().all(plain) || value.contains('\0') {
        return Err(format!("`{name}` is not the name of a setting"));
    }
    Ok((name.to_owned(), value.to_owned()))
}
