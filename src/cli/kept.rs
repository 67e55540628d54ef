//! The token of `helve dev`: kept in a file that only its owner reads, and used again at the next start.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::HEXLOWER;
use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::TenantId;
use helve_domain::scope::Scopes;
use helve_domain::secret::Secret;
use sha2::{Digest, Sha256};

use crate::db::Pool;
use crate::ops::tokens::{self, NewToken};

/// The token of an earlier start while it is valid, else a new one.
pub(super) async fn token(pool: &Pool, clock: &Clock, tenant: TenantId, file: Option<&Path>) -> Result<Secret> {
    if let Some(text) = file.and_then(|f| fs::read_to_string(f).ok()) {
        let old = text.trim();
        if tokens::check(pool, clock, old).await?.is_some_and(|t| t.tenant == tenant && t.scopes == Scopes::ADMIN) {
            return Ok(Secret::new(old));
        }
    }
    let new = NewToken { name: "helve dev".to_owned(), scopes: Scopes::ADMIN, expires_in: None };
    let (_, secret) = tokens::create(pool, clock, tenant, new).await?;
    if let Some(file) = file {
        keep(file, secret.reveal()).map_err(|e| Error::Internal(format!("{}: {e}", file.display())))?;
    }
    Ok(secret)
}

/// Writes a secret so that nobody else can read it at any moment.
pub(super) fn keep(file: &Path, secret: &str) -> std::io::Result<()> {
    let fresh = file.with_extension("new");
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut written = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
    writeln!(written, "{secret}")?;
    fs::rename(&fresh, file)
}

/// Tokens of different databases are kept apart.
pub(super) fn fingerprint(url: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(url)[..4])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_kept_token_is_readable_by_its_owner_only() {
        let file = std::env::temp_dir().join(format!("helve-token-test-{}", std::process::id()));
        for secret in ["one", "two"] {
            keep(&file, secret).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap().trim(), secret);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_file(&file).unwrap();
        assert_ne!(fingerprint("postgres://a"), fingerprint("postgres://b"));
    }
}
