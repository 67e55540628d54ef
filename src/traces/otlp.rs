//! OTLP: spans as the collector reads them.

use helve_domain::clock::Timestamp;
use helve_domain::id::NodeId;
use helve_domain::span::{RequestSpan, Span, SpanOf, SpanRun};
use helve_domain::status::RunStatus;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as wire, ResourceSpans, ScopeSpans, SpanFlags};
use prost::Message;

use crate::config::Traces;

/// Bytes of one text that is exported. Names are shorter by far; a code is a worker's own word.
const TEXT: usize = 256;
/// Flags above the standard's: it is known whether the parent is of another process, and it is.
const REMOTE_KNOWN: u32 = SpanFlags::ContextHasIsRemoteMask as u32;
const REMOTE: u32 = SpanFlags::ContextIsRemoteMask as u32;

/// An attribute's value.
enum Is<'a> {
    Text(&'a str),
    Number(i64),
    Flag(bool),
}

/// Who speaks: the attributes of the settings and the engine's own.
pub fn resource(settings: &Traces, node: NodeId) -> Resource {
    let mut attributes = Vec::new();
    let given = |name: &str| settings.resource.iter().any(|(key, _)| key == name);
    for (key, value) in &settings.resource {
        if key != "service.name" {
            put(&mut attributes, key, &Is::Text(value));
        }
    }
    put(&mut attributes, "service.name", &Is::Text(&settings.service_name));
    for (key, value) in
        [("service.version", env!("CARGO_PKG_VERSION").to_owned()), ("service.instance.id", node.to_string())]
    {
        if !given(key) {
            put(&mut attributes, key, &Is::Text(&value));
        }
    }
    Resource { attributes, ..Resource::default() }
}

/// One request to a collector.
pub fn request(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: "helve".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let of_scope = ScopeSpans { scope: Some(scope), spans: spans.iter().map(write).collect(), ..ScopeSpans::default() };
    let of_resource =
        ResourceSpans { resource: Some(resource.clone()), scope_spans: vec![of_scope], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec()
}

/// How many spans the collector says that it did not take. What is no answer says nothing.
pub fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).ok();
    let partial = answer.and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

fn write(span: &Span) -> wire::Span {
    let (name, kind) = match &span.of {
        SpanOf::Request(request) => (format!("{} {}", request.method, request.route), SpanKind::Server),
        SpanOf::Run { run, .. } => (format!("run {}", run.spec.workflow), SpanKind::Internal),
        SpanOf::Wait { run, .. } => (format!("queue {}", run.spec.action), SpanKind::Internal),
        SpanOf::Attempt { run, .. } => (format!("attempt {}", run.spec.action), SpanKind::Producer),
    };
    let mut attributes = Vec::new();
    let failed = describe(&mut attributes, &span.of);
    // What worked has no status: it is the reader's to judge.
    let status = failed.then(|| wire::Status { code: StatusCode::Error.into(), ..wire::Status::default() });
    let parent = match span.of {
        SpanOf::Request(_) if span.parent.is_some() => REMOTE_KNOWN | REMOTE,
        // Its trigger may have been answered here or by another engine.
        SpanOf::Run { .. } => 0,
        SpanOf::Request(_) | SpanOf::Wait { .. } | SpanOf::Attempt { .. } => REMOTE_KNOWN,
    };
    wire::Span {
        trace_id: span.context.trace.bytes().into(),
        span_id: span.context.span.bytes().into(),
        parent_span_id: span.parent.map(|parent| parent.bytes().into()).unwrap_or_default(),
        flags: u32::from(span.context.flags) | parent,
        name,
        kind: kind.into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end.max(span.start)),
        attributes,
        status,
        ..wire::Span::default()
    }
}

/// What is known of it, and whether it failed.
fn describe(attributes: &mut Vec<KeyValue>, of: &SpanOf) -> bool {
    match of {
        SpanOf::Request(request) => of_request(attributes, request),
        SpanOf::Run { run, status, attempts, retries, code } => {
            of_run(attributes, run);
            put(attributes, "helve.run.status", &Is::Text(status.as_str()));
            put(attributes, "helve.run.attempts", &Is::Number((*attempts).into()));
            put(attributes, "helve.run.retries", &Is::Number((*retries).into()));
            error_type(attributes, code.as_deref(), *status == RunStatus::Failed);
            *status == RunStatus::Failed
        }
        SpanOf::Wait { run, optimistic } => {
            of_run(attributes, run);
            put(attributes, "helve.queue.optimistic", &Is::Flag(*optimistic));
            false
        }
        SpanOf::Attempt { run, number, worker, outcome, code, failed } => {
            of_run(attributes, run);
            put(attributes, "messaging.system", &Is::Text("helve"));
            put(attributes, "messaging.operation.name", &Is::Text("attempt"));
            put(attributes, "messaging.operation.type", &Is::Text("send"));
            put(attributes, "messaging.destination.name", &Is::Text(&run.spec.action));
            put(attributes, "messaging.message.id", &Is::Text(&run.id.to_string()));
            put(attributes, "helve.attempt.number", &Is::Number((*number).into()));
            put(attributes, "helve.attempt.outcome", &Is::Text(outcome));
            put(attributes, "helve.worker.id", &Is::Text(&worker.to_string()));
            error_type(attributes, code.as_deref(), *failed);
            *failed
        }
    }
}

fn of_request(attributes: &mut Vec<KeyValue>, request: &RequestSpan) -> bool {
    put(attributes, "http.request.method", &Is::Text(&request.method));
    put(attributes, "http.route", &Is::Text(&request.route));
    put(attributes, "http.response.status_code", &Is::Number(request.status.into()));
    put(attributes, "url.scheme", &Is::Text("http"));
    put(attributes, "helve.request.id", &Is::Text(&request.request));
    if let Some(tenant) = request.tenant {
        put(attributes, "helve.tenant.id", &Is::Text(&tenant.to_string()));
    }
    let failed = request.status >= 500;
    if failed {
        put(attributes, "error.type", &Is::Text(&request.status.to_string()));
    }
    failed
}

fn of_run(attributes: &mut Vec<KeyValue>, run: &SpanRun) {
    put(attributes, "helve.run.id", &Is::Text(&run.id.to_string()));
    put(attributes, "helve.tenant.id", &Is::Text(&run.tenant.to_string()));
    put(attributes, "helve.workflow.name", &Is::Text(&run.spec.workflow));
    put(attributes, "helve.workflow.version", &Is::Number(run.spec.version.into()));
    put(attributes, "helve.action", &Is::Text(&run.spec.action));
    if let Some(event) = run.event {
        put(attributes, "helve.event.id", &Is::Text(&event.to_string()));
    }
    if let Some(of) = run.replay_of {
        put(attributes, "helve.run.replay_of", &Is::Text(&of.to_string()));
    }
}

fn error_type(attributes: &mut Vec<KeyValue>, code: Option<&str>, failed: bool) {
    if let Some(code) = code.or(failed.then_some("_OTHER")) {
        put(attributes, "error.type", &Is::Text(code));
    }
}

fn put(attributes: &mut Vec<KeyValue>, key: &str, value: &Is<'_>) {
    let value = match value {
        Is::Text(text) => Value::StringValue(text[..text.floor_char_boundary(TEXT)].to_owned()),
        Is::Flag(flag) => Value::BoolValue(*flag),
        Is::Number(number) => Value::IntValue(*number),
    };
    let value = Some(AnyValue { value: Some(value) });
    attributes.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
}

fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.micros()).unwrap_or(0).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use helve_domain::clock::Clock;
    use helve_domain::definition::{Spec, WorkflowDefinition};
    use helve_domain::id::{EventId, RunId, TenantId, WorkerId};
    use helve_domain::trace::{Part, Sampler};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn spec() -> Arc<Spec> {
        let definition = r#"{"tasks": [{"name": "t", "action": "resize"}]}"#;
        Arc::new(serde_json::from_str::<WorkflowDefinition>(definition).unwrap().compile("images", 7).unwrap())
    }

    /// As text, whatever the kind.
    fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
        let text = |value| match value {
            Value::StringValue(text) => text,
            Value::BoolValue(flag) => flag.to_string(),
            Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        let pair = |a: KeyValue| (a.key, text(a.value.unwrap().value.unwrap()));
        attributes.into_iter().map(pair).collect()
    }

    #[test]
    fn a_collector_reads_what_is_known_of_a_span() {
        let now = Clock::system().now();
        let (id, tenant, worker) = (RunId::generate(now), TenantId::generate(now), WorkerId::generate(now));
        let event = EventId::generate(now);
        let trace = Sampler::default().trace_of(id, None).unwrap();
        let run = SpanRun { id, tenant, spec: spec(), event: Some(event), replay_of: None };
        let long: Box<str> = "ä".repeat(1_000).into();
        let of = SpanOf::Attempt { run, number: 3, worker, outcome: "failed", code: Some(long), failed: true };
        let context = trace.context(id, Part::Attempt(3));
        let parent = trace.context(id, Part::Whole).span;
        // An end before its start is none: the clock of another engine said when it began.
        let span = Span { context, parent: Some(parent), start: now, end: Timestamp::from_micros(1), of };
        let settings = Traces {
            service_name: "mine".to_owned(),
            resource: vec![("service.name".to_owned(), "no".to_owned()), ("zone".to_owned(), "a".to_owned())],
            ..Traces::default()
        };
        let node = NodeId::generate(now);
        let bytes = request(&resource(&settings, node), &[span]);
        let decoded = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
        let [of_resource] = <[_; 1]>::try_from(decoded.resource_spans).unwrap();
        let resource = texts(of_resource.resource.unwrap().attributes);
        assert_eq!((resource["service.name"].as_str(), resource["zone"].as_str()), ("mine", "a"));
        assert_eq!(resource["service.instance.id"], node.to_string());
        let [of_scope] = <[_; 1]>::try_from(of_resource.scope_spans).unwrap();
        assert_eq!(of_scope.scope.unwrap().name, "helve");
        let [span] = <[_; 1]>::try_from(of_scope.spans).unwrap();
        assert_eq!((span.trace_id, span.span_id), (trace.trace.bytes().to_vec(), context.span.bytes().to_vec()));
        assert_eq!((span.parent_span_id, span.flags), (parent.bytes().to_vec(), 0x101));
        assert_eq!((span.name.as_str(), span.kind), ("attempt resize", 4));
        assert_eq!(span.start_time_unix_nano, now.micros().unsigned_abs() * 1_000);
        assert_eq!(span.end_time_unix_nano, span.start_time_unix_nano);
        assert_eq!(span.status.unwrap().code, 2);
        let found = texts(span.attributes);
        for (key, value) in [
            ("helve.run.id", id.to_string()),
            ("helve.tenant.id", tenant.to_string()),
            ("helve.event.id", event.to_string()),
            ("helve.worker.id", worker.to_string()),
            ("helve.workflow.name", "images".to_owned()),
            ("helve.workflow.version", "7".to_owned()),
            ("helve.attempt.number", "3".to_owned()),
            ("messaging.destination.name", "resize".to_owned()),
            ("error.type", "ä".repeat(TEXT / 2)),
        ] {
            assert_eq!(found[key], value, "{key}");
        }
    }

    #[test]
    fn what_the_collector_rejects_is_counted_and_garbage_is_nothing() {
        let answer = |rejected_spans| {
            let partial = ExportTracePartialSuccess { rejected_spans, error_message: "no".to_owned() };
            ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        };
        assert_eq!([0, 3, -1].map(|count| rejected(&answer(count))), [0, 3, 0]);
        assert_eq!(rejected(&[]), 0);
        for garbage in [&b"{}"[..], b"<html>", &[0xff; 40], &[0x0a, 0x7f]] {
            assert_eq!(rejected(garbage), 0, "{garbage:?}");
        }
    }
}
