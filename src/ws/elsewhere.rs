//! A worker whose tenant belongs to another engine: its socket becomes a tunnel to there.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use helve_domain::id::TenantId;
use hyper_util::rt::TokioIo;
use tracing::{Instrument, debug, info_span};

use super::guest::Admitted;
use super::upgrade::Refusal;
use super::{SWITCH, Shared, open};
use crate::forward::{NOT_OWNER, Opened, Sender, Switched};

/// Answers an upgrade that may be accepted, but not as this engine's own. `accepted` is the answer to it when this
/// engine becomes the owner meanwhile.
pub(super) async fn connect(
    shared: Arc<Shared>,
    admitted: Admitted,
    accepted: Response,
    sender: Sender,
    request: Request,
) -> Response {
    // A stranger's tenant is not known, and is asked for here.
    let Some(tenant) = admitted.tenant() else { return open(shared, admitted, accepted, request).await };
    if !sender.may_be_forwarded() {
        return match shared.forwarder.become_owner(tenant).await {
            Ok(()) => open(shared, admitted, accepted, request).await,
            Err(err) => {
                let mut response = Refusal::from(err).into_response();
                response.headers_mut().insert(NOT_OWNER, HeaderValue::from_static("1"));
                response
            }
        };
    }
    match shared.forwarder.open(tenant, sender, request.uri(), request.headers()).await {
        Ok(Some(Opened::Switched(switched))) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().clone_from(&switched.headers);
            tunnel(&shared, tenant, switched, request);
            response
        }
        Ok(Some(Opened::Refused(refusal))) => refusal.map(Body::from),
        Ok(None) => open(shared, admitted, accepted, request).await,
        Err(err) => Refusal::from(err).into_response(),
    }
}

/// Starts what carries the bytes. The owner uses the ticket, if there is one. It counts the socket for its tenant, and closes it when the token is revoked.
fn tunnel(shared: &Arc<Shared>, tenant: TenantId, switched: Switched, request: Request) {
    let span = info_span!("tunnel", tenant = %tenant);
    let (stopping, leaving) = (shared.supervisor.stopping(), shared.leaving.clone());
    let task = async move {
        let client = match tokio::time::timeout(SWITCH, hyper::upgrade::on(request)).await {
            Ok(Ok(upgraded)) => TokioIo::new(upgraded),
            Ok(Err(err)) => return debug!(error = %err, "the upgrade failed"),
            Err(_) => return debug!("the upgrade took too long"),
        };
        // The owner keeps the session, and the worker comes back by another engine.
        let ending = async {
            tokio::select! {
                () = leaving.cancelled() => {}
                () = stopping.cancelled() => {}
            }
        };
        switched.join(client, ending).await;
    };
    shared.supervisor.spawn("tunnel", shared.open.track_future(task.instrument(span)));
}
