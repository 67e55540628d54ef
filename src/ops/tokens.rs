//! Making, listing and revoking API tokens.

use std::time::Duration;

use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::{TenantId, TokenId};
use helve_domain::limits::Limits;
use helve_domain::name;
use helve_domain::scope::Scopes;
use helve_domain::secret::Secret;

use crate::db::{Pool, tokens};
use crate::ops::secret;

pub use crate::db::tokens::TokenInfo;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How long a token lives when nothing else is said.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);
/// The longest that a token may live.
pub const MAX_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3_600);

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// How long it lives, usually [`DEFAULT_LIFETIME`]. `None` never ends: for the token that `helve dev` keeps in a
    /// file beside its own database.
    pub expires_in: Option<Duration>,
}

/// Makes a token. The secret is shown this once; only its hash is stored.
///
/// # Errors
/// `InvalidField`, or `NotFound` when the tenant does not exist.
pub async fn create(pool: &Pool, clock: &Clock, tenant: TenantId, new: NewToken) -> Result<(TokenInfo, Secret)> {
    name::check_text("/name", &new.name, &Limits::default())?;
    if new.scopes.bits() == 0 {
        return Err(Error::field("/scopes", "a token has at least one scope: admin, write, read or worker"));
    }
    if new.expires_in.is_some_and(|d| d < Duration::from_secs(1) || d > MAX_LIFETIME) {
        let days = MAX_LIFETIME.as_secs() / DAY.as_secs();
        return Err(Error::field("/expires_in", format!("a token lives for 1s to {days}d")));
    }
    let secret = secret::generate(secret::TOKEN)?;
    let now = clock.now();
    let token = TokenInfo {
        id: TokenId::generate(now),
        tenant,
        name: new.name,
        scopes: new.scopes,
        created_at: now,
        expires_at: new.expires_in.map(|d| now.plus(d)),
        revoked_at: None,
    };
    let stored = tokens::insert(pool, &token, secret::hash(secret.reveal())).await?;
    stored.map(|token| (token, secret)).ok_or_else(|| Error::not_found("tenant", tenant))
}

/// Tokens of one tenant, or of all, oldest first; also those that have ended.
///
/// # Errors
/// `Unavailable`.
pub async fn list(pool: &Pool, tenant: Option<TenantId>) -> Result<Vec<TokenInfo>> {
    tokens::list(pool, tenant).await
}

/// Ends a token. Engines notice within 5 s, open sockets included. A second time changes nothing.
///
/// # Errors
/// `NotFound`.
pub async fn revoke(pool: &Pool, clock: &Clock, id: TokenId) -> Result<()> {
    let revoked = tokens::revoke(pool, id, clock.now()).await?;
    revoked.map(drop).ok_or_else(|| Error::not_found("token", id))
}

/// The token with this secret, while it is valid.
///
/// # Errors
/// `Unavailable`.
pub async fn check(pool: &Pool, clock: &Clock, token: &str) -> Result<Option<TokenInfo>> {
    if !secret::is_well_formed(token, secret::TOKEN) {
        return Ok(None);
    }
    let found = tokens::by_hash(pool, secret::hash(token)).await?;
    let now = clock.now();
    Ok(found.filter(|t| t.revoked_at.is_none() && t.expires_at.is_none_or(|end| end > now)))
}
