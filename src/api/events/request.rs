//! What a push says, and its checks.

use std::borrow::Cow;

use bytes::Bytes;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::TenantId;
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::name;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::view::SkippedWorkflow;
use crate::api::ApiState;
use crate::api::metadata::Metadata;
use crate::sched::NewEvent;

/// An event to push.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushEvent<'a> {
    /// What happened, such as `image.uploaded`. Workflows match it with their `events` patterns.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9_.:/-]+$")]
    key: Cow<'a, str>,
    /// The input of the runs that it starts: any JSON, at most 1 MiB. Null if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Payload, required = false)]
    payload: Option<&'a RawValue>,
    /// Also the metadata of its runs; at most 64 keys and 16 KiB.
    #[serde(default)]
    #[schema(value_type = HashMap<String, String>, required = false)]
    metadata: Option<Metadata>,
    /// Where it comes from; together with `source_id` it is taken once in 24 hours.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255)]
    source: Option<Cow<'a, str>>,
    /// Its id there. Both or neither.
    #[serde(borrow, default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255)]
    source_id: Option<Cow<'a, str>>,
}

/// An event, checked, before anybody has looked which workflows match it.
#[derive(Debug)]
pub struct Incoming {
    /// What happened.
    pub key: String,
    /// Where it comes from, with its id there.
    pub source: Option<(String, String)>,
    /// The input of its runs.
    pub payload: Payload,
    /// Also the metadata of its runs.
    pub metadata: Payload,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// JSON pointer of the key in the request.
    pub key_at: String,
}

impl PushEvent<'_> {
    /// Checks an event that stands at the JSON pointer `at` of the request.
    pub fn check(self, at: &str, body: &Bytes, traceparent: Option<String>, limits: &Limits) -> Result<Incoming> {
        let Self { key, payload, metadata, source, source_id } = self;
        let key_at = format!("{at}/key");
        name::check(&key_at, &key, limits)?;
        let payload = match payload {
            Some(raw) => Payload::from_raw(body, raw, "the payload", &format!("{at}/payload"), limits)?,
            None => Payload::null(),
        };
        let source = match (source, source_id) {
            (None, None) => None,
            (Some(source), Some(id)) => {
                name::check_text(&format!("{at}/source"), &source, limits)?;
                name::check_text(&format!("{at}/source_id"), &id, limits)?;
                Some((source.into_owned(), id.into_owned()))
            }
            (Some(_), None) => return Err(both(format!("{at}/source_id"))),
            (None, Some(_)) => return Err(both(format!("{at}/source"))),
        };
        let metadata = metadata.unwrap_or_default().check(&format!("{at}/metadata"), limits)?;
        Ok(Incoming { key: key.into_owned(), source, payload, metadata, traceparent, key_at })
    }
}

fn both(missing: String) -> Error {
    let message = "`source` and `source_id` go together: both or neither";
    Error::invalid(Code::MissingField, Some(missing), message)
}

impl Incoming {
    /// Finds the workflows that it starts, and those that match and that it does not fit.
    ///
    /// # Errors
    /// `TooManyMatches`; `Unavailable` when the tenant's workflows cannot be read.
    pub async fn admit(self, state: &ApiState, tenant: TenantId) -> Result<NewEvent> {
        let Self { key, source, payload, metadata, traceparent, key_at } = self;
        let matching = state.definitions.matching(tenant, &key).await?;
        let (found, max) = (matching.len(), state.limits.event_matches);
        if found > max {
            let message =
                format!("{found} workflows match this key; one event may start at most {max}; nothing was written");
            return Err(Error::invalid(Code::TooManyMatches, Some(key_at), message));
        }
        let (mut specs, mut skipped) = (Vec::with_capacity(found), Vec::new());
        for spec in matching {
            if spec.input_schema.is_some() {
                // Each check has its own limit; many of them must not keep a thread from everybody else.
                tokio::task::yield_now().await;
            }
            match state.definitions.check_input(tenant, &spec, "/payload", &payload).await {
                Ok(()) => specs.push(spec),
                Err(error) if error.code() != Code::SchemaMismatch => return Err(error),
                Err(error) => skipped.push(SkippedWorkflow::of(&spec.workflow, spec.version, &error)),
            }
        }
        let list = || serde_json::to_vec(&skipped).map(|text| Payload::trusted(Bytes::from(text)));
        let skipped = (!skipped.is_empty()).then(list).transpose();
        Ok(NewEvent {
            tenant,
            // Only compared where the source can send it again.
            body_hash: source.as_ref().map_or([0; 32], |_| hash(&key, &payload, &metadata)),
            key,
            source,
            payload,
            metadata,
            replay_of: None,
            once: None,
            skipped: skipped.map_err(|e| Error::Internal(format!("skipped workflows: {e}")))?,
            specs,
            traceparent,
        })
    }
}

/// What makes two events of one id the same, in whatever form they come.
fn hash(key: &str, payload: &Payload, metadata: &Payload) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [key.as_bytes(), payload.bytes(), metadata.bytes()] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
