//! Errors as RFC 9457 problems: the only table from the engine's codes to HTTP statuses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use helve_domain::error::{Code, Error};
use serde::Serialize;
use utoipa::ToSchema;

/// Media type of every error.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong (RFC 9457). `code` is stable: decide by it, not by the texts. More codes may come.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A URI that stands for the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:helve:problem:invalid_field", format = "uri")]
    kind: String,
    /// The code in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What was wrong, what is allowed, and whether a retry is safe.
    detail: String,
    /// The stable name of what went wrong.
    #[schema(example = "invalid_field", pattern = "^[a-z_]+$")]
    code: &'static str,
    /// JSON pointer of the wrong field in the request's body; absent where the body is not to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pointer: Option<String>,
    /// The wrong query parameter; absent where the query is not to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    parameter: Option<String>,
    /// On a conflict: the id of what exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    existing: Option<String>,
    /// On `too_large`: the limit in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>, minimum = 0)]
    limit: Option<usize>,
    /// On `too_large`: what was sent, in bytes, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>, minimum = 0)]
    size: Option<usize>,
    /// Seconds after which a retry makes sense, as in the `Retry-After` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>, minimum = 1)]
    retry_after: Option<u64>,
}

/// The status and the title of a code.
const fn table(code: Code) -> (u16, &'static str) {
    match code {
        Code::Malformed => (400, "The request cannot be read"),
        Code::UnknownField => (400, "Unknown field"),
        Code::InvalidField => (400, "Invalid value"),
        Code::MissingField => (400, "Missing field"),
        Code::TooDeep => (400, "Nested too deep"),
        Code::InvalidId => (400, "Invalid id"),
        Code::InvalidCursor => (400, "Invalid cursor"),
        Code::HelloRequired
        | Code::HelloTwice
        | Code::UnknownFrame
        | Code::BadFrame
        | Code::NotHeld
        | Code::UnsupportedProtocol => (400, "Protocol error"),
        Code::Unauthenticated => (401, "Not authenticated"),
        Code::Forbidden => (403, "Not allowed"),
        Code::OriginNotAllowed => (403, "Origin not allowed"),
        Code::NotFound => (404, "Not found"),
        Code::WorkflowNotFound => (404, "Workflow not found"),
        Code::MethodNotAllowed => (405, "Method not allowed"),
        Code::IdempotencyConflict => (409, "Key used with another body"),
        Code::InUse => (409, "In use"),
        Code::AlreadyFinished => (409, "Already finished"),
        Code::NotFinished => (409, "Not finished"),
        Code::NotParked => (409, "Not parked"),
        Code::UpgradeRequired => (426, "Upgrade required"),
        Code::TooLarge => (413, "Too large"),
        Code::UnsupportedMediaType => (415, "Unsupported media type"),
        Code::TooManyMatches => (422, "Too many matching workflows"),
        Code::SchemaMismatch => (422, "Input does not fit the schema"),
        Code::TooManyRequests => (429, "Limited"),
        Code::Internal => (500, "Internal error"),
        Code::Unavailable => (503, "Unavailable"),
        Code::OutcomeUnknown => (503, "Outcome unknown"),
    }
}

impl Problem {
    /// The problem of an error. A defect is logged here, at the edge, and only here.
    pub fn of(error: &Error) -> Self {
        if let Error::Internal(details) = error {
            tracing::error!(error = details, "a request failed");
        }
        let code = error.code();
        let (status, title) = table(code);
        let (limit, size) = match error {
            Error::TooLarge { size, limit, .. } => (Some(*limit), *size),
            _ => (None, None),
        };
        let existing = match error {
            Error::Conflict { existing, .. } => existing.clone(),
            _ => None,
        };
        Self {
            kind: format!("urn:helve:problem:{}", code.as_str()),
            title,
            status,
            detail: error.client_text(),
            code: code.as_str(),
            pointer: error.pointer().map(str::to_owned),
            parameter: error.wrong_parameter().map(str::to_owned),
            existing,
            limit,
            size,
            // Rounded up: a client that waits as told must not come too early.
            retry_after: error.retry_after().map(|d| d.as_secs() + u64::from(d.subsec_nanos() > 0)).map(|s| s.max(1)),
        }
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        response.extensions_mut().insert(Refused(self.code));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"helve\""));
        }
        response
    }
}

/// The code of a problem, for the line of the log: its texts may have words of the client.
#[derive(Debug, Clone, Copy)]
pub struct Refused(pub &'static str);

/// What a handler fails with.
#[derive(Debug)]
pub struct ApiError(pub Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Problem::of(&self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        let lines: Vec<_> = Code::ALL.iter().map(|c| format!("{} {}", table(*c).0, c.as_str())).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        400 malformed
        400 unknown_field
        400 invalid_field
        400 missing_field
        400 too_deep
        400 invalid_id
        400 invalid_cursor
        401 unauthenticated
        403 forbidden
        403 origin_not_allowed
        404 not_found
        405 method_not_allowed
        404 workflow_not_found
        409 idempotency_conflict
        409 in_use
        409 already_finished
        409 not_finished
        409 not_parked
        426 upgrade_required
        413 too_large
        415 unsupported_media_type
        422 too_many_matches
        422 schema_mismatch
        429 too_many_requests
        503 unavailable
        503 outcome_unknown
        400 hello_required
        400 hello_twice
        400 unknown_frame
        400 bad_frame
        400 not_held
        400 unsupported_protocol
        500 internal
        ");
    }

    #[test]
    fn a_defect_shows_the_caller_nothing_of_itself() {
        let problem = Problem::of(&Error::Internal("secret table missing".into()));
        assert!(!serde_json::to_string(&problem).unwrap().contains("secret table"));
    }

    #[test]
    fn a_wait_is_rounded_up() {
        let limited = |ms| Error::Limited { message: "x".into(), retry_after: std::time::Duration::from_millis(ms) };
        assert_eq!(Problem::of(&limited(1_500)).retry_after, Some(2));
        assert_eq!(Problem::of(&limited(0)).retry_after, Some(1));
    }
}
