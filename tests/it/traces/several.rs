//! A trace that passes from engine to engine: after a death, after a stop, and through one that does not own the tenant.

use std::time::Duration;

use helve::cluster::Place;
use helve::config::Scheduling;
use helve::db::Pool;
use helve_postgres::Database;
use serde_json::{Value, json};

use super::{CLIENT, SENT, TRACE, one, parts, to, traced, trigger};
use crate::support::collector::Collector;
use crate::support::process::EngineProcess;
use crate::support::{Builder, Http, Worker, fresh_database, hello, provision, until_within, worker};

/// The engine is killed while one run is with a worker and another waits: its successor ends the spans of both, under the
/// ids that the worker was told before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_ends_the_spans_of_the_dead() {
    for optimistic in ["on", "off"] {
        let collector = Collector::start().await;
        let database = fresh_database().await;
        let pool = Pool::new(&Database { pool_size: 2, ..Database::at(&database) }).unwrap();
        let (_, token) = provision(&pool, "traces").await;
        let base = collector.endpoint.strip_suffix("/v1/traces").unwrap();
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", base),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_SERVICE_NAME", "killed"),
            ("HELVE_SCHEDULING_OPTIMISTIC", optimistic),
        ];
        let mut engine = EngineProcess::start(&database, &env).await;
        let http = Http::new(&engine.url, Some(&token));
        for name in ["held", "waits"] {
            let definition = json!({"tasks": [{"name": name, "action": name}]});
            assert_eq!(http.put(&format!("/v1/workflows/{name}"), definition).await.0, 200);
        }
        let mut worker = Worker::connect(&engine.url, &token, hello("w", &["held"], 1)).await;
        let headers = [("traceparent", SENT)];
        let create = async |workflow: &str| {
            let large = "x".repeat(5_000);
            let body = json!({"workflow": workflow, "input": large});
            let (status, run) = http.post_with("/v1/runs", &headers, body).await;
            assert_eq!(status, 201, "{run}");
        };
        create("held").await;
        let task = worker.task().await;
        let (_, told, _) = parts(&task["traceparent"]);
        create("waits").await;
        // Two requests, and the wait of the first run.
        let before = collector.trace(TRACE, 3).await;
        let mut again = hello("w", &["held", "waits"], 2);
        again["resume"] = worker.resume(&[&task]);
        engine.kill9();
        engine.restart().await;
        let mut worker = Worker::connect(&engine.url, &token, again).await;
        assert_eq!(worker.welcome["resumed"], true);
        worker.report(&task, json!({"outcome": "succeeded"})).await;
        let second = worker.find_tasks().await.remove(0);
        worker.report(&second, json!({"outcome": "succeeded"})).await;
        let spans = collector.trace(TRACE, 8).await;
        let (held, waits) = (one(&spans, "attempt held"), one(&spans, "attempt waits"));
        assert_eq!((&held.id, &waits.id), (&told, &parts(&second["traceparent"]).1));
        let requests: Vec<_> = before.iter().filter(|s| s.name == "POST /v1/runs").map(|s| s.id.clone()).collect();
        for name in ["held", "waits"] {
            let whole = one(&spans, &format!("run {name}"));
            assert!(requests.contains(&whole.parent), "{whole:?}");
            for child in ["queue", "attempt"] {
                assert_eq!(one(&spans, &format!("{child} {name}")).parent, whole.id);
            }
        }
        assert_ne!(held.resource["service.instance.id"], before[0].resource["service.instance.id"]);
    }
}

/// A trigger without a context, stored with the engine's own: the successor knows it too, and so it does the runs of a time
/// in which nothing was traced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_began_here_goes_on_after_a_restart() {
    let collector = Collector::start().await;
    let engine = traced(&collector, true).await;
    engine.workflow("w").await;
    engine.trigger("w", json!(1)).await;
    let request = collector.named("POST /v1/runs").await;
    let engine = engine.restart().await;
    let mut worker = worker(&engine, &["w"], 1).await;
    let task = worker.task().await;
    assert_eq!(parts(&task["traceparent"]).0, request.trace);
    worker.finish(&task, json!(null)).await;
    let spans = collector.trace(&request.trace, 4).await;
    assert_eq!(one(&spans, "run w").parent, request.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_from_before_the_tracing_is_a_trace_of_its_own() {
    let collector = Collector::start().await;
    let engine = Builder::new().start().await;
    engine.workflow("w").await;
    let run = engine.trigger("w", json!(1)).await;
    let (url, token, database) = (engine.url.clone(), engine.token.clone(), engine.database.clone());
    engine.stop().await;
    let engine = Builder::new().traces(to(&collector)).on(&database).await;
    assert_ne!(engine.url, url);
    let mut worker = Worker::connect(&engine.url, &token, hello("w", &["w"], 1)).await;
    let task = worker.task().await;
    let (trace, span, sampled) = parts(&task["traceparent"]);
    worker.finish(&task, json!(null)).await;
    let spans = collector.trace(&trace, 3).await;
    let whole = one(&spans, "run w");
    assert_eq!((whole.parent.as_str(), sampled, &one(&spans, "attempt w").id), ("", true, &span));
    assert_eq!(whole.get("helve.run.id"), run["id"].as_str().unwrap());
}

/// A worker that is lost: the attempt's span says so, and the next attempt is another span.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_attempt_of_a_lost_worker_failed() {
    let collector = Collector::start().await;
    let grace = |s: &mut Scheduling| s.grace = Duration::from_millis(200);
    let engine = Builder::new().scheduling(grace).traces(to(&collector)).start().await;
    engine.workflow("w").await;
    let mut first = worker(&engine, &["w"], 1).await;
    trigger(&engine, SENT, json!({"workflow": "w"})).await;
    let lost = parts(&first.task().await["traceparent"]).1;
    drop(first);
    let attempt = collector.named("attempt w").await;
    assert_eq!(
        (attempt.id, attempt.failed, attempt.attributes["helve.attempt.outcome"].as_str()),
        (lost.clone(), true, "worker_lost")
    );
    let mut second = worker(&engine, &["w"], 1).await;
    let task = second.task().await;
    assert_ne!(parts(&task["traceparent"]).1, lost);
    second.finish(&task, Value::Null).await;
    collector.trace(TRACE, 5).await;
}

/// Two engines: the one that was asked and the one that owns the tenant each have a span, one below the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_passed_on_is_one_trace() {
    let collector = Collector::start().await;
    let first = traced(&collector, true).await;
    let second = first.beside(|_| ()).await;
    until_within("the shards are spread", Duration::from_secs(20), || async {
        let known = |e: &crate::support::Engine| !matches!(e.scheduler().directory().place(e.tenant), Place::Nowhere);
        let spread = [&first, &second].iter().all(|e| e.scheduler().directory().here().len() == 32 && known(e));
        spread.then_some(())
    })
    .await;
    let first_owns = matches!(first.scheduler().directory().place(first.tenant), Place::Here);
    let (owner, other) = if first_owns { (&first, &second) } else { (&second, &first) };
    other.workflow("w").await;
    let mut worker = worker(owner, &["w"], 1).await;
    trigger(other, SENT, json!({"workflow": "w"})).await;
    let task = worker.task().await;
    worker.finish(&task, json!(null)).await;
    let spans = collector.trace(TRACE, 5).await;
    let of = |engine: &crate::support::Engine| {
        let node = engine.scheduler().node().to_string();
        let asked = |s: &&crate::support::collector::Span| {
            s.name == "POST /v1/runs" && s.resource["service.instance.id"] == node
        };
        spans.iter().find(asked).unwrap().clone()
    };
    let (entry, owned) = (of(other), of(owner));
    assert_eq!((entry.parent.as_str(), &owned.parent), (CLIENT, &entry.id));
    assert_eq!(one(&spans, "run w").parent, owned.id);
}
