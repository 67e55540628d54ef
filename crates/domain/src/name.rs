//! Names: workflows, actions, event keys, idempotency keys, worker names, metadata.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::limits::Limits;

/// A name for people and machines: 1 to 255 bytes of letters, digits and `_ - . : /`.
pub fn check(pointer: &str, name: &str, limits: &Limits) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    if name.is_empty() || name.len() > limits.name_bytes || !name.chars().all(legal) {
        return Err(Error::field(
            pointer,
            format!(
                "a name has 1 to {} bytes of ASCII letters, digits and `_ - . : /`; got {} bytes: `{}`",
                limits.name_bytes,
                name.len(),
                shown(name)
            ),
        ));
    }
    Ok(())
}

/// As [`check`], for a name that is given to something new: it stands in paths, where clients and proxies take `.` and
/// `..` between slashes for steps, and lead elsewhere. What had such a name before this rule keeps it.
pub fn check_new(pointer: &str, name: &str, limits: &Limits) -> Result<()> {
    check(pointer, name, limits)?;
    if name.split('/').any(|part| matches!(part, "." | "..")) {
        let message =
            format!("`.` and `..` are no names, also not between slashes: in a path they are steps; got `{name}`");
        return Err(Error::field(pointer, message));
    }
    Ok(())
}

/// Free text with a limit: 1 to 255 bytes without control characters.
pub fn check_text(pointer: &str, text: &str, limits: &Limits) -> Result<()> {
    if text.is_empty() || text.len() > limits.name_bytes || text.chars().any(char::is_control) {
        return Err(Error::field(
            pointer,
            format!(
                "expected 1 to {} bytes of text without control characters; got {} bytes",
                limits.name_bytes,
                text.len()
            ),
        ));
    }
    Ok(())
}

/// Metadata or labels: a flat object of strings, bounded in keys and bytes, without NUL.
pub fn check_metadata(pointer: &str, metadata: &BTreeMap<String, String>, limits: &Limits) -> Result<()> {
    if metadata.len() > limits.metadata_keys {
        return Err(Error::field(
            pointer,
            format!("at most {} keys are allowed; got {}", limits.metadata_keys, metadata.len()),
        ));
    }
    let bytes: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > limits.metadata_bytes {
        return Err(Error::field(
            pointer,
            format!("keys and values may have {} bytes in all; got {bytes}", limits.metadata_bytes),
        ));
    }
    for (key, value) in metadata {
        if key.is_empty() || key.len() > limits.name_bytes || key.contains('\0') {
            return Err(Error::field(
                pointer,
                format!("a key has 1 to {} bytes and no NUL; got `{}`", limits.name_bytes, shown(key)),
            ));
        }
        if value.contains('\0') {
            return Err(Error::field(format!("{pointer}/{key}"), "NUL (\\u0000) is not allowed here"));
        }
    }
    Ok(())
}

/// The beginning of what a client sent, safe to repeat in an error.
fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_is_no_step_of_a_path() {
        let limits = Limits::default();
        for name in [".", "..", "a/..", "./a", "a/../b"] {
            let refused = check_new("/name", name, &limits).unwrap_err();
            assert!(refused.client_text().contains("steps"), "{name}");
            assert!(check("/name", name, &limits).is_ok(), "what has the name already is found by it: {name}");
        }
        for name in ["...", ".a", "a..", "a.b/c.d", "/a"] {
            assert!(check_new("/name", name, &limits).is_ok(), "{name}");
        }
    }
}
