//! Authentication of every request under `/v1`, and the scope that a handler may use.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use helve_domain::error::{Error, Result};
use helve_domain::scope::Scope;

use super::ApiState;
use super::problem::ApiError;
use crate::ops::auth::TenantScope;

/// Lets a request through with the scope of its token. Stands before all of `/v1`: a handler that forgets to ask for
/// a scope has no tenant to work with, and still is not open to strangers.
pub async fn authenticate(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let known = match bearer(request.headers()) {
        Ok(token) => state.authenticator.authenticate(token).await,
        Err(missing) => Err(missing),
    };
    let scope = known.inspect_err(|error| state.authenticator.note_refused(error))?;
    let tenant = scope.tenant();
    tracing::Span::current().record("tenant.id", tracing::field::display(tenant));
    request.extensions_mut().insert(scope);
    let mut response = next.run(request).await;
    if state.tracer.sampler().is_some() {
        // The request's span is made where the tenant is not known.
        response.extensions_mut().insert(tenant);
    }
    Ok(response)
}

pub fn bearer(headers: &HeaderMap) -> Result<&str> {
    let missing = Error::Unauthenticated("send a token in the header `Authorization: Bearer helve_..`");
    let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return Err(missing);
    };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(missing),
    }
}

fn scope(parts: &Parts, wanted: Scope) -> Result<TenantScope, ApiError> {
    let scope = parts.extensions.get::<TenantScope>().cloned();
    let scope = scope.ok_or(Error::Unauthenticated("this route needs a token"))?;
    scope.require(wanted)?;
    Ok(scope)
}

/// A caller that may look.
pub struct Reader(pub TenantScope);

impl<S: Sync> FromRequestParts<S> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        scope(parts, Scope::Read).map(Self)
    }
}

/// A caller that may change.
pub struct Writer(pub TenantScope);

impl<S: Sync> FromRequestParts<S> for Writer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        scope(parts, Scope::Write).map(Self)
    }
}

/// A caller that may hold a worker socket.
pub struct WorkerHolder(pub TenantScope);

impl<S: Sync> FromRequestParts<S> for WorkerHolder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        scope(parts, Scope::Worker).map(Self)
    }
}
