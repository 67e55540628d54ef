//! What a trigger says, and its checks.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
use helve_domain::duration::Span;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::TenantId;
use helve_domain::json::Payload;
use helve_domain::labels::{LabelDefinition, Requirements};
use helve_domain::limits::Limits;
use helve_domain::name;
use helve_domain::run::Priority;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::api::metadata::Metadata;
use crate::api::{ApiState, time};
use crate::sched::{Idempotency, NewRun};

/// A form of a run to create: what all of them have, and what is its own. Each is one flat struct, since `flatten` would
/// neither refuse unknown fields nor borrow the input.
macro_rules! run_to_create {
    ($(#[$about:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Debug, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name<'a> {
            /// The workflow's name.
            #[serde(borrow)]
            #[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9_.:/-]+$")]
            workflow: Cow<'a, str>,
            /// Any JSON, at most 1 MiB; kept and passed on byte for byte. Null if absent.
            #[serde(borrow, default)]
            #[schema(value_type = Payload, required = false)]
            input: Option<&'a RawValue>,
            /// 1 (lowest) to 4; one class is worth a minute of waiting. The workflow's, or 2, if absent.
            #[serde(default)]
            #[schema(minimum = 1, maximum = 4, nullable = false)]
            priority: Option<i64>,
            /// At most 64 keys and 16 KiB.
            #[serde(default)]
            #[schema(value_type = HashMap<String, String>, required = false)]
            metadata: Option<Metadata>,
            /// Not before this much time has passed; at most 366d. Not together with `run_at`.
            #[serde(default)]
            #[schema(nullable = false)]
            delay: Option<Span>,
            /// Not before this time (RFC 3339). One in the past starts at once.
            #[serde(borrow, default)]
            #[schema(value_type = String, format = DateTime, required = false)]
            run_at: Option<Cow<'a, str>>,
            /// What it asks of the labels of its worker, instead of all that the workflow asks; at most 16 and 4 KiB.
            #[serde(default)]
            #[schema(nullable = false, max_items = 16)]
            labels: Option<Vec<LabelDefinition>>,
            $($own)*
        }
    };
}

run_to_create! {
    /// A run to create.
    CreateRun {}
}

run_to_create! {
    /// A run to create, one of many.
    BulkItem {
        /// The item with this key is created once in 24 hours.
        #[serde(borrow, default)]
        #[schema(value_type = String, required = false, min_length = 1, max_length = 255)]
        idempotency_key: Option<Cow<'a, str>>,
    }
}

impl<'a> BulkItem<'a> {
    /// The run, and its key.
    pub fn split(self) -> (CreateRun<'a>, Option<Cow<'a, str>>) {
        let Self { workflow, input, priority, metadata, delay, run_at, labels, idempotency_key } = self;
        (CreateRun { workflow, input, priority, metadata, delay, run_at, labels }, idempotency_key)
    }
}

/// What comes with a trigger beside its body.
pub struct Around<'a> {
    /// Whose trigger it is.
    pub tenant: TenantId,
    /// The whole request body, of which the parts are slices.
    pub body: &'a Bytes,
    /// JSON pointer of the trigger in the body.
    pub at: &'a str,
    /// Create once.
    pub idempotency: Option<Idempotency>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Tell when it has ended.
    pub watch: bool,
}

impl CreateRun<'_> {
    /// Checks it and finds its workflow.
    ///
    /// # Errors
    /// `InvalidField`, `TooLarge`, `TooDeep`, `WorkflowNotFound`.
    pub async fn check(self, state: &ApiState, around: Around<'_>) -> Result<NewRun> {
        let (limits, at) = (&state.limits, around.at);
        let run_at = self.run_at(at, state.clock.now(), limits)?;
        let Self { workflow, input, priority, metadata, labels, .. } = self;
        let input = match input {
            Some(raw) => Payload::from_raw(around.body, raw, "the input", &format!("{at}/input"), limits)?,
            None => Payload::null(),
        };
        let metadata = metadata.unwrap_or_default().check(&format!("{at}/metadata"), limits)?;
        let wanted = priority.map(|n| {
            let wrong = || Error::field(format!("{at}/priority"), format!("a priority is 1 to 4; got {n}"));
            Priority::new(n).ok_or_else(wrong)
        });
        let wanted = wanted.transpose()?;
        let labels = labels.map(|list| Requirements::of_run(&format!("{at}/labels"), &list, limits)).transpose()?;
        name::check(&format!("{at}/workflow"), &workflow, limits)?;
        let spec = state.definitions.current(around.tenant, &workflow).await?;
        if spec.input_schema.is_some() {
            let at = format!("{at}/input");
            state.definitions.check_input(around.tenant, &spec, &at, &input).await?;
        }
        let spec = match labels {
            Some(labels) => Arc::new(Spec { labels, ..(*spec).clone() }),
            None => spec,
        };
        Ok(NewRun {
            tenant: around.tenant,
            priority: wanted.unwrap_or(spec.priority),
            spec,
            input,
            metadata,
            run_at,
            idempotency: around.idempotency,
            traceparent: around.traceparent,
            replay_of: None,
            watch: around.watch,
        })
    }

    /// When it may start; `None`: now.
    fn run_at(&self, at: &str, now: Timestamp, limits: &Limits) -> Result<Option<Timestamp>> {
        if self.delay.is_none() && self.run_at.is_none() {
            return Ok(None);
        }
        let latest = now.plus(limits.delay);
        let absolute = format!("{at}/run_at");
        let (field, due) = match (self.delay, time::field(&absolute, self.run_at.as_deref())?) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(Error::field(absolute, "give `delay` or `run_at`, not both")),
            (Some(delay), None) => (format!("{at}/delay"), now.plus(delay.0)),
            (None, Some(due)) => (absolute, due),
        };
        if due > latest {
            let days = limits.delay.as_secs() / (24 * 3_600);
            return Err(Error::field(field, format!("a run starts at most {days}d from now")));
        }
        Ok((due > now).then_some(due))
    }
}

/// The key under which a create happens once, with the hash of what was sent.
///
/// # Errors
/// `InvalidField` for a key that is empty, too long, or has characters that are not visible ASCII.
pub fn idempotency(key: &str, at: Option<String>, sent: &[u8], limits: &Limits) -> Result<Idempotency> {
    if key.is_empty() || key.len() > limits.name_bytes || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let got = match key.len() {
            0 => "nothing".to_owned(),
            long if long > limits.name_bytes => format!("{long} bytes"),
            _ => "a space, a control character or one beyond ASCII".to_owned(),
        };
        let message = format!("an idempotency key has 1 to {} visible ASCII characters; got {got}", limits.name_bytes);
        return Err(Error::invalid(Code::InvalidField, at, message));
    }
    Ok(Idempotency { key: key.to_owned(), body_hash: Sha256::digest(sent).into() })
}

/// The key of the header `Idempotency-Key`.
///
/// # Errors
/// `InvalidField`.
pub fn header_key(headers: &HeaderMap, sent: &[u8], limits: &Limits) -> Result<Option<Idempotency>> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Error::invalid(Code::InvalidField, None, "the header Idempotency-Key stands there twice"));
    }
    // What is no text is not visible ASCII either, and is told so.
    idempotency(&String::from_utf8_lossy(value.as_bytes()), None, sent, limits).map(Some)
}
