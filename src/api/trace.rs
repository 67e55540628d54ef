//! W3C trace context of a request, and the span of its answer.

use axum::extract::MatchedPath;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::Response;
use helve_domain::clock::Timestamp;
use helve_domain::id::TenantId;
use helve_domain::span::{RequestSpan, Span, SpanOf};
use helve_domain::trace::{SpanContext, SpanId, TraceId};
use utoipa::IntoParams;

use super::ApiState;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What is traced: what a token is needed for. Probes and scrapes are not.
const TRACED: &str = "/v1/";

/// The trace that a request belongs to, as the operations that start runs describe it; [`parent`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the parameter")]
pub struct TraceHeader {
    /// W3C trace context; travels to the workers
    #[param(nullable = false)]
    traceparent: Option<String>,
}

/// The header `traceparent` when it is valid; a broken one is ignored, as the standard asks.
pub fn parent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    is_valid(text).then(|| text.to_owned())
}

/// Whether this is what the standard calls a traceparent.
pub fn is_valid(text: &str) -> bool {
    SpanContext::parse(text).is_some()
}

/// A request of a recorded trace.
pub struct Traced {
    context: SpanContext,
    parent: Option<SpanId>,
    start: Timestamp,
}

/// The trace of a request, and its span if that is recorded. With a recorder the header is the span's own from here on:
/// the runs that the request starts, and the engine that it may be passed on to, stand below it. A request of a trace that
/// is not recorded says so to them. Without a recorder nothing is changed.
pub fn begin(
    state: &ApiState,
    route: Option<&MatchedPath>,
    headers: &mut HeaderMap,
) -> (Option<TraceId>, Option<Traced>) {
    let parent = headers.get(TRACEPARENT).and_then(|value| SpanContext::parse(value.to_str().ok()?));
    let came = parent.map(|parent| parent.trace);
    let Some(sampler) = state.tracer.sampler().filter(|_| route.is_some_and(|r| r.as_str().starts_with(TRACED))) else {
        return (came, None);
    };
    // Without randomness there are no ids, and nothing is recorded.
    let Some((trace, span)) = fresh() else { return (came, None) };
    let trace = came.unwrap_or(trace);
    let recorded = sampler.records(trace, parent);
    let flags = parent.map_or(0, |parent| parent.flags) & !1 | u8::from(recorded);
    let context = SpanContext { trace, span, flags };
    // A span that nobody will see stands between no others.
    let passed_on = if recorded { context } else { SpanContext { flags, ..parent.unwrap_or(context) } };
    if let Ok(value) = HeaderValue::try_from(passed_on.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
    let traced = recorded.then(|| Traced { context, parent: parent.map(|p| p.span), start: state.clock.now() });
    (Some(trace), traced)
}

fn fresh() -> Option<(TraceId, SpanId)> {
    let (mut trace, mut span) = ([0; 16], [0; 8]);
    getrandom::fill(&mut trace).ok()?;
    getrandom::fill(&mut span).ok()?;
    TraceId::new(trace).zip(SpanId::new(span))
}

impl Traced {
    /// The request is answered.
    pub fn end(self, state: &ApiState, asked: (&Method, Option<&MatchedPath>), id: &HeaderValue, answer: &Response) {
        let (method, route) = asked;
        let of = SpanOf::Request(RequestSpan {
            method: method.as_str().into(),
            route: route.map_or("", MatchedPath::as_str).into(),
            status: answer.status().as_u16(),
            tenant: answer.extensions().get::<TenantId>().copied(),
            request: id.to_str().unwrap_or_default().into(),
        });
        let Self { context, parent, start } = self;
        state.tracer.record(Span { context, parent, start, end: state.clock.now(), of });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_standard_allows_travels_on() {
        let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = |text: &str| HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_str(text).unwrap())]);
        assert_eq!(parent(&headers(sent)).as_deref(), Some(sent));
        for wrong in ["", "x", &sent[..54], &sent.to_uppercase()] {
            assert_eq!(parent(&headers(wrong)), None, "{wrong}");
        }
    }
}
