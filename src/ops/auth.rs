//! Who is asking: tokens to tenant scopes, from memory, and word of a revocation within 5 s.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use helve_domain::clock::{Clock, Timestamp};
use helve_domain::error::{Error, Result};
use helve_domain::id::{TenantId, TokenId};
use helve_domain::ration::Ration;
use helve_domain::scope::{Scope, Scopes};
use helve_supervisor::{Schedule, Supervisor};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::db::tokens::TokenHash;
use crate::db::{Pool, tokens};
use crate::ops::secret;

/// Tokens that are kept in memory.
const CACHED: usize = 10_000;
/// Reads of unknown tokens at once: who guesses tokens must not take every connection of the pool.
const LOOKUPS: usize = 3;
/// How long a request waits for its turn to look its token up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often tokens in use are looked at again. Every pass is one query while any are in use, none otherwise.
const RECHECK: Duration = Duration::from_secs(4);
/// Passes without use after which a token leaves the memory, so that an idle engine asks the database nothing.
const IDLE_PASSES: u32 = 15;

/// Refused callers that the log tells of in one second; the others are counted.
const TOLD: u32 = 5;

const REFUSED: &str = "the token is unknown, expired or revoked";

/// What a caller may touch. Only authentication makes one, so nothing reaches a tenant's data without it.
#[derive(Debug, Clone)]
pub struct TenantScope {
    tenant: TenantId,
    token: TokenId,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
}

impl TenantScope {
    /// Whose data it is.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// By which token the caller came.
    pub const fn token(&self) -> TokenId {
        self.token
    }

    /// What the token may do.
    pub const fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// When the token ends by itself.
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Of a worker that came by a ticket: as much as the token that made it, but for worker sockets alone.
    pub(in crate::ops) fn of_ticket(tenant: TenantId, token: TokenId, expires_at: Option<Timestamp>) -> Self {
        Self { tenant, token, scopes: Scopes::of(&[Scope::Worker]), expires_at }
    }

    /// Goes on only with this scope.
    ///
    /// # Errors
    /// `Forbidden`.
    pub const fn require(&self, scope: Scope) -> Result<()> {
        if self.scopes.allow(scope) { Ok(()) } else { Err(Error::Forbidden(scope.as_str())) }
    }
}

/// Authenticates by token. Clones share one memory.
#[derive(Clone)]
pub struct Authenticator(Arc<Shared>);

struct Shared {
    pool: Pool,
    clock: Clock,
    cache: RwLock<HashMap<TokenHash, Cached>>,
    lookups: Semaphore,
    watched: Mutex<HashMap<TokenId, Watched>>,
    /// Lines of the log about refusals.
    refusals: Mutex<Ration<Instant>>,
}

struct Cached {
    scope: TenantScope,
    used: AtomicBool,
    idle_passes: u32,
}

/// Open sockets that came by one token.
struct Watched {
    ended: CancellationToken,
    sockets: usize,
}

/// Counts a socket out when its future is dropped.
struct Watching {
    shared: Arc<Shared>,
    token: TokenId,
}

impl Authenticator {
    /// Starts the pass that notices revocations.
    pub fn start(pool: Pool, clock: Clock, supervisor: &Supervisor) -> Self {
        let shared = Arc::new(Shared {
            pool,
            clock,
            cache: RwLock::default(),
            lookups: Semaphore::new(LOOKUPS),
            watched: Mutex::default(),
            refusals: Mutex::new(Ration::of(TOLD, Duration::from_secs(1))),
        });
        let schedule = Schedule::of("tokens", RECHECK);
        let pass = Arc::clone(&shared);
        supervisor.every(schedule, move || recheck(Arc::clone(&pass)));
        Self(shared)
    }

    /// What the bearer of `token` may touch.
    ///
    /// # Errors
    /// `Unauthenticated`, or `Unavailable` when an unknown token cannot be looked up.
    pub async fn authenticate(&self, token: &str) -> Result<TenantScope> {
        if !secret::is_well_formed(token, secret::TOKEN) {
            return Err(Error::Unauthenticated("this is not a token of this engine"));
        }
        let hash = secret::hash(token);
        if let Some(known) = self.0.cached(&hash) {
            return known;
        }
        let busy = || Error::unavailable("too many unknown tokens are being looked up");
        let turn = tokio::time::timeout(PATIENCE, self.0.lookups.acquire()).await.map_err(|_| busy())?;
        let _turn = turn.map_err(|_| busy())?;
        // Ten thousand sockets that come back with one token wait here for one read.
        if let Some(known) = self.0.cached(&hash) {
            return known;
        }
        let found = tokens::by_hash(&self.0.pool, hash).await?.filter(|found| found.revoked_at.is_none());
        let found = found.ok_or(Error::Unauthenticated(REFUSED))?;
        let scope =
            TenantScope { tenant: found.tenant, token: found.id, scopes: found.scopes, expires_at: found.expires_at };
        self.0.still_valid(&scope)?;
        self.0.remember(hash, scope.clone());
        Ok(scope)
    }

    /// Tells the log of a caller who is not known: nothing of what it sent, and a few lines a second at most. Other
    /// errors are not its business.
    pub fn note_refused(&self, error: &Error) {
        let Error::Unauthenticated(why) = error else { return };
        let now = self.0.clock.instant();
        let turn = self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner).take(now);
        if let Some(untold) = turn {
            tracing::warn!(why, more = untold, "a caller was not authenticated");
        }
    }

    /// Resolves when the token is no longer valid: revoked (within 5 s) or expired. Cancel-safe; costs no timer and
    /// no task, so that every open socket may hold one.
    pub fn revoked(&self, token: TokenId, expires_at: Option<Timestamp>) -> impl Future<Output = ()> + Send + 'static {
        let ended = {
            let mut watched = self.0.watched();
            let entry = watched.entry(token).or_insert_with(|| Watched { ended: CancellationToken::new(), sockets: 0 });
            entry.sockets += 1;
            entry.ended.clone()
        };
        let watching = Watching { shared: Arc::clone(&self.0), token };
        let over = expires_at.is_some_and(|end| end <= self.0.clock.now());
        async move {
            let _watching = watching;
            if !over {
                ended.cancelled().await;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watched = self.shared.watched();
        if let Some(entry) = watched.get_mut(&self.token) {
            entry.sockets -= 1;
            if entry.sockets == 0 {
                watched.remove(&self.token);
            }
        }
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, HashMap<TokenId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn still_valid(&self, scope: &TenantScope) -> Result<()> {
        match scope.expires_at.is_none_or(|end| end > self.clock.now()) {
            true => Ok(()),
            false => Err(Error::Unauthenticated(REFUSED)),
        }
    }

    fn cached(&self, hash: &TokenHash) -> Option<Result<TenantScope>> {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let entry = cache.get(hash)?;
        entry.used.store(true, Ordering::Relaxed);
        Some(self.still_valid(&entry.scope).map(|()| entry.scope.clone()))
    }

    fn remember(&self, hash: TokenHash, scope: TenantScope) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED
            && let Some(other) = cache.keys().next().copied()
        {
            cache.remove(&other);
        }
        cache.insert(hash, Cached { scope, used: AtomicBool::new(true), idle_passes: 0 });
    }

    /// Tokens in use; what was not used for long leaves the memory.
    fn in_use(&self) -> Vec<TokenId> {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, entry| {
            let used = entry.used.swap(false, Ordering::Relaxed);
            entry.idle_passes = if used { 0 } else { entry.idle_passes + 1 };
            entry.idle_passes < IDLE_PASSES
        });
        let mut ids: Vec<_> = cache.values().map(|entry| entry.scope.token).collect();
        drop(cache);
        ids.extend(self.watched().keys());
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn forget(&self, ended: &[TokenId]) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, entry| !ended.contains(&entry.scope.token));
        drop(cache);
        let watched = self.watched();
        ended.iter().filter_map(|id| watched.get(id)).for_each(|entry| entry.ended.cancel());
    }
}

async fn recheck(shared: Arc<Shared>) -> Result<()> {
    let ids = shared.in_use();
    if ids.is_empty() {
        return Ok(());
    }
    let ended = tokens::ended(&shared.pool, &ids, shared.clock.now()).await?;
    if !ended.is_empty() {
        tracing::info!(tokens = ended.len(), "tokens have ended");
        shared.forget(&ended);
    }
    Ok(())
}
