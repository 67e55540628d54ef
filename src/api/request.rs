//! Around every request: its id, its span, its headers, and a 500 for what panics.

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use helve_domain::clock::Timestamp;
use helve_domain::error::{Code, Error};
use tracing::Instrument;
use tracing::field::Empty;

use super::ApiState;
use super::problem::{ApiError, Refused};
use super::trace;

/// Lines about requests that were refused for what they are have a target of their own: `helve::api::refused=debug`.
const REFUSED: &str = "helve::api::refused";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID: usize = 128;

/// The layer around every route.
pub async fn observe(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers(), state.clock.now());
    // Also for the engine to which it may be passed on.
    request.headers_mut().insert(REQUEST_ID, id.clone());
    // Shared text: a clone copies nothing.
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("", MatchedPath::as_str);
    let (trace_id, traced) = trace::begin(&state, matched.as_ref(), request.headers_mut());
    let span = tracing::info_span!(
        "http",
        http.method = %request.method(),
        http.route = route,
        http.status = Empty,
        request.id = id.to_str().unwrap_or_default(),
        tenant.id = Empty,
        trace_id = Empty,
    );
    if let Some(trace_id) = trace_id {
        span.record("trace_id", tracing::field::display(trace_id));
    }
    let counted = state.observed.requests().place(request.method(), route);
    let method = traced.as_ref().map(|_| request.method().clone());
    let started = state.clock.instant();
    let answered = match refused_encoding(request.headers()) {
        None => AssertUnwindSafe(next.run(request).instrument(span.clone())).catch_unwind().await,
        Some(refused) => Ok(refused),
    };
    let _inside = span.enter();
    // The panic hook has logged where it happened.
    let mut response = answered.unwrap_or_else(|_| {
        let panicked = Error::Internal("the handler panicked".to_owned());
        ApiError(panicked).into_response()
    });
    let status = response.status().as_u16();
    span.record("http.status", status);
    let took = started.elapsed();
    counted.answered(status, took);
    if let Some((traced, method)) = traced.zip(method) {
        traced.end(&state, (&method, matched.as_ref()), &id, &response);
    }
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(http.status = status, duration_us, "answered");
    if let Some(Refused(code)) = response.extensions().get().filter(|_| status < 500) {
        tracing::debug!(target: REFUSED, { http.status = status, code }, "refused");
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Refuses a body that is not what it stands for, before it is read: compressed bytes would become the payload.
fn refused_encoding(headers: &HeaderMap) -> Option<Response> {
    let mut codings =
        headers.get_all(header::CONTENT_ENCODING).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    if codings.all(|coding| coding.trim_ascii().is_empty() || coding.trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return None;
    }
    let message = "this engine takes bodies as they are: send it without `Content-Encoding`, or with `identity`";
    let mut response = ApiError(Error::invalid(Code::UnsupportedMediaType, None, message)).into_response();
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Some(response)
}

/// The caller's id when it is harmless in a log line, else a fresh one.
fn request_id(headers: &HeaderMap, now: Timestamp) -> HeaderValue {
    let harmless = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let legal = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b);
        (1..=MAX_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(legal)
    };
    if let Some(given) = headers.get(REQUEST_ID).filter(harmless) {
        return given.clone();
    }
    let fresh = helve_domain::id::RequestId::generate(now).to_string();
    HeaderValue::from_str(&fresh).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_harmless_id_is_kept() {
        let id = |text: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(text).unwrap())]);
            request_id(&headers, Timestamp::from_micros(1)).to_str().unwrap().to_owned()
        };
        assert_eq!(id("abc-123"), "abc-123");
        assert_eq!(id(&"a".repeat(128)).len(), 128);
        for bad in ["a b", "a\"b", "{}", &"a".repeat(129)] {
            assert!(id(bad).starts_with("req_"), "{bad}");
        }
    }
}
