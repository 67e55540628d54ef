//! Input schemas: refused at registration, enforced at every trigger.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{post, problem};
use crate::both_ways;
use crate::support::{self, Engine};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"url": {"type": "string"}, "size": {"$ref": "#/$defs/size"}},
        "required": ["url"],
        "$defs": {"size": {"type": "integer", "maximum": 10}}
    })
}

async fn register(engine: &Engine, name: &str, schema: &Value) {
    let definition = json!({"tasks": [{"name": name}], "events": ["file.*"], "input_schema": schema});
    let (status, workflow) = engine.put(&format!("/v1/workflows/{name}"), definition).await;
    assert_eq!((status, &workflow["definition"]["input_schema"]), (200, schema));
}

both_ways! {
    async fn a_run_starts_only_with_an_input_that_fits(engine) {
        register(&engine, "w", &schema()).await;
        let mut worker = support::worker(&engine, &["w"], 4).await;
        let run = engine.trigger("w", json!({"url": "a", "size": 10})).await;
        let task = worker.task().await;
        assert_eq!(task["run"], run["id"]);
        worker.finish(&task, json!(1)).await;
        for (input, pointer, part) in [
            ("", "/input", "object"),
            (r#","input":{"size":1}"#, "/input", "expected a property \"url\""),
            (r#","input":{"url":"a","size":11}"#, "/input/size", "10"),
            (r#","input":{"url":"a","size":"1"}"#, "/input/size", "integer"),
        ] {
            let refused = post(&engine, "/v1/runs", &format!(r#"{{"workflow":"w"{input}}}"#)).await;
            let problem = problem(&refused, 422, "schema_mismatch");
            assert_eq!(problem["pointer"], pointer);
            assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
        }
        // A refused trigger does not use up its key.
        let keyed = [("idempotency-key", "k")];
        assert_eq!(engine.request("POST", "/v1/runs", &keyed, r#"{"workflow":"w"}"#).await.status, 422);
        assert_eq!(engine.request("POST", "/v1/runs", &keyed, r#"{"workflow":"w","input":{"url":"a"}}"#).await.status, 201);

        let body = json!({"runs": [{"workflow": "w", "input": {"url": 1}}, {"workflow": "w", "input": {"url": "b"}}]});
        let (status, bulk) = engine.post("/v1/runs/bulk", body).await;
        assert_eq!((status, &bulk["results"][0]["status"], &bulk["results"][1]["status"]), (200, &json!(422), &json!(201)));
        assert_eq!(bulk["results"][0]["problem"]["pointer"], "/runs/0/input/url");
        assert_eq!(engine.get("/v1/runs").await.1["items"].as_array().unwrap().len(), 3);
    }
}

both_ways! {
    async fn an_event_that_does_not_fit_is_kept_and_says_so(engine) {
        register(&engine, "strict", &schema()).await;
        register(&engine, "lax", &json!({"type": "object"})).await;
        let body = json!({"key": "file.new", "payload": {"url": "a", "size": 99}, "source": "s", "source_id": "1"});
        let (status, event) = engine.post("/v1/events", body.clone()).await;
        assert_eq!((status, event["runs"].as_array().unwrap().len()), (201, 1), "{event}");
        assert_eq!(engine.run(&event["runs"][0]).await["workflow"], "lax");
        let skipped = &event["skipped"][0];
        assert_eq!(
            (&skipped["workflow"], &skipped["version"], &skipped["code"], &skipped["pointer"]),
            (&json!("strict"), &json!(1), &json!("schema_mismatch"), &json!("/payload/size"))
        );
        assert_eq!(engine.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await, (200, event.clone()));
        assert_eq!(engine.get("/v1/events").await.1["items"][0], event);
        // The same event again has the same answer, also when the schema is another one now.
        register(&engine, "strict", &json!({})).await;
        let (status, again) = engine.post("/v1/events", body).await;
        assert_eq!((status, &again["skipped"], &again["runs"]), (200, &event["skipped"], &event["runs"]));
        let (_, fits) = engine.post("/v1/events", json!({"key": "file.new", "payload": {"url": "a"}})).await;
        assert_eq!((fits["runs"].as_array().unwrap().len(), &fits["skipped"]), (2, &json!([])));
    }
}

both_ways! {
    async fn a_schema_holds_after_a_restart_and_belongs_to_its_version(engine) {
        register(&engine, "w", &schema()).await;
        let engine = engine.restart().await;
        problem(&post(&engine, "/v1/runs", r#"{"workflow":"w"}"#).await, 422, "schema_mismatch");
        // The same text is the same version; another schema is another one.
        register(&engine, "w", &schema()).await;
        assert_eq!(engine.get("/v1/workflows/w").await.1["version"], 1);
        engine.workflow("w").await;
        assert_eq!(post(&engine, "/v1/runs", r#"{"workflow":"w"}"#).await.json()["version"], 2);
        // A worker brings a schema as a client does.
        let named = json!([{"name": "v", "tasks": [{"name": "v"}], "input_schema": {"type": "integer"}}]);
        let mut hello = support::hello("test", &["v"], 1);
        hello["workflows"] = named;
        let worker = support::Worker::connect(&engine.url, &engine.token, hello).await;
        problem(&post(&engine, "/v1/runs", r#"{"workflow":"v","input":"x"}"#).await, 422, "schema_mismatch");
        worker.goodbye().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_schema_is_refused_at_the_registration() {
    let engine = support::engine().await;
    for (schema, pointer) in [
        (json!(true), "/input_schema"),
        (json!({"type": "word"}), "/input_schema/type"),
        (json!({"properties": {"a": {"$ref": "https://example.com/a"}}}), "/input_schema/properties/a/$ref"),
        (json!({"properties": {"a": {"pattern": "(?<=a)b"}}}), "/input_schema/properties/a/pattern"),
        (json!({"$schema": "http://json-schema.org/draft-04/schema#"}), "/input_schema/$schema"),
        (json!({"description": "x".repeat(70_000)}), "/input_schema"),
    ] {
        let body = json!({"tasks": [{"name": "a"}], "input_schema": schema}).to_string();
        let refused = engine.request("PUT", "/v1/workflows/w", &[], body).await;
        assert_eq!(problem(&refused, 400, "invalid_field")["pointer"], pointer);
    }
    assert_eq!(engine.get("/v1/workflows/w").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_of_one_tenant_is_nothing_to_another() {
    let engine = support::engine().await;
    register(&engine, "w", &schema()).await;
    let stranger = engine.second_tenant().await;
    let definition = json!({"tasks": [{"name": "w"}], "events": ["file.*"]});
    assert_eq!(stranger.put("/v1/workflows/w", definition).await.0, 200);
    assert_eq!(stranger.post("/v1/runs", json!({"workflow": "w"})).await.0, 201);
    let (_, event) = stranger.post("/v1/events", json!({"key": "file.new"})).await;
    assert_eq!((event["runs"].as_array().unwrap().len(), &event["skipped"]), (1, &json!([])));
    problem(&post(&engine, "/v1/runs", r#"{"workflow":"w"}"#).await, 422, "schema_mismatch");
}

/// One tenant asks for checks that take as long as any may. Another one, with a schema of its own, does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_of_one_tenant_are_not_felt_by_another() {
    let engine = support::engine().await;
    let attacker = engine.second_tenant().await;
    register(&engine, "w", &schema()).await;
    let heavy = json!({"tasks": [{"name": "w"}], "input_schema": {"pattern": "[ab]*a[ab]{120}c"}});
    assert_eq!(attacker.put("/v1/workflows/w", heavy).await.0, 200);
    // Without an order that an automaton could learn.
    let mut state = 1_u64;
    let letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if state >> 63 == 0 { 'a' } else { 'b' }
    };
    let attack = json!({"workflow": "w", "input": String::from_iter(std::iter::repeat_with(letter).take(1_000_000))});
    let (answered, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let attacks = async |_n: usize| {
        while over.load(Ordering::Relaxed) == 0 {
            let (status, body) = attacker.post("/v1/runs", attack.clone()).await;
            assert!(matches!(status, 422 | 429 | 503), "{status} {body}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let other = async {
        support::until("the attack is on", || async { (answered.load(Ordering::Relaxed) > 0).then_some(()) }).await;
        let mut slowest = Duration::ZERO;
        while answered.load(Ordering::Relaxed) < 4 {
            #[expect(clippy::disallowed_methods, reason = "what a caller sees is measured as a caller does")]
            let began = Instant::now();
            engine.trigger("w", json!({"url": "a"})).await;
            slowest = slowest.max(began.elapsed());
        }
        over.store(1, Ordering::Relaxed);
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    };
    tokio::join!(attacks(0), attacks(1), attacks(2), attacks(3), other);
}

/// The tenant's many workflows are not looked at for a name that none of them has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_an_unknown_workflow_costs_nothing_of_the_others() {
    let engine = support::engine().await;
    let patterns: Vec<_> = (0..100).map(|n| json!({"pattern": format!("[ab]*a[ab]{{1500}}{n}")})).collect();
    register(&engine, "w0", &json!({"anyOf": patterns})).await;
    let rows = "insert into workflow_version
            select tenant, 'w' || n, version, checksum, definition, created_at from workflow_version, generate_series(1, 100) n;
        insert into workflow
            select tenant, 'w' || n, version, created_at, updated_at, deleted_at from workflow, generate_series(1, 100) n";
    engine.sql().await.batch_execute(rows).await.unwrap();
    let engine = engine.restart().await;
    #[expect(clippy::disallowed_methods, reason = "what a caller sees is measured as a caller does")]
    let began = Instant::now();
    let refused = post(&engine, "/v1/runs", r#"{"workflow":"nothing"}"#).await;
    problem(&refused, 404, "workflow_not_found");
    // An event reads them all, and compiles none of them.
    assert_eq!(engine.post("/v1/events", json!({"key": "nothing"})).await.1["runs"], json!([]));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let (status, event) = engine.get("/v1/workflows/w7").await;
    assert_eq!(status, 200, "{event}");
}
