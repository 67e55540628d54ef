//! Who is at the other end of a socket: known by a token, by a ticket, or not yet.

use std::future::{Future, pending};
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use futures_util::future::{BoxFuture, Either};
use helve_domain::error::{Error, Result};
use helve_domain::id::{TenantId, TokenId};
use helve_domain::scope::{Scope, Scopes};
use helve_domain::secret::Secret;
use helve_domain::ticket::Allowed;
use tracing::{Span, field};

use super::Shared;
use super::upgrade::{self, Refusal};
use crate::forward::Sender;
use crate::ops::auth::TenantScope;
use crate::ops::tickets::Ticket;
use crate::share::Held;

/// The caller that opened a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who {
    pub(super) tenant: TenantId,
    pub(super) token: TokenId,
    pub(super) scopes: Scopes,
}

/// A caller that is known.
pub(super) struct Guest {
    pub(super) who: Who,
    /// What its ticket allows; one that came by a token may what that allows.
    pub(super) allowed: Option<Allowed>,
    /// Resolves when the token is no longer valid.
    pub(super) revoked: BoxFuture<'static, ()>,
    /// Its place among the sockets of its tenant; `None` when there was none.
    pub(super) place: Option<Held>,
}

/// A caller that is not known: the first frame must bring a ticket.
pub(super) struct Stranger(Introduce);

type Introduce = Box<dyn FnOnce(Secret) -> BoxFuture<'static, Result<Guest>> + Send>;

/// Who a session begins with.
pub(super) enum Caller {
    /// Known from its request.
    Guest(Guest),
    /// Known from its first frame.
    Stranger(Stranger),
}

impl Caller {
    /// The token that it came with, where it is known.
    pub(super) const fn token(&self) -> Option<TokenId> {
        match self {
            Self::Guest(guest) => Some(guest.who.token),
            Self::Stranger(_) => None,
        }
    }

    /// Resolves when the caller's token is no longer valid. Cancel-safe.
    pub(super) fn revoked(&mut self) -> impl Future<Output = ()> + Send + '_ {
        match self {
            Self::Guest(guest) => Either::Left(&mut guest.revoked),
            Self::Stranger(_) => Either::Right(pending()),
        }
    }

    /// Who it is, now that its hello is there.
    pub(super) async fn guest(self, ticket: Option<Secret>) -> Result<Guest> {
        match (self, ticket) {
            (Self::Guest(guest), None) => Ok(guest),
            (Self::Guest(_), Some(_)) => {
                Err(Error::field("/ticket", "this socket was opened with a token or a ticket already"))
            }
            (Self::Stranger(Stranger(introduce)), Some(ticket)) => introduce(ticket).await,
            (Self::Stranger(_), None) => {
                Err(Error::Unauthenticated("this socket was opened without a token: its `hello` must have a `ticket`"))
            }
        }
    }
}

/// Who asks for a socket. A ticket is not used yet.
pub(super) enum Admitted {
    Token(TenantScope),
    Ticket(Ticket),
    Stranger,
}

impl Admitted {
    /// Whose work it is for, where that is known.
    pub(super) const fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Token(scope) => Some(scope.tenant()),
            Self::Ticket(ticket) => Some(ticket.tenant()),
            Self::Stranger => None,
        }
    }
}

/// Reads who asks, and checks everything about it that changes nothing.
pub(super) async fn admit(shared: &Shared, sender: Sender, headers: &HeaderMap) -> Result<Admitted, Refusal> {
    let admitted = identify(shared, headers).await?;
    // What another engine passes on was checked there, where the page asked.
    if sender != Sender::Peer {
        upgrade::check_origin(headers, &shared.http.origins)?;
    }
    Ok(admitted)
}

async fn identify(shared: &Shared, headers: &HeaderMap) -> Result<Admitted, Refusal> {
    let ticket = upgrade::ticket(headers)?;
    if headers.contains_key(AUTHORIZATION) && ticket.is_some() {
        return Err(upgrade::malformed("a socket is opened with a token or with a ticket, not with both"));
    }
    let known = async {
        match ticket {
            Some(ticket) => shared.tickets.find(ticket, upgrade::origin(headers)).await.map(Admitted::Ticket),
            None if headers.contains_key(AUTHORIZATION) => {
                shared.authenticator.authenticate(bearer(headers)?).await.map(Admitted::Token)
            }
            // Only pages have tickets, and a page cannot but say where it is from.
            None if upgrade::origin(headers).is_some() => Ok(Admitted::Stranger),
            None => Err(Error::Unauthenticated("`Authorization: Bearer helve_..` is required")),
        }
    };
    let admitted = known.await.inspect_err(|error| shared.authenticator.note_refused(error))?;
    if let Admitted::Token(scope) = &admitted {
        scope.require(Scope::Worker)?;
    }
    Ok(admitted)
}

fn bearer(headers: &HeaderMap) -> Result<&str> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Error::Unauthenticated("`Authorization` must be `Bearer` and a token")),
    }
}

/// Makes the one who asked the one to serve. Uses its ticket.
pub(super) async fn caller(shared: &Arc<Shared>, admitted: Admitted, headers: &HeaderMap) -> Result<Caller, Refusal> {
    match admitted {
        Admitted::Token(scope) => Ok(Caller::Guest(guest(shared, &scope, None))),
        Admitted::Ticket(ticket) => {
            let (scope, allowed) = shared.tickets.take(ticket).await?;
            Ok(Caller::Guest(guest(shared, &scope, Some(allowed))))
        }
        Admitted::Stranger => {
            let unknown = Arc::clone(&shared.strangers).try_acquire_owned();
            let unknown = unknown.map_err(|_| Error::unavailable("too many sockets wait for their first frame"))?;
            let (shared, origin) = (Arc::clone(shared), upgrade::origin(headers).map(str::to_owned));
            let introduce: Introduce = Box::new(move |ticket| {
                Box::pin(async move {
                    let _unknown = unknown;
                    introduce(&shared, &ticket, origin.as_deref()).await
                })
            });
            Ok(Caller::Stranger(Stranger(introduce)))
        }
    }
}

/// A known caller. From now on its token is watched and its socket counted.
fn guest(shared: &Shared, scope: &TenantScope, allowed: Option<Allowed>) -> Guest {
    let who = Who { tenant: scope.tenant(), token: scope.token(), scopes: scope.scopes() };
    let revoked = Box::pin(shared.authenticator.revoked(who.token, scope.expires_at()));
    Guest { who, allowed, revoked, place: shared.sockets.take(who.tenant, 1, shared.http.sockets_per_tenant).ok() }
}

/// Uses the ticket of a first frame. The frame came here, so only this engine can act on it.
async fn introduce(shared: &Shared, ticket: &Secret, origin: Option<&str>) -> Result<Guest> {
    let ticket = shared.tickets.find(ticket.reveal(), origin).await;
    let ticket = ticket.inspect_err(|error| shared.authenticator.note_refused(error))?;
    if !shared.forwarder.is_here(ticket.tenant()) {
        return Err(Error::unavailable(
            "this engine does not own the tenant's shard: bring the ticket as a subprotocol, then any engine takes it",
        ));
    }
    let (scope, allowed) = shared.tickets.take(ticket).await?;
    let guest = guest(shared, &scope, Some(allowed));
    Span::current().record("tenant", field::display(guest.who.tenant)).record("token", field::display(guest.who.token));
    if guest.place.is_none() {
        let (message, retry_after) = ("too many sockets of this tenant".to_owned(), std::time::Duration::from_secs(1));
        return Err(Error::Limited { message, retry_after });
    }
    Ok(guest)
}
