//! Request bodies: read up to the limit, then parsed with an error that points at the field.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use helve_domain::error::{Code, Error, Result};
use helve_domain::plain;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::ApiState;
use super::media;
use super::problem::ApiError;
use crate::ops::auth::TenantScope;

/// How long a client may take to send its body.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a request holds beside its body: what is parsed, the connection, the answer.
const REQUEST: usize = 4 << 10;
/// A body from this size on is parsed while other threads take over what this one had to do: a megabyte keeps a
/// processor busy for a millisecond or two, and to hand over takes some 20 us.
const LONG: usize = 64 << 10;

/// The bytes of a JSON body, within the limit. Parsed by the handler, so that parts of it can be passed on as they are.
/// They count against the tenant's share until the last part is dropped.
pub struct JsonBody(pub Bytes);

impl FromRequest<ApiState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        read(request, state).await.map(Self).map_err(ApiError)
    }
}

/// As [`JsonBody`], for a body of options that may be absent: nothing means `{}`.
pub struct OptionalJsonBody(pub Bytes);

impl FromRequest<ApiState> for OptionalJsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let typed = check_type(request.headers());
        let body = read(request, state).await?;
        if body.is_empty() {
            return Ok(Self(Bytes::from_static(b"{}")));
        }
        typed?;
        Ok(Self(body))
    }
}

/// The bytes of a body of any media type, within the limit. The handler decides by the headers what they are.
pub struct AnyBody(pub Bytes);

impl FromRequest<ApiState> for AnyBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        read(request, state).await.map(Self).map_err(ApiError)
    }
}

fn check_type(headers: &HeaderMap) -> Result<()> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if media::essence(value).eq_ignore_ascii_case("application/json") {
        return media::check_charset(value);
    }
    let message = "expected the header `Content-Type: application/json`";
    Err(Error::invalid(Code::UnsupportedMediaType, None, message))
}

async fn read(request: Request, state: &ApiState) -> Result<Bytes> {
    let (head, body) = request.into_parts();
    collect(&head, body, state).await
}

/// Reads a whole body, which counts against its tenant's share.
///
/// # Errors
/// `Limited` when the share is used up; `TooLarge`, or `Malformed` when it ends early or does not come in time.
pub async fn collect(head: &Parts, body: Body, state: &ApiState) -> Result<Bytes> {
    let limit = state.limits.body_bytes;
    let too_large = |size| Error::TooLarge { what: "the request body", size, limit };
    let announced = head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if let Some(size) = announced.filter(|size| *size > limit) {
        return Err(too_large(Some(size)));
    }
    let scope = head.extensions.get::<TenantScope>();
    let tenant = scope.ok_or(Error::Unauthenticated("this route needs a token"))?.tenant();
    // Before a byte is read. A body without a length may become as long as it can.
    let longest = body.size_hint().upper().and_then(|size| usize::try_from(size).ok());
    let mut held = state.shares.take(tenant, longest.unwrap_or(limit) + REQUEST)?;
    let body = Limited::new(body, limit).collect();
    let late = || Error::invalid(Code::Malformed, None, "the request body did not arrive within 30 s");
    match tokio::time::timeout(PATIENCE, body).await.map_err(|_| late())? {
        Ok(body) => {
            let body = body.to_bytes();
            held.set(body.len() + REQUEST);
            Ok(held.keep(body))
        }
        Err(e) if e.is::<LengthLimitError>() => Err(too_large(None)),
        Err(_) => Err(Error::invalid(Code::Malformed, None, "the request body ended early")),
    }
}

/// Parses a whole body.
///
/// # Errors
/// `Malformed`, `UnknownField`, `MissingField`, `InvalidField` or `TooDeep`, with the field's JSON pointer.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    aside(body.len(), || parse_part("", text(body)?))
}

/// Does what takes a time that grows with `size`, without holding up the other requests of this thread.
fn aside<T>(size: usize, work: impl FnOnce() -> T) -> T {
    let shared = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if size >= LONG && shared { tokio::task::block_in_place(work) } else { work() }
}

/// The text of a body.
///
/// # Errors
/// `Malformed` when it is empty or not UTF-8.
pub fn text(body: &[u8]) -> Result<&str> {
    let wrong = |message| Error::invalid(Code::Malformed, None, message);
    let text = std::str::from_utf8(body)
        .map_err(|e| wrong(format!("the body is not UTF-8 after byte {}", e.valid_up_to())))?;
    if text.trim_ascii().is_empty() {
        return Err(wrong("the body is empty: JSON is expected".to_owned()));
    }
    Ok(text)
}

/// The items of a body that is a list.
///
/// # Errors
/// As [`parse`].
pub fn parse_list(body: &[u8]) -> Result<Vec<&RawValue>> {
    aside(body.len(), || {
        serde_json::from_str(text(body)?).map_err(|error| match error.classify() {
            Category::Data => Error::field("", "expected a JSON list"),
            _ => explain(String::new(), &error),
        })
    })
}

/// Parses a part of a body that stands at the JSON pointer `at`.
///
/// # Errors
/// As [`parse`].
pub fn parse_part<'a, T: Deserialize<'a>>(at: &str, text: &'a str) -> Result<T> {
    // The derived parsers would also take an array of values in the order of the fields.
    let blank = [' ', '\t', '\r', '\n'];
    if !text.trim_start_matches(blank).starts_with('{') {
        return Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Error::field(at, "expected a JSON object"),
            Err(error) => explain(at.to_owned(), &error),
        });
    }
    serde_json::from_str(text).map_err(|error| {
        // Following the path costs time, so only what failed is parsed again with it.
        let mut again = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut again) {
            Err(traced) if plain::is_no_name(&traced.inner().to_string()) && is_json(text) => {
                Error::field(plain::pointer(at, traced.path()), plain::NO_NAME)
            }
            Err(traced) => {
                let pointer = plain::pointer(at, traced.path());
                explain(pointer, traced.inner())
            }
            Ok(_) => explain(at.to_owned(), &error),
        }
    })
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn explain(mut pointer: String, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    if error.classify() != Category::Data {
        let code = if text.starts_with("recursion limit") { Code::TooDeep } else { Code::Malformed };
        let pointer = Some(pointer).filter(|p| !p.is_empty());
        let why = shortened(&plain::syntax(error));
        return Error::invalid(code, pointer, format!("the body is not valid JSON: {why}"));
    }
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let named = |prefix: &str| text.strip_prefix(prefix)?.split('`').next();
    let code = if let Some(field) = named("missing field `") {
        plain::push_key(&mut pointer, field);
        Code::MissingField
    } else if named("unknown field `").is_some() {
        Code::UnknownField
    } else {
        if let Some(field) = named("duplicate field `") {
            plain::push_key(&mut pointer, field);
        }
        Code::InvalidField
    };
    Error::invalid(code, Some(pointer), shortened(&plain::value(error)))
}

/// The parser repeats what it met; a client that sent a megabyte knows it already.
fn shortened(text: &str) -> String {
    const ENDS: usize = 160;
    let length = text.chars().count();
    if length <= 2 * ENDS {
        return text.to_owned();
    }
    let head: String = text.chars().take(ENDS).collect();
    let tail: String = text.chars().skip(length - ENDS).collect();
    format!("{head} … {tail}")
}

/// A JSON answer.
pub fn answer(status: u16, value: &impl Serialize) -> Response {
    let status = axum::http::StatusCode::from_u16(status).unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(e) => ApiError(Error::Internal(format!("an answer cannot be written: {e}"))).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Outer<'a> {
        #[serde(borrow)]
        raw: Option<&'a RawValue>,
        inner: Inner,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        number: i64,
        colour: Option<Colour>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
    }

    fn wrong(body: &[u8]) -> (Code, Option<String>, String) {
        let error = parse::<Outer<'_>>(body).unwrap_err();
        (error.code(), error.pointer().map(str::to_owned), error.client_text())
    }

    #[test]
    fn errors_point_at_the_field() {
        for (body, code, pointer) in [
            (r#"{"inner":{"number":"x"}}"#, Code::InvalidField, Some("/inner/number")),
            (r#"{"inner":{}}"#, Code::MissingField, Some("/inner/number")),
            (r#"{"inner":{"number":1,"typo":1}}"#, Code::UnknownField, Some("/inner/typo")),
            (r#"{"inner":{"number":1},"a/b~c":1}"#, Code::UnknownField, Some("/a~1b~0c")),
            (
                r#"{"inner":{"number":1},"list":[{"number":1},{"number":[]}]}"#,
                Code::InvalidField,
                Some("/list/1/number"),
            ),
            (r#"{"inner":{"number":1},"inner":{"number":1}}"#, Code::InvalidField, Some("/inner")),
            (r#"{"inner":{"number":1e999}}"#, Code::Malformed, Some("/inner/number")),
            (r#"{"inner":{"number":99999999999999999999}}"#, Code::InvalidField, Some("/inner/number")),
            (r#"{"inner":{"number":1,"colour":7}}"#, Code::InvalidField, Some("/inner/colour")),
            (r#"{"inner":{"number":1,"colour":"pink"}}"#, Code::InvalidField, Some("/inner/colour")),
            (r#"{"inner":{"number":1,"colour":x}}"#, Code::Malformed, Some("/inner/colour")),
            (r#"{"inner":{"number":1}} x"#, Code::Malformed, None),
            (r#"{"inner":{"number":1}"#, Code::Malformed, None),
            ("", Code::Malformed, None),
            (r#"[null,{"number":1},[]]"#, Code::InvalidField, Some("")),
            ("null", Code::InvalidField, Some("")),
            ("[1", Code::Malformed, None),
        ] {
            let (got_code, got_pointer, text) = wrong(body.as_bytes());
            assert_eq!((got_code, got_pointer.as_deref()), (code, pointer), "{body}: {text}");
        }
    }

    #[test]
    fn a_raw_part_borrows_from_the_body_and_keeps_its_bytes() {
        let body = r#"{"raw": {"a":"\u0000\ud800", "n":1e999} ,"inner":{"number":1}}"#;
        let outer: Outer<'_> = parse(body.as_bytes()).unwrap();
        assert_eq!(outer.raw.unwrap().get(), r#"{"a":"\u0000\ud800", "n":1e999}"#);
    }

    #[test]
    fn what_is_not_utf8_is_refused_also_inside_a_raw_part() {
        let mut body = br#"{"raw":"?","inner":{"number":1}}"#.to_vec();
        body[8] = 0xff;
        let (code, _, text) = wrong(&body);
        assert_eq!(code, Code::Malformed);
        assert!(text.contains("UTF-8 after byte 8"), "{text}");
    }

    #[test]
    fn a_megabyte_is_not_repeated() {
        let body = format!(r#"{{"{}":1}}"#, "k".repeat(1 << 20));
        let (code, pointer, text) = wrong(body.as_bytes());
        assert_eq!(code, Code::UnknownField);
        assert!(text.len() < 400 && pointer.unwrap().len() < 120);
    }
}
