//! Requests that only the owner of the tenant's shard can answer: passed on when that is another engine.

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use helve_domain::error::Error;
use helve_domain::id::TenantId;

use super::ApiState;
use super::json;
use super::problem::ApiError;
use crate::forward::{NOT_OWNER, Outgoing, Sender};
use crate::ops::auth::TenantScope;

/// What reads the database alone: every engine answers it, also while a shard has no owner. Everything else touches the
/// owner's memory, or may: a route that is not named here is the owner's.
const READS: &[&str] = &[
    "/v1/runs",
    "/v1/runs/{id}",
    "/v1/runs/{id}/logs",
    "/v1/events",
    "/v1/events/{id}",
    "/v1/jobs",
    "/v1/jobs/{id}",
    "/v1/jobs/{id}/runs",
    "/v1/pauses",
];

/// Lets a request through where the tenant's shard is, behind authentication.
pub async fn to_owner(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let Some(tenant) = request.extensions().get::<TenantScope>().map(TenantScope::tenant) else {
        return ApiError(Error::Unauthenticated("this route needs a token")).into_response();
    };
    let sender = state.forwarder.sender(request.headers_mut());
    if state.forwarder.is_here(tenant) || is_read(&request) {
        return next.run(request).await;
    }
    if sender.may_be_forwarded() {
        return pass_on(&state, tenant, sender, request, next).await.unwrap_or_else(IntoResponse::into_response);
    }
    match state.forwarder.become_owner(tenant).await {
        Ok(()) => next.run(request).await,
        Err(err) => {
            let mut response = ApiError(err).into_response();
            response.headers_mut().insert(NOT_OWNER, HeaderValue::from_static("1"));
            response
        }
    }
}

fn is_read(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    request.method().is_safe() && READS.contains(&path)
}

async fn pass_on(
    state: &ApiState,
    tenant: TenantId,
    sender: Sender,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body = json::collect(&head, body, state).await?;
    let outgoing = Outgoing {
        method: head.method.clone(),
        uri: head.uri.clone(),
        headers: head.headers.clone(),
        body: body.clone(),
    };
    match state.forwarder.send(tenant, sender, &outgoing).await? {
        Some(response) => Ok(response.map(Body::new)),
        None => Ok(next.run(Request::from_parts(head, Body::from(body))).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_anywhere_exists() {
        let document = serde_json::to_value(crate::api::openapi()).unwrap();
        for path in READS {
            assert!(document["paths"][path]["get"].is_object(), "{path}");
        }
    }
}
