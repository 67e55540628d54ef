//! What a request gains and loses on its way from one engine to another.

use helve_domain::secret::{self, Secret};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use sha2::{Digest, Sha256};

/// Brings the receiver's secret: only an engine on the same database can have read it.
pub const PEER: HeaderName = HeaderName::from_static("helve-peer");
/// How many engines have passed the request on. Anyone may send it, since it can only limit.
pub const HOPS: HeaderName = HeaderName::from_static("helve-hops");
/// On a 503: the receiver does not own the tenant's shard, and did nothing.
pub const NOT_OWNER: HeaderName = HeaderName::from_static("helve-not-owner");
/// Requests with so many hops are not passed on any more. One is usual; more come only from secrets that are out of
/// date on both sides.
const MAX_HOPS: u8 = 3;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Headers that belong to one connection (RFC 9110, 7.6.1).
const OF_ONE_HOP: [HeaderName; 8] =
    [CONNECTION, KEEP_ALIVE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A client. It may have come by another engine that it does not prove.
    Client {
        /// Engines that it claims to have passed.
        hops: u8,
    },
    /// Another engine, which took it for this one's: it is not passed on again.
    Peer,
}

impl Sender {
    /// Whether a request of this sender may go on to another engine.
    pub const fn may_be_forwarded(self) -> bool {
        matches!(self, Self::Client { hops } if hops < MAX_HOPS)
    }
}

/// The hash by which a secret is recognised.
pub(super) fn hash(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.reveal().as_bytes()).into()
}

/// Takes the headers of engines off a request. Without the right secret it is a client's.
pub(super) fn take(own: &[u8; 32], headers: &mut HeaderMap) -> Sender {
    let hops = headers.remove(HOPS).map_or(0, |value| value.to_str().ok().and_then(|n| n.parse().ok()).unwrap_or(0));
    let Some(given) = headers.remove(PEER) else {
        return Sender::Client { hops };
    };
    let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
    if secret::is_same(own, &given) { Sender::Peer } else { Sender::Client { hops } }
}

/// Puts the headers of engines onto a request.
pub(super) fn put(secret: &Secret, hops: u8, headers: &mut HeaderMap) {
    if let Ok(mut value) = HeaderValue::from_str(secret.reveal()) {
        value.set_sensitive(true);
        headers.insert(PEER, value);
    }
    headers.insert(HOPS, HeaderValue::from(u16::from(hops)));
}

/// Makes a client's request one that can go on: its body was read, and is sent anew.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(EXPECT);
    headers.remove(CONTENT_LENGTH);
}

/// Makes another engine's answer one for the client.
pub(super) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(NOT_OWNER);
}

/// Removes what belongs to one connection, also what the connection itself names.
fn strip(headers: &mut HeaderMap) {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let named: Vec<HeaderName> =
        lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.iter().chain(&OF_ONE_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_the_right_secret_is_trusted_and_nothing_of_it_stays() {
        let own = Secret::new("right");
        for (given, sender) in [
            (&[("helve-peer", "right"), ("helve-hops", "1")][..], Sender::Peer),
            (&[("helve-peer", "right")], Sender::Peer),
            (&[("helve-peer", "wrong"), ("helve-hops", "1")], Sender::Client { hops: 1 }),
            (&[("helve-peer", "right2")], Sender::Client { hops: 0 }),
            (&[("helve-peer", "")], Sender::Client { hops: 0 }),
            (&[("helve-hops", "2")], Sender::Client { hops: 2 }),
            (&[("helve-hops", "-1")], Sender::Client { hops: 0 }),
            (&[], Sender::Client { hops: 0 }),
        ] {
            let mut headers = headers(given);
            assert_eq!(take(&hash(&own), &mut headers), sender, "{given:?}");
            assert!(headers.is_empty(), "{given:?}");
        }
    }

    #[test]
    fn the_number_of_hops_only_limits() {
        assert!(Sender::Client { hops: 0 }.may_be_forwarded() && Sender::Client { hops: 2 }.may_be_forwarded());
        assert!(!Sender::Client { hops: 3 }.may_be_forwarded() && !Sender::Client { hops: 255 }.may_be_forwarded());
        assert!(!Sender::Peer.may_be_forwarded());
    }

    #[test]
    fn what_belongs_to_a_connection_stays_with_it() {
        let mut headers = headers(&[
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("content-length", "3"),
            ("authorization", "Bearer x"),
            ("traceparent", "t"),
            ("x-request-id", "r"),
            ("x-forwarded-for", "192.0.2.1"),
            ("idempotency-key", "k"),
        ]);
        strip_request(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "idempotency-key", "traceparent", "x-forwarded-for", "x-request-id"]);
    }

    #[test]
    fn the_secret_is_not_shown() {
        let mut headers = HeaderMap::new();
        put(&Secret::new("hush"), 1, &mut headers);
        assert!(!format!("{headers:?}").contains("hush"));
        assert_eq!(headers[HOPS], "1");
    }
}
