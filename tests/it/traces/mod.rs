//! Traces: what a collector gets of requests, runs and attempts, and what a bad collector cannot do.

mod exporter;
mod process;
mod several;
mod spans;

use std::time::Duration;

use helve::config::Traces;
use serde_json::{Value, json};

use crate::support::collector::{Collector, Span};
use crate::support::{Builder, Engine};

/// What a client sends of its own trace.
const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// Sends what is finished at once.
fn to(collector: &Collector) -> impl FnOnce(&mut Traces) + use<> {
    let endpoint = collector.endpoint.clone();
    move |traces: &mut Traces| {
        traces.endpoint = Some(endpoint);
        traces.delay = Duration::from_millis(20);
    }
}

async fn traced(collector: &Collector, optimistic: bool) -> Engine {
    Builder::new().optimistic(optimistic).traces(to(collector)).start().await
}

/// Triggers a run within a trace.
async fn trigger(engine: &Engine, traceparent: &str, body: Value) -> Value {
    let (status, run) = engine.post_with("/v1/runs", &[("traceparent", traceparent)], body).await;
    assert_eq!(status, 201, "{run}");
    run
}

/// The trace and the span of a `traceparent`, and whether it is recorded.
fn parts(traceparent: &Value) -> (String, String, bool) {
    let text = traceparent.as_str().unwrap_or_else(|| panic!("no traceparent: {traceparent}"));
    let parts: Vec<&str> = text.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{text}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3] == "01")
}

/// The only one of this name.
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let first = found.next().unwrap_or_else(|| panic!("no `{name}` in {spans:#?}"));
    assert!(found.next().is_none(), "two `{name}` in {spans:#?}");
    first
}

fn failed(message: &str, code: &str) -> Value {
    json!({"message": message, "code": code})
}
