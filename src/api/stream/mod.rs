//! Server-sent events: what runs and tenants do, as it happens.

pub mod run;
pub mod tenant;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use helve_domain::clock::Timestamp;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::{EventId, RunId, TenantId};
use helve_domain::live::{Change, Changed};
use helve_domain::status::RunStatus;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::ApiState;
use crate::cluster::{Directory, Place};
use crate::live::{Notice, Watch};
use crate::ops::auth::TenantScope;

/// A comment comes after so much silence: proxies must not take it for death.
const QUIET: Duration = Duration::from_secs(15);
/// How long one look at the owners of shards lasts.
const MOVES: Duration = Duration::from_secs(3_600);
/// When a reader should connect again, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";
/// The header with which a reader goes on.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A change of a run, in a stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunChange<'a> {
    /// Which run.
    run: RunId,
    /// Of which workflow.
    workflow: &'a str,
    /// The state that it came to.
    status: RunStatus,
    /// The attempt that is running, or was the last one; 0 before the first.
    #[schema(minimum = 0)]
    attempt: i32,
    /// Why, where it is unusual.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'a str>,
    /// When, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
}

/// An event that was taken in, in a stream.
#[derive(Debug, Serialize)]
pub struct EventChange<'a> {
    /// Which event.
    event: EventId,
    /// What happened.
    key: &'a str,
    /// The runs that it started.
    runs: &'a [RunId],
    /// When it was taken in.
    at: Timestamp,
}

/// Why a stream ends before what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    Revoked,
    Stopping,
    Moved,
    TooSlow,
    Failed,
}

impl Farewell {
    const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Revoked => ("unauthenticated", "the token is no longer valid: connect with another one"),
            Self::Stopping => ("unavailable", "the engine stops: connect again, with the last id"),
            Self::Moved => ("unavailable", "another engine owns this tenant now: connect again, with the last id"),
            Self::TooSlow => ("too_slow", "events were not read in time: connect again, with the last id"),
            Self::Failed => ("unavailable", "the database did not answer: connect again, with the last id"),
        }
    }
}

/// What a stream waits for.
enum Moment {
    Notice(Notice),
    Quiet,
    End(Farewell),
}

/// Where a stream's news come from, and what ends it from outside.
struct Tap {
    watch: Watch,
    revoked: BoxFuture<'static, ()>,
    moved: BoxFuture<'static, ()>,
    stopping: CancellationToken,
}

/// Whether this process is the one that hears of the tenant's changes.
fn is_here(state: &ApiState, tenant: TenantId) -> Result<()> {
    let elsewhere = matches!(state.scheduler.directory().place(tenant), Place::At(_));
    if elsewhere || !state.scheduler.is_ready() {
        return Err(Error::unavailable("this engine does not own the tenant's shard"));
    }
    Ok(())
}

/// Resolves when another process owns the tenant's shard.
async fn moved(directory: Directory, tenant: TenantId) {
    while !matches!(directory.other(tenant, &Place::Here, MOVES).await, Place::At(_)) {}
}

impl Tap {
    fn new(state: &ApiState, scope: &TenantScope, watch: Watch) -> Self {
        let revoked = state.authenticator.revoked(scope.token(), scope.expires_at()).boxed();
        let moved = moved(state.scheduler.directory().clone(), scope.tenant()).boxed();
        Self { watch, revoked, moved, stopping: state.stopping.clone() }
    }

    /// The next thing. After an end nothing may be asked any more.
    async fn next(&mut self) -> Moment {
        tokio::select! {
            biased;
            () = &mut self.revoked => Moment::End(Farewell::Revoked),
            () = self.stopping.cancelled() => Moment::End(Farewell::Stopping),
            () = &mut self.moved => Moment::End(Farewell::Moved),
            notice = self.watch.next() => Moment::Notice(notice),
            () = tokio::time::sleep(QUIET) => Moment::Quiet,
        }
    }
}

/// Events that are written and not yet sent.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    over: bool,
}

impl Out {
    /// One event. A line break inside JSON is blank, and becomes a line of data of its own.
    fn event(&mut self, id: Option<&str>, name: &str, data: &[u8]) {
        if let Some(id) = id {
            self.line("id: ", id.as_bytes());
        }
        self.line("event: ", name.as_bytes());
        for line in data.split(|b| matches!(b, b'\n' | b'\r')) {
            self.line("data: ", line);
        }
        self.bytes.push(b'\n');
    }

    fn json(&mut self, id: Option<&str>, name: &str, data: &impl Serialize) {
        // Plain data: it can always be written.
        self.event(id, name, &serde_json::to_vec(data).unwrap_or_default());
    }

    fn change(&mut self, id: Option<&str>, change: &Change) {
        let at = change.at;
        match &change.what {
            Changed::Run { run, workflow, status, attempt, reason } => {
                let (run, status, attempt, at) = (*run, *status, *attempt, Some(at));
                self.json(id, "run", &RunChange { run, workflow, status, attempt, reason: *reason, at });
            }
            Changed::Event { event, key, runs } => {
                self.json(id, "event", &EventChange { event: *event, key, runs, at });
            }
        }
    }

    fn line(&mut self, field: &str, value: &[u8]) {
        self.bytes.extend_from_slice(field.as_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    fn quiet(&mut self) {
        self.bytes.extend_from_slice(b": quiet\n\n");
    }

    /// The last event.
    fn close(&mut self, farewell: Farewell) {
        let (code, message) = farewell.text();
        self.json(None, "close", &serde_json::json!({"code": code, "message": message}));
        self.over = true;
    }
}

/// A stream that fills its output when it is empty.
trait Source: Send + 'static {
    fn out(&mut self) -> &mut Out;

    /// Waits for something to say.
    fn fill(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// The answer that is a stream. Read as fast as the client reads; dropped with its connection.
fn answer(mut source: impl Source) -> Response {
    source.out().bytes.splice(0..0, RETRY.bytes());
    let body = stream::unfold(source, |mut source| async {
        while source.out().bytes.is_empty() {
            if source.out().over {
                return None;
            }
            if let Err(e) = source.fill().await {
                tracing::warn!(error = %e, "an event stream cannot go on");
                source.out().close(Farewell::Failed);
            }
        }
        let bytes = Bytes::from(std::mem::take(&mut source.out().bytes));
        Some((Ok::<_, Infallible>(bytes), source))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The id after which a reader goes on. An empty one is none.
fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().map_err(|_| wrong_id())?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn wrong_id() -> Error {
    let message = "the header Last-Event-ID is not an id of this stream; pass on the last `id` as it came, or none";
    Error::invalid(Code::InvalidCursor, None, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_of_json_become_lines_of_data() {
        let mut out = Out::default();
        out.event(Some("1-running-2"), "end", b"{\"a\":\r\n1,\n\"b\":\"\\n\"}");
        out.close(Farewell::TooSlow);
        let text = String::from_utf8(out.bytes).unwrap();
        let (first, last) = text.split_once("\n\n").unwrap();
        assert_eq!(first, "id: 1-running-2\nevent: end\ndata: {\"a\":\ndata: \ndata: 1,\ndata: \"b\":\"\\n\"}");
        assert!(last.starts_with("event: close\ndata: {\"code\":\"too_slow\"") && last.ends_with("\n\n"), "{last}");
    }
}
