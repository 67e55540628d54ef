//! The HTTP side of opening a socket: what is asked for, and how it is refused.

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use helve_domain::error::{Code, Error};
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::frames::SUBPROTOCOL;
use crate::ops::tickets::PREFIX as TICKET;

/// Why no socket is opened.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Code,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), header: None }
    }

    /// The document of RFC 9457 that every refused request gets.
    pub(super) fn into_response(self) -> Response<Body> {
        let Self { status, code, detail, header } = self;
        let problem = json!({
            "type": format!("urn:helve:problem:{}", code.as_str()),
            "title": title(code),
            "status": status.as_u16(),
            "detail": detail,
            "code": code.as_str(),
        });
        let mut response = Response::new(Body::from(problem.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The code in words, the same as in every other problem of the interface.
const fn title(code: Code) -> &'static str {
    match code {
        Code::Malformed => "The request cannot be read",
        Code::UpgradeRequired => "Upgrade required",
        Code::UnsupportedProtocol => "Protocol error",
        Code::Unauthenticated => "Not authenticated",
        Code::Forbidden => "Not allowed",
        Code::OriginNotAllowed => "Origin not allowed",
        Code::TooManyRequests => "Limited",
        Code::Unavailable => "Unavailable",
        _ => "Internal error",
    }
}

impl From<Error> for Refusal {
    fn from(err: Error) -> Self {
        if let Error::Internal(details) = &err {
            tracing::error!(error = details, "a socket was refused");
        }
        let (status, header) = match &err {
            Error::Unauthenticated(_) => {
                (StatusCode::UNAUTHORIZED, Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"helve\""))))
            }
            Error::Forbidden(_) => (StatusCode::FORBIDDEN, None),
            Error::Limited { retry_after, .. } => {
                (StatusCode::TOO_MANY_REQUESTS, Some((RETRY_AFTER, seconds(*retry_after))))
            }
            Error::Unavailable { .. } | Error::OutcomeUnknown => {
                let after = err.retry_after().unwrap_or_default();
                (StatusCode::SERVICE_UNAVAILABLE, Some((RETRY_AFTER, seconds(after))))
            }
            Error::Invalid { code: Code::OriginNotAllowed, .. } => (StatusCode::FORBIDDEN, None),
            Error::Invalid { .. } | Error::TooLarge { .. } | Error::NotFound { .. } | Error::Conflict { .. } => {
                (StatusCode::BAD_REQUEST, None)
            }
            Error::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        Self { status, code: err.code(), detail: err.client_text(), header }
    }
}

fn seconds(wait: std::time::Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs().max(1))
}

/// Refuses a browser's page from elsewhere: a page may open a socket to any host without asking it (RFC 6455, 10.2).
pub(super) fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    match headers.get(ORIGIN) {
        Some(origin) if !allowed.iter().any(|a| a.as_bytes() == origin.as_bytes()) => {
            let detail = "no page of this origin may open a worker socket; programs outside a browser send no `Origin`";
            Err(Refusal::new(StatusCode::FORBIDDEN, Code::OriginNotAllowed, detail))
        }
        _ => Ok(()),
    }
}

/// A request that cannot be understood.
pub(super) fn malformed(detail: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, Code::Malformed, detail)
}

/// The page that asks.
pub(super) fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(ORIGIN).and_then(|origin| origin.to_str().ok())
}

/// The ticket among the subprotocols. It is never echoed: the answer may be seen where the request was not.
pub(super) fn ticket(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut tickets = items(headers, &SEC_WEBSOCKET_PROTOCOL).filter(|item| item.starts_with(TICKET));
    match (tickets.next(), tickets.next()) {
        (ticket, None) => Ok(ticket),
        _ => Err(malformed("one ticket at most opens a socket")),
    }
}

/// Checks the request as RFC 6455, 4.2.1 wants it, and gives the answer that accepts it.
pub(super) fn accept(headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    if !lists(headers, &CONNECTION, "upgrade") || !lists(headers, &UPGRADE, "websocket") {
        let detail = "this is a WebSocket: ask with `Connection: Upgrade` and `Upgrade: websocket`";
        let header = Some((UPGRADE, HeaderValue::from_static("websocket")));
        return Err(Refusal { header, ..Refusal::new(StatusCode::UPGRADE_REQUIRED, Code::UpgradeRequired, detail) });
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        let header = Some((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
        let detail = "`Sec-WebSocket-Version` must be 13";
        return Err(Refusal { header, ..Refusal::new(StatusCode::UPGRADE_REQUIRED, Code::UpgradeRequired, detail) });
    }
    let accepted = headers.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(accepted) = accepted.and_then(|text| HeaderValue::try_from(text).ok()) else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::Malformed, "`Sec-WebSocket-Key` is required"));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        if !lists(headers, &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
            let detail = format!("the one subprotocol here is `{SUBPROTOCOL}`: offer it, or none");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::UnsupportedProtocol, detail));
        }
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

/// Whether a header that is a list of words has this one.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(word))
}

/// The words of a header that is a list of them.
fn items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(changes: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in usual.iter().chain(changes) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let response = accept(&request(&[])).unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn the_subprotocol_is_echoed_and_others_are_refused() {
        let response = accept(&request(&[("sec-websocket-protocol", "chat, helve.v1")])).unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "helve.v1");
        let refusal = accept(&request(&[("sec-websocket-protocol", "helve.v2")])).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (StatusCode::BAD_REQUEST, Code::UnsupportedProtocol));
    }

    #[test]
    fn a_ticket_is_found_and_not_echoed() {
        for (offer, found) in [("helve.v1", None), ("helve.ticket.a, helve.v1", Some("helve.ticket.a"))] {
            let headers = request(&[("sec-websocket-protocol", offer)]);
            assert_eq!(ticket(&headers).unwrap(), found);
            assert_eq!(accept(&headers).unwrap().headers()["sec-websocket-protocol"], "helve.v1");
        }
        let alone = request(&[("sec-websocket-protocol", "helve.ticket.a")]);
        assert_eq!(accept(&alone).unwrap_err().code, Code::UnsupportedProtocol);
        let two = request(&[("sec-websocket-protocol", "helve.v1,helve.ticket.a,helve.ticket.b")]);
        assert_eq!(ticket(&two).unwrap_err().code, Code::Malformed);
    }

    #[test]
    fn what_is_no_upgrade_is_told_so() {
        for change in [("connection", "close"), ("upgrade", "h2c"), ("sec-websocket-version", "8")] {
            let refusal = accept(&request(&[change])).unwrap_err();
            let found = (refusal.status, refusal.code);
            assert_eq!(found, (StatusCode::UPGRADE_REQUIRED, Code::UpgradeRequired), "{change:?}");
            assert!(refusal.into_response().headers().len() == 2);
        }
        let mut headers = request(&[]);
        headers.remove("sec-websocket-key");
        assert_eq!(accept(&headers).unwrap_err().status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn an_origin_must_be_listed_exactly() {
        let allowed = ["https://app.example".to_owned()];
        assert!(check_origin(&request(&[]), &[]).is_ok());
        assert!(check_origin(&request(&[("origin", "https://app.example")]), &allowed).is_ok());
        for origin in ["https://app.example.evil", "http://app.example", "null", ""] {
            let refusal = check_origin(&request(&[("origin", origin)]), &allowed).unwrap_err();
            assert_eq!((refusal.status, refusal.code), (StatusCode::FORBIDDEN, Code::OriginNotAllowed));
        }
    }
}
