//! The spans of one engine: which there are, how they hang together, and what they do not say.

use serde_json::json;

use super::{CLIENT, SENT, TRACE, failed, one, parts, to, traced, trigger};
use crate::support::collector::Collector;
use crate::support::{Builder, until, worker};

/// Stands in everything that is nobody's business.
const MARKER: &str = "marker-4711-of-a-customer";

async fn a_run_within_a_trace(optimistic: bool) {
    let collector = Collector::start().await;
    let engine = traced(&collector, optimistic).await;
    engine.workflow("resize").await;
    let mut worker = worker(&engine, &["resize"], 1).await;
    let run = trigger(&engine, SENT, json!({"workflow": "resize", "input": 1})).await;
    let task = worker.task().await;
    worker.finish(&task, json!(2)).await;
    let spans = collector.trace(TRACE, 4).await;
    let request = one(&spans, "POST /v1/runs");
    let (whole, wait, attempt) =
        (one(&spans, "run resize"), one(&spans, "queue resize"), one(&spans, "attempt resize"));
    assert_eq!(request.parent, CLIENT);
    assert_eq!(whole.parent, request.id);
    assert_eq!((&wait.parent, &attempt.parent), (&whole.id, &whole.id));
    assert_eq!(parts(&task["traceparent"]), (TRACE.to_owned(), attempt.id.clone(), true));
    assert_eq!((request.kind, whole.kind, wait.kind, attempt.kind), (2, 1, 1, 4));
    assert!(spans.iter().all(|span| !span.failed && span.times.0 <= span.times.1), "{spans:#?}");
    assert!(whole.times.0 <= attempt.times.0 && attempt.times.1 <= whole.times.1);
    assert!(request.times.0 <= wait.times.1 && wait.times.1 <= attempt.times.1);
    for (span, key, value) in [
        (request, "http.request.method", "POST"),
        (request, "http.route", "/v1/runs"),
        (request, "http.response.status_code", "201"),
        (request, "helve.tenant.id", &engine.tenant.to_string()),
        (whole, "helve.run.status", "succeeded"),
        (whole, "helve.run.attempts", "1"),
        (whole, "helve.run.retries", "0"),
        (wait, "helve.queue.optimistic", if optimistic { "true" } else { "false" }),
        (attempt, "helve.attempt.number", "1"),
        (attempt, "helve.attempt.outcome", "succeeded"),
        (attempt, "helve.worker.id", worker.welcome["worker"].as_str().unwrap()),
        (attempt, "messaging.system", "helve"),
        (attempt, "messaging.destination.name", "resize"),
        (attempt, "messaging.message.id", run["id"].as_str().unwrap()),
    ] {
        assert_eq!(span.get(key), value, "{key} of {}", span.name);
    }
    for span in [whole, wait, attempt] {
        assert_eq!((span.get("helve.run.id"), span.get("error.type")), (run["id"].as_str().unwrap(), ""));
        assert_eq!((span.get("helve.workflow.name"), span.get("helve.action")), ("resize", "resize"));
    }
    assert_eq!(request.resource["service.name"], "helve");
    assert_eq!(request.resource["service.instance.id"], worker.welcome["node"].as_str().unwrap());
    let (path, headers) = collector.requests().remove(0);
    assert_eq!((path.as_str(), &headers["content-type"]), ("/v1/traces", &"application/x-protobuf".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_within_a_trace_optimistic() {
    a_run_within_a_trace(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_within_a_trace_queued() {
    a_run_within_a_trace(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_trace_one_begins_at_the_trigger() {
    for optimistic in [true, false] {
        let collector = Collector::start().await;
        let engine = traced(&collector, optimistic).await;
        engine.workflow("w").await;
        let mut worker = worker(&engine, &["w"], 1).await;
        // A broken header is none.
        for header in [None, Some("00-broken")] {
            let headers: Vec<_> = header.map(|text| ("traceparent", text)).into_iter().collect();
            let (status, _) = engine.post_with("/v1/runs", &headers, json!({"workflow": "w"})).await;
            assert_eq!(status, 201);
            let task = worker.task().await;
            let (trace, span, sampled) = parts(&task["traceparent"]);
            worker.finish(&task, json!(null)).await;
            let spans = collector.trace(&trace, 4).await;
            let request = one(&spans, "POST /v1/runs");
            assert_eq!((request.parent.as_str(), sampled), ("", true));
            assert_eq!((&one(&spans, "run w").parent, &one(&spans, "attempt w").id), (&request.id, &span));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_is_a_span_and_says_how_it_ended() {
    for optimistic in [true, false] {
        let collector = Collector::start().await;
        let engine = traced(&collector, optimistic).await;
        engine.workflow_with("w", json!({"retries": {"count": 1, "base": "1ms"}})).await;
        let mut worker = worker(&engine, &["w"], 1).await;
        trigger(&engine, SENT, json!({"workflow": "w"})).await;
        let mut ids = Vec::new();
        for outcome in ["released", "failed", "failed"] {
            let task = worker.find_tasks().await.remove(0);
            ids.push(parts(&task["traceparent"]).1);
            let mut result = json!({"outcome": outcome});
            if outcome == "failed" {
                result["error"] = failed(MARKER, "disk_full");
            }
            worker.report(&task, result).await;
        }
        let spans = collector.trace(TRACE, 6).await;
        let mut attempts: Vec<_> = spans.iter().filter(|span| span.name == "attempt w").collect();
        attempts.sort_by_key(|span| span.get("helve.attempt.number").to_owned());
        let found: Vec<_> =
            attempts.iter().map(|s| (s.get("helve.attempt.outcome"), s.failed, s.get("error.type"))).collect();
        assert_eq!(found, [("released", false, ""), ("failed", true, "disk_full"), ("failed", true, "disk_full")]);
        assert_eq!(attempts.iter().map(|span| span.id.clone()).collect::<Vec<_>>(), ids);
        let whole = one(&spans, "run w");
        assert!(whole.failed && attempts.iter().all(|span| span.parent == whole.id));
        let facts = ["helve.run.status", "helve.run.attempts", "helve.run.retries", "error.type"].map(|k| whole.get(k));
        assert_eq!(facts, ["failed", "3", "1", "disk_full"]);
        assert_eq!(one(&spans, "queue w").parent, whole.id, "the wait for the first attempt");
        assert!(!collector.has_seen(MARKER));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_and_cancels_end_their_spans() {
    let collector = Collector::start().await;
    let engine = traced(&collector, true).await;
    engine.workflow_with("slow", json!({"execution_timeout": "50ms", "retries": 0})).await;
    engine.workflow("never").await;
    let mut worker = worker(&engine, &["slow"], 1).await;
    trigger(&engine, SENT, json!({"workflow": "slow"})).await;
    worker.task().await;
    let attempt = collector.named("attempt slow").await;
    assert_eq!(
        (attempt.failed, attempt.get("helve.attempt.outcome"), attempt.get("error.type")),
        (true, "timeout", "timeout")
    );
    let run = trigger(&engine, SENT, json!({"workflow": "never"})).await;
    let (status, _) = engine.post(&format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(status, 200);
    let whole = collector.named("run never").await;
    assert_eq!(
        (whole.failed, whole.get("helve.run.status"), whole.get("error.type")),
        (false, "cancelled", "cancelled")
    );
    assert_eq!(whole.get("helve.run.attempts"), "0");
    let cancel = collector.named("POST /v1/runs/{id}/cancel").await;
    assert!(cancel.trace != TRACE && cancel.parent.is_empty(), "a request without a trace begins one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_is_not_exported_and_says_so_to_the_worker() {
    for optimistic in [true, false] {
        let collector = Collector::start().await;
        let engine = traced(&collector, optimistic).await;
        engine.workflow("w").await;
        collector.named("PUT /v1/workflows/{name}").await;
        let mut worker = worker(&engine, &["w"], 1).await;
        let unsampled = SENT.replace("-01", "-00");
        trigger(&engine, &unsampled, json!({"workflow": "w"})).await;
        let task = worker.task().await;
        assert_eq!(task["traceparent"], unsampled, "as it came");
        worker.finish(&task, json!(null)).await;
        // What comes after it arrives, and it did not.
        let after = trigger(&engine, SENT, json!({"workflow": "w"})).await;
        let task = worker.task().await;
        worker.finish(&task, json!(null)).await;
        let spans = collector.trace(TRACE, 4).await;
        assert_eq!(one(&spans, "run w").get("helve.run.id"), after["id"].as_str().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sampled_when_the_sampler_says_so() {
    use helve_domain::trace::{Sampler, Share};
    let collector = Collector::start().await;
    let off = Sampler { parent_based: true, root: Share::None };
    let engine = Builder::new().traces(to(&collector)).traces(|traces| traces.sampler = off).start().await;
    engine.workflow("w").await;
    let mut worker = worker(&engine, &["w"], 1).await;
    engine.trigger("w", json!(1)).await;
    let task = worker.task().await;
    assert!(!parts(&task["traceparent"]).2, "the worker begins no trace of its own: {task}");
    worker.finish(&task, json!(null)).await;
    trigger(&engine, SENT, json!({"workflow": "w"})).await;
    let task = worker.task().await;
    worker.finish(&task, json!(null)).await;
    collector.trace(TRACE, 4).await;
    assert_eq!(collector.spans().len(), 4, "only what came sampled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_and_a_bulk_carry_their_trace_to_every_run() {
    let collector = Collector::start().await;
    let engine = traced(&collector, true).await;
    for name in ["a", "b"] {
        let definition = json!({"tasks": [{"name": name, "action": name}], "events": ["image.*"]});
        assert_eq!(engine.put(&format!("/v1/workflows/{name}"), definition).await.0, 200);
    }
    let mut worker = worker(&engine, &["a", "b"], 10).await;
    let body = json!({"key": "image.new", "payload": MARKER, "metadata": {"k": MARKER}});
    let (status, event) = engine.post_with("/v1/events", &[("traceparent", SENT)], body).await;
    assert_eq!(status, 201, "{event}");
    let mut left = 2;
    while left > 0 {
        let tasks = worker.find_tasks().await;
        left -= tasks.len();
        worker.succeed(&tasks).await;
    }
    let spans = collector.trace(TRACE, 7).await;
    let request = one(&spans, "POST /v1/events");
    for name in ["run a", "run b"] {
        let whole = one(&spans, name);
        assert_eq!((&whole.parent, whole.get("helve.event.id")), (&request.id, event["id"].as_str().unwrap()));
    }
    let other = SENT.replace(TRACE, "1af7651916cd43dd8448eb211c80319c");
    let body = json!({"runs": [{"workflow": "a"}, {"workflow": "b"}]});
    let (status, answer) = engine.post_with("/v1/runs/bulk", &[("traceparent", &other)], body).await;
    assert!(status < 300, "{answer}");
    let mut left = 2;
    while left > 0 {
        let tasks = worker.find_tasks().await;
        left -= tasks.len();
        worker.succeed(&tasks).await;
    }
    let spans = collector.trace("1af7651916cd43dd8448eb211c80319c", 7).await;
    let request = one(&spans, "POST /v1/runs/bulk");
    assert!(["run a", "run b"].iter().all(|name| one(&spans, name).parent == request.id));
    assert!(!collector.has_seen(MARKER));
}

/// Inputs, outputs, metadata, messages, keys, queries and tokens: nothing of that is in any byte that leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_clients_say_is_exported() {
    let collector = Collector::start().await;
    let engine = traced(&collector, true).await;
    engine.workflow_with("w", json!({"retries": 0})).await;
    let mut worker = worker(&engine, &["w"], 1).await;
    let headers = [("idempotency-key", MARKER), ("traceparent", SENT), ("tracestate", "v=marker-4711-of-a-customer")];
    let body = json!({"workflow": "w", "input": {"a": MARKER}, "metadata": {"k": MARKER}});
    assert_eq!(engine.post_with("/v1/runs", &headers, body).await.0, 201);
    let task = worker.task().await;
    worker.fail(&task, json!({"message": MARKER})).await;
    collector.trace(TRACE, 4).await;
    engine.trigger("w", json!(MARKER)).await;
    let task = worker.task().await;
    worker.finish(&task, json!({"out": MARKER})).await;
    for path in [format!("/v1/runs?metadata.k={MARKER}"), format!("/v1/runs/{MARKER}"), format!("/{MARKER}/x")] {
        engine.get(&path).await;
    }
    engine.client().with_token(Some(&format!("helve_{MARKER}"))).get("/v1/workflows").await;
    let refused = until("the refused request", || async {
        collector.spans().into_iter().find(|span| span.get("http.response.status_code") == "401")
    })
    .await;
    assert_eq!((refused.name.as_str(), refused.get("helve.tenant.id")), ("GET /v1/workflows", ""));
    assert!(!collector.has_seen(MARKER) && !collector.has_seen(&engine.token));
    assert!(!collector.has_seen(worker.welcome["secret"].as_str().unwrap()));
    assert!(collector.spans().iter().all(|span| span.name != "GET /readyz"), "probes are not traced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_endpoint_the_context_travels_as_it_came() {
    let engine = Builder::new().start().await;
    engine.workflow("w").await;
    let mut worker = worker(&engine, &["w"], 1).await;
    trigger(&engine, SENT, json!({"workflow": "w"})).await;
    assert_eq!(worker.task().await["traceparent"], SENT);
}
