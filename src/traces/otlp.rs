//! OTLP: spans as the collector reads them, with the field numbers of `opentelemetry.proto`.

use helve_domain::clock::Timestamp;
use helve_domain::id::NodeId;
use helve_domain::span::{RequestSpan, Span, SpanOf, SpanRun};
use helve_domain::status::RunStatus;

use super::proto::{self, Message, Value};
use crate::config::Traces;

/// Bytes of one text that is exported. Names are shorter by far; a code is a worker's own word.
const TEXT: usize = 256;

/// Span kinds.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const PRODUCER: u64 = 4;
/// The status of a span that failed. What worked has none: it is the reader's to judge.
const FAILED: u64 = 2;
/// Flags above the standard's: it is known whether the parent is of another process, and it is.
const REMOTE_KNOWN: u32 = 1 << 8;
const REMOTE: u32 = 1 << 9;

/// An attribute's value.
enum Is<'a> {
    Text(&'a str),
    Number(i64),
    Flag(bool),
}

/// Who speaks: the attributes of the settings and the engine's own.
pub fn resource(settings: &Traces, node: NodeId) -> Vec<u8> {
    let mut message = Message::default();
    let given = |name: &str| settings.resource.iter().any(|(key, _)| key == name);
    for (key, value) in &settings.resource {
        if key != "service.name" {
            attribute(&mut message, 1, key, &Is::Text(value));
        }
    }
    attribute(&mut message, 1, "service.name", &Is::Text(&settings.service_name));
    for (key, value) in
        [("service.version", env!("CARGO_PKG_VERSION").to_owned()), ("service.instance.id", node.to_string())]
    {
        if !given(key) {
            attribute(&mut message, 1, key, &Is::Text(&value));
        }
    }
    message.into_bytes()
}

/// One request to a collector.
pub fn request(resource: &[u8], spans: &[Span]) -> Vec<u8> {
    let mut message = Message::default();
    message.message(1, |of_resource| {
        of_resource.bytes(1, resource);
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.bytes(1, "helve");
                scope.bytes(2, env!("CARGO_PKG_VERSION"));
            });
            for span in spans {
                of_scope.message(2, |message| write(message, span));
            }
        });
    });
    message.into_bytes()
}

/// How many spans the collector says that it did not take. What is no answer says nothing.
pub fn rejected(answer: &[u8]) -> u64 {
    let mut rest = answer;
    while let Some((field, value)) = proto::next(&mut rest) {
        if let (1, Value::Bytes(mut partial)) = (field, value) {
            while let Some((field, value)) = proto::next(&mut partial) {
                if let (1, Value::Number(count)) = (field, value) {
                    return count;
                }
            }
        }
    }
    0
}

fn write(message: &mut Message, span: &Span) {
    message.bytes(1, span.context.trace.bytes());
    message.bytes(2, span.context.span.bytes());
    if let Some(parent) = span.parent {
        message.bytes(4, parent.bytes());
    }
    let (name, kind) = match &span.of {
        SpanOf::Request(request) => (format!("{} {}", request.method, request.route), SERVER),
        SpanOf::Run { run, .. } => (format!("run {}", run.spec.workflow), INTERNAL),
        SpanOf::Wait { run, .. } => (format!("queue {}", run.spec.action), INTERNAL),
        SpanOf::Attempt { run, .. } => (format!("attempt {}", run.spec.action), PRODUCER),
    };
    message.bytes(5, name);
    message.number(6, kind);
    message.fixed64(7, nanos(span.start));
    message.fixed64(8, nanos(span.end.max(span.start)));
    let failed = match &span.of {
        SpanOf::Request(request) => of_request(message, request),
        SpanOf::Run { run, status, attempts, retries, code } => {
            of_run(message, run);
            put(message, "helve.run.status", &Is::Text(status.as_str()));
            put(message, "helve.run.attempts", &Is::Number((*attempts).into()));
            put(message, "helve.run.retries", &Is::Number((*retries).into()));
            error_type(message, code.as_deref(), *status == RunStatus::Failed);
            *status == RunStatus::Failed
        }
        SpanOf::Wait { run, optimistic } => {
            of_run(message, run);
            put(message, "helve.queue.optimistic", &Is::Flag(*optimistic));
            false
        }
        SpanOf::Attempt { run, number, worker, outcome, code, failed } => {
            of_run(message, run);
            put(message, "messaging.system", &Is::Text("helve"));
            put(message, "messaging.operation.name", &Is::Text("attempt"));
            put(message, "messaging.operation.type", &Is::Text("send"));
            put(message, "messaging.destination.name", &Is::Text(&run.spec.action));
            put(message, "messaging.message.id", &Is::Text(&run.id.to_string()));
            put(message, "helve.attempt.number", &Is::Number((*number).into()));
            put(message, "helve.attempt.outcome", &Is::Text(outcome));
            put(message, "helve.worker.id", &Is::Text(&worker.to_string()));
            error_type(message, code.as_deref(), *failed);
            *failed
        }
    };
    if failed {
        message.message(15, |status| status.number(3, FAILED));
    }
    let parent = match span.of {
        SpanOf::Request(_) if span.parent.is_some() => REMOTE_KNOWN | REMOTE,
        // Its trigger may have been answered here or by another engine.
        SpanOf::Run { .. } => 0,
        SpanOf::Request(_) | SpanOf::Wait { .. } | SpanOf::Attempt { .. } => REMOTE_KNOWN,
    };
    let flags = u32::from(span.context.flags) | parent;
    message.fixed32(16, flags);
}

fn of_request(message: &mut Message, request: &RequestSpan) -> bool {
    put(message, "http.request.method", &Is::Text(&request.method));
    put(message, "http.route", &Is::Text(&request.route));
    put(message, "http.response.status_code", &Is::Number(request.status.into()));
    put(message, "url.scheme", &Is::Text("http"));
    put(message, "helve.request.id", &Is::Text(&request.request));
    if let Some(tenant) = request.tenant {
        put(message, "helve.tenant.id", &Is::Text(&tenant.to_string()));
    }
    let failed = request.status >= 500;
    if failed {
        put(message, "error.type", &Is::Text(&request.status.to_string()));
    }
    failed
}

fn of_run(message: &mut Message, run: &SpanRun) {
    put(message, "helve.run.id", &Is::Text(&run.id.to_string()));
    put(message, "helve.tenant.id", &Is::Text(&run.tenant.to_string()));
    put(message, "helve.workflow.name", &Is::Text(&run.spec.workflow));
    put(message, "helve.workflow.version", &Is::Number(run.spec.version.into()));
    put(message, "helve.action", &Is::Text(&run.spec.action));
    if let Some(event) = run.event {
        put(message, "helve.event.id", &Is::Text(&event.to_string()));
    }
    if let Some(of) = run.replay_of {
        put(message, "helve.run.replay_of", &Is::Text(&of.to_string()));
    }
}

fn error_type(message: &mut Message, code: Option<&str>, failed: bool) {
    if let Some(code) = code.or(failed.then_some("_OTHER")) {
        put(message, "error.type", &Is::Text(code));
    }
}

/// An attribute of a span.
fn put(message: &mut Message, key: &str, value: &Is<'_>) {
    attribute(message, 9, key, value);
}

fn attribute(message: &mut Message, field: u64, key: &str, value: &Is<'_>) {
    message.message(field, |pair| {
        pair.bytes(1, key);
        pair.message(2, |any| match value {
            Is::Text(text) => any.bytes(1, &text[..text.floor_char_boundary(TEXT)]),
            Is::Flag(flag) => any.number(2, u64::from(*flag)),
            Is::Number(number) => any.number(3, number.cast_unsigned()),
        });
    });
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
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
    use prost::Message as _;

    use super::*;

    fn spec() -> Arc<Spec> {
        let definition = r#"{"tasks": [{"name": "t", "action": "resize"}]}"#;
        Arc::new(serde_json::from_str::<WorkflowDefinition>(definition).unwrap().compile("images", 7).unwrap())
    }

    /// As text, whatever the kind.
    fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
        let text = |value| match value {
            Any::StringValue(text) => text,
            Any::BoolValue(flag) => flag.to_string(),
            Any::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        let pair = |a: KeyValue| (a.key, text(a.value.unwrap().value.unwrap()));
        attributes.into_iter().map(pair).collect()
    }

    #[test]
    fn the_official_messages_read_what_is_written() {
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
        // What it wrote itself would be the same bytes: no field is missing, and none too many.
        assert_eq!(decoded.encoded_len(), bytes.len());
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
        assert_eq!((rejected(&answer(0)), rejected(&answer(3)), rejected(&[])), (0, 3, 0));
        for garbage in [&b"{}"[..], b"<html>", &[0xff; 40], &[0x0a, 0x7f]] {
            assert_eq!(rejected(garbage), 0, "{garbage:?}");
        }
    }
}
