//! Pages of listed origins may ask: the same that may open a worker socket.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser need not ask again whether it may.
const MAX_AGE: Duration = Duration::from_secs(600);
/// What a page may send beside what every page may.
const SENT: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("prefer"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-request-id"),
];
/// What a page may read of an answer beside what every page may.
const READ: [HeaderName; 4] =
    [HeaderName::from_static("x-request-id"), header::RETRY_AFTER, header::LOCATION, header::ALLOW];

/// Says to browsers that pages of these origins may ask; `None`: there are none, and no answer says anything of it.
pub fn layer(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
    // Cookies mean nothing here: a page shows its token, so that no credentials are allowed.
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods(methods)
        .allow_headers(SENT)
        .expose_headers(READ)
        .max_age(MAX_AGE);
    (!origins.is_empty()).then_some(layer)
}
