//! Tickets: a page's server asks for one, and the page opens one worker socket with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::{Clock, Timestamp};
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::TenantId;
use helve_domain::limits::Limits;
use helve_domain::offer;
use helve_domain::secret::Secret;
use helve_domain::ticket::{Allowed, MAX_LIFETIME};
use tokio::sync::Semaphore;

use crate::db::{Pool, TenantPools, tickets};
use crate::ops::auth::TenantScope;
use crate::ops::secret;

/// What every ticket begins with: it goes as it is among the subprotocols of an upgrade.
pub const PREFIX: &str = "helve.ticket.";
/// Tickets of one tenant that wait for their use.
const OPEN: i64 = 1_000;
/// Tickets that are looked up at once: who invents them must not take every connection of the pool.
const LOOKUPS: usize = 3;
/// How long a socket waits for its turn to have its ticket looked up.
const PATIENCE: Duration = Duration::from_secs(3);

const REFUSED: Error = Error::Unauthenticated("the ticket is unknown, expired or used");

/// A ticket to make.
#[derive(Debug)]
pub struct NewTicket {
    /// What the worker may offer.
    pub actions: Vec<String>,
    /// The most slots that it may have.
    pub slots: BTreeMap<String, u32>,
    /// The labels that it may have.
    pub labels: BTreeMap<String, String>,
    /// The page's origin.
    pub origin: String,
    /// How long it waits for its use.
    pub expires_in: Duration,
}

/// A ticket, shown this once.
#[derive(Debug)]
pub struct Made {
    /// Its text.
    pub text: Secret,
    /// What its worker may be.
    pub allowed: Allowed,
    /// The page's origin.
    pub origin: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A ticket that may be used, and was not yet.
#[derive(Debug)]
pub struct Ticket {
    hash: [u8; 32],
    tenant: TenantId,
}

impl Ticket {
    /// Whose it is.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }
}

/// Makes tickets and lets each be used once. Clones share one bound.
#[derive(Clone)]
pub struct Tickets {
    pool: Pool,
    /// For new ones, which a tenant asks for.
    writes: TenantPools,
    clock: Clock,
    limits: Arc<Limits>,
    origins: Arc<[String]>,
    lookups: Arc<Semaphore>,
}

impl Tickets {
    /// `origins` may open worker sockets.
    pub fn new(pool: Pool, writes: TenantPools, clock: Clock, limits: Arc<Limits>, origins: &[String]) -> Self {
        Self { pool, writes, clock, limits, origins: origins.into(), lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    /// Makes a ticket for the tenant of `scope`. Its secret is shown this once; only its hash is stored.
    ///
    /// # Errors
    /// `InvalidField`; `TooManyRequests` when too many wait for their use.
    pub async fn create(&self, scope: &TenantScope, new: NewTicket) -> Result<Made> {
        let NewTicket { actions, slots, labels, origin, expires_in } = new;
        let actions = offer::actions(&actions, &self.limits)?;
        offer::check_slots(&slots, &self.limits)?;
        offer::check_labels(&labels, &self.limits)?;
        if !self.origins.contains(&origin) {
            let message = "this origin may not open worker sockets: the setting HELVE_HTTP_ORIGINS does not list it \
                exactly like this";
            return Err(Error::field("/origin", message));
        }
        if expires_in < Duration::from_secs(1) || expires_in > MAX_LIFETIME {
            let message = format!("a ticket waits 1s to {}s for its use", MAX_LIFETIME.as_secs());
            return Err(Error::field("/expires_in", message));
        }
        let allowed = Allowed { actions: actions.iter().map(|action| (**action).to_owned()).collect(), slots, labels };
        let text = secret::generate(PREFIX)?;
        let now = self.clock.now();
        let expires_at = now.plus(expires_in);
        let row = tickets::NewTicket {
            hash: secret::hash(text.reveal()),
            tenant: scope.tenant(),
            token: scope.token(),
            allowed: allowed.clone(),
            origin: origin.clone(),
            expires_at,
        };
        if !tickets::insert(&self.writes.of(scope.tenant()), row, now, OPEN).await? {
            let message = format!("{OPEN} tickets of this tenant wait for their use");
            return Err(Error::Limited { message, retry_after: Duration::from_secs(1) });
        }
        Ok(Made { text, allowed, origin, expires_at })
    }

    /// The ticket that a page of `origin` shows. Does not use it.
    ///
    /// # Errors
    /// `Unauthenticated` when it is none, or was used; `OriginNotAllowed` when it is for another page.
    pub async fn find(&self, text: &str, origin: Option<&str>) -> Result<Ticket> {
        if !secret::is_well_formed(text, PREFIX) {
            return Err(Error::Unauthenticated("this is not a ticket of this engine"));
        }
        let hash = secret::hash(text);
        let busy = || Error::unavailable("too many tickets are being looked up");
        let turn = tokio::time::timeout(PATIENCE, self.lookups.acquire()).await.map_err(|_| busy())?;
        let _turn = turn.map_err(|_| busy())?;
        let found = tickets::find(&self.pool, hash, self.clock.now()).await?.ok_or(REFUSED)?;
        if origin != Some(&found.origin) {
            let message = "the ticket is for a page of another origin";
            return Err(Error::invalid(Code::OriginNotAllowed, None, message));
        }
        Ok(Ticket { hash, tenant: found.tenant })
    }

    /// Uses a ticket: of all who try, on all engines, one succeeds. Gives who the worker is and what it may be.
    ///
    /// # Errors
    /// `Unauthenticated` when it was used, has expired, or its token has ended. `OutcomeUnknown`: it may be used up.
    pub async fn take(&self, ticket: Ticket) -> Result<(TenantScope, Allowed)> {
        let used = tickets::take(&self.pool, ticket.hash, self.clock.now()).await?.ok_or(REFUSED)?;
        Ok((TenantScope::of_ticket(used.tenant, used.token, used.token_expires_at), used.allowed))
    }
}
