//! The one error type below the entries. It knows nothing of HTTP or frames.

use std::time::Duration;

/// Result with the engine's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $text:literal;)+) => {
        /// The stable name of what went wrong, the same in REST problems, frames, logs and docs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$meta])* $name,)+ }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$name,)+];

            /// Its text in the interface.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON, not UTF-8, or a header or query cannot be read.
    Malformed = "malformed";
    /// A field that the request does not have.
    UnknownField = "unknown_field";
    /// A field has a wrong type or a value that is not allowed.
    InvalidField = "invalid_field";
    /// A required field is absent.
    MissingField = "missing_field";
    /// JSON nested deeper than the limit.
    TooDeep = "too_deep";
    /// An id that does not have the form of its kind.
    InvalidId = "invalid_id";
    /// A cursor that this list did not give out.
    InvalidCursor = "invalid_cursor";
    /// No token, or one that is unknown, expired or revoked.
    Unauthenticated = "unauthenticated";
    /// The token lacks the scope.
    Forbidden = "forbidden";
    /// The `Origin` of a socket is not allowed.
    OriginNotAllowed = "origin_not_allowed";
    /// No such route or object, or one of another tenant.
    NotFound = "not_found";
    /// The route has no such method.
    MethodNotAllowed = "method_not_allowed";
    /// The trigger names a workflow that does not exist.
    WorkflowNotFound = "workflow_not_found";
    /// The idempotency key was used with another body.
    IdempotencyConflict = "idempotency_conflict";
    /// The object cannot be deleted while it is used.
    InUse = "in_use";
    /// The run has ended: what is final stays final.
    AlreadyFinished = "already_finished";
    /// The run has not ended: only what is final can be replayed.
    NotFinished = "not_finished";
    /// The run is not parked.
    NotParked = "not_parked";
    /// The route is a WebSocket, and the request asks for none.
    UpgradeRequired = "upgrade_required";
    /// A body, payload or frame larger than its limit.
    TooLarge = "too_large";
    /// The body's media type is not JSON, its charset is not UTF-8, or it is encoded.
    UnsupportedMediaType = "unsupported_media_type";
    /// More workflows match the event than one event may start.
    TooManyMatches = "too_many_matches";
    /// The input does not fit the workflow's input schema.
    SchemaMismatch = "schema_mismatch";
    /// A limit on the rate or on what may be open at once.
    TooManyRequests = "too_many_requests";
    /// The engine is starting, stopping, or has lost its database.
    Unavailable = "unavailable";
    /// The write was sent and its answer lost: ask again with the same idempotency key.
    OutcomeUnknown = "outcome_unknown";
    /// A frame before `hello`.
    HelloRequired = "hello_required";
    /// A second `hello` on one socket.
    HelloTwice = "hello_twice";
    /// A frame `type` that the engine does not know.
    UnknownFrame = "unknown_frame";
    /// A frame that is not a JSON object of its type.
    BadFrame = "bad_frame";
    /// Log lines or progress of an attempt that the worker does not hold.
    NotHeld = "not_held";
    /// A protocol version that the engine does not speak.
    UnsupportedProtocol = "unsupported_protocol";
    /// A defect of the engine; a human should look.
    Internal = "internal";
}

/// What went wrong, with a text for the caller and one for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong; the same request will fail again.
    #[error("{}: {message}", code.as_str())]
    Invalid {
        /// Which kind of wrong.
        code: Code,
        /// JSON pointer of the field, empty for the whole body, `None` outside a body.
        pointer: Option<String>,
        /// The query parameter, where one is to blame.
        parameter: Option<String>,
        /// What was wrong and what is allowed.
        message: String,
    },
    /// Larger than a limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size in bytes where it is known.
        size: Option<usize>,
        /// The limit in bytes.
        limit: usize,
    },
    /// No usable credential.
    #[error("unauthenticated: {0}")]
    Unauthenticated(&'static str),
    /// The credential does not allow it.
    #[error("the token lacks the scope `{0}`")]
    Forbidden(&'static str),
    /// Nothing of that name or id in the tenant.
    #[error("no such {what}: {id}")]
    NotFound {
        /// The code: `NotFound` or `WorkflowNotFound`.
        code: Code,
        /// The kind of object.
        what: &'static str,
        /// The id or name as asked.
        id: String,
    },
    /// It collides with what exists.
    #[error("{}: {message}", code.as_str())]
    Conflict {
        /// Which kind of collision.
        code: Code,
        /// What collides, and what to do.
        message: String,
        /// The id of what exists.
        existing: Option<String>,
    },
    /// A limit; the same request may succeed later.
    #[error("limited: {message}")]
    Limited {
        /// Which limit, and its value.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Not now; nothing was written.
    #[error("unavailable: {message}")]
    Unavailable {
        /// Why.
        message: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// It may have been written: only a retry with the same idempotency key is safe.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown,
    /// A defect, or a failure of something below.
    #[error("internal: {0}")]
    Internal(String),
}

impl Error {
    /// A field with a value that is not allowed.
    pub fn field(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(Code::InvalidField, Some(pointer.into()), message)
    }

    /// A field that asks for more than the credential allows.
    pub fn not_allowed(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(Code::Forbidden, Some(pointer.into()), message)
    }

    /// A wrong request.
    pub fn invalid(code: Code, pointer: Option<String>, message: impl Into<String>) -> Self {
        Self::Invalid { code, pointer, parameter: None, message: message.into() }
    }

    /// A query parameter that is wrong.
    pub fn parameter(code: Code, name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { code, pointer: None, parameter: Some(name.into()), message: message.into() }
    }

    /// Nothing of that id in the tenant.
    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { code: Code::NotFound, what, id: id.to_string() }
    }

    /// Not now; nothing was written.
    pub const fn unavailable(message: &'static str) -> Self {
        Self::Unavailable { message, retry_after: Duration::from_secs(1) }
    }

    /// The stable name of this error.
    pub const fn code(&self) -> Code {
        match self {
            Self::Invalid { code, .. } | Self::NotFound { code, .. } | Self::Conflict { code, .. } => *code,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Forbidden(_) => Code::Forbidden,
            Self::Limited { .. } => Code::TooManyRequests,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::OutcomeUnknown => Code::OutcomeUnknown,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// What the caller may read. Says whether a retry is safe; never an internal detail.
    pub fn client_text(&self) -> String {
        match self {
            Self::Invalid { message, .. } | Self::Conflict { message, .. } => message.clone(),
            Self::TooLarge { what, size: Some(size), limit } => {
                format!("{what} has {size} bytes; at most {limit} bytes are allowed")
            }
            Self::TooLarge { what, size: None, limit } => {
                format!("{what} has more than the {limit} bytes that are allowed")
            }
            Self::Unauthenticated(why) => (*why).to_owned(),
            Self::Forbidden(scope) => format!("this token lacks the scope `{scope}`"),
            Self::NotFound { what, id, .. } => format!("there is no {what} `{id}`"),
            Self::Limited { message, .. } => format!("{message}; a retry later is safe"),
            Self::Unavailable { message, .. } => format!("{message}; a retry is safe"),
            Self::OutcomeUnknown => "the write was sent and its answer was lost: it may have been accepted; retry a POST \
                with the same Idempotency-Key to learn the outcome; PUT, DELETE and a cancel may be repeated as they are"
                .to_owned(),
            Self::Internal(_) => "an internal error; the engine's log has the details under this request id".to_owned(),
        }
    }

    /// Where the wrong field stands, as a JSON pointer.
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::Invalid { pointer, .. } => pointer.as_deref(),
            _ => None,
        }
    }

    /// The query parameter that is wrong.
    pub fn wrong_parameter(&self) -> Option<&str> {
        match self {
            Self::Invalid { parameter, .. } => parameter.as_deref(),
            _ => None,
        }
    }

    /// How long to wait before a retry makes sense.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after, .. } | Self::Unavailable { retry_after, .. } => Some(*retry_after),
            Self::OutcomeUnknown => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// Logs a broken promise of the engine with a fixed prefix and counts it; panics in tests.
#[macro_export]
macro_rules! invariant {
    ($cond:expr, $($arg:tt)+) => {
        if !$cond {
            $crate::error::broken_invariant(&format!($($arg)+), cfg!(test));
        }
    };
}

/// How many soft invariants were broken since the start.
static BROKEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// What `invariant!` does when its condition is false; in unit tests, as the calling crate knows them, it panics.
pub fn broken_invariant(message: &str, in_tests: bool) {
    BROKEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    tracing::error!("HELVE_INVARIANT {message}");
    assert!(!in_tests && std::env::var_os("HELVE_PANIC_ON_INVARIANT").is_none(), "HELVE_INVARIANT {message}");
}

/// How many soft invariants were broken since the start of the process.
pub fn broken_invariants() -> u64 {
    BROKEN.load(std::sync::atomic::Ordering::Relaxed)
}
