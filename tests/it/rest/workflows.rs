//! Registering workflows.

use serde_json::{Value, json};

use super::{pages, problem};
use crate::support;

fn definition(action: &str) -> Value {
    json!({"tasks": [{"name": "t", "action": action}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_definitions_are_one_version_and_an_old_one_becomes_current_again() {
    let engine = support::engine().await;
    let put = async |action: &str| {
        let (status, body) = engine.put("/v1/workflows/resize", definition(action)).await;
        assert_eq!(status, 200, "{body}");
        body
    };
    let first = put("a").await;
    assert_eq!((&first["name"], &first["version"]), (&json!("resize"), &json!(1)));
    assert_eq!(first["definition"], definition("a"));
    assert_eq!(put("a").await, first);
    let second = put("b").await;
    assert_eq!((&second["version"], &second["created_at"]), (&json!(2), &first["created_at"]));
    assert_eq!(engine.get("/v1/workflows/resize").await, (200, second));
    assert_eq!(engine.trigger("resize", json!(1)).await["version"], 2);
    let again = put("a").await;
    assert_eq!(again["version"], 1);
    assert_eq!(engine.trigger("resize", json!(1)).await["version"], 1);
    assert_eq!(put("c").await["version"], 3);

    let versions = pages(&engine, "/v1/workflows/resize/versions", 2).await;
    let shown: Vec<_> = versions.iter().map(|v| (v["version"].clone(), v["current"].clone())).collect();
    assert_eq!(shown, [(json!(3), json!(true)), (json!(2), json!(false)), (json!(1), json!(false))]);
    assert_eq!(versions[2]["definition"], definition("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_a_definition_is_kept() {
    let engine = support::engine().await;
    let full = json!({
        "description": "all of it",
        "tasks": [{
            "name": "t", "action": "a", "execution_timeout": "30s", "schedule_timeout": "1h30m", "priority": 3,
            "slots": {"gpu": 2},
            "retries": {"count": 3, "base": "1s", "factor": 2.0, "cap": "5m", "jitter": true,
                "rules": [{"codes": ["x"], "retry": false}]},
        }],
        "events": ["image.*", "x"],
    });
    assert_eq!(engine.put("/v1/workflows/full", full.clone()).await.1["definition"], full);
    assert_eq!(engine.get("/v1/workflows/full").await.1["definition"], full);
    assert_eq!(engine.trigger("full", json!(null)).await["priority"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_get_gives_can_be_put_again() {
    let engine = support::engine().await;
    let (_, first) = engine.put("/v1/workflows/w", definition("a")).await;
    assert_eq!(engine.put("/v1/workflows/w", first.clone()).await, (200, first.clone()), "nothing has changed");
    let mut changed = first.clone();
    changed["definition"]["tasks"][0]["action"] = json!("b");
    let (_, second) = engine.put("/v1/workflows/w", changed.clone()).await;
    assert_eq!((&second["version"], &second["definition"]), (&json!(2), &definition("b")));
    changed["definition"]["tasks"][0]["retries"] = json!(-1);
    let refused = engine.request("PUT", "/v1/workflows/w", &[], changed.to_string()).await;
    let told = problem(&refused, 400, "invalid_field");
    assert_eq!(told["pointer"], "/definition/tasks/0/retries");
    assert!(told["detail"].as_str().unwrap().starts_with("expected 0 to 10000 retries"), "{told}");
    changed["definitions"] = json!(1);
    let refused = engine.request("PUT", "/v1/workflows/w", &[], changed.to_string()).await;
    assert_eq!(problem(&refused, 400, "unknown_field")["pointer"], "/definitions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_are_listed_by_name() {
    let engine = support::engine().await;
    for name in ["c", "a", "b%2Fx", "d.1:2_3-4"] {
        assert_eq!(engine.put(&format!("/v1/workflows/{name}"), definition("x")).await.0, 200, "{name}");
    }
    assert_eq!(engine.get("/v1/workflows/b%2Fx").await.1["name"], "b/x");
    for limit in [1, 2, 4, 1_000] {
        let names: Vec<_> = pages(&engine, "/v1/workflows", limit).await.iter().map(|w| w["name"].clone()).collect();
        assert_eq!(names, ["a", "b/x", "c", "d.1:2_3-4"], "limit {limit}");
    }
    problem(&engine.request("GET", "/v1/workflows/nobody", &[], "").await, 404, "workflow_not_found");
    problem(&engine.request("GET", "/v1/workflows/nobody/versions", &[], "").await, 404, "workflow_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_is_deleted_when_no_run_of_it_is_open() {
    let engine = support::engine().await;
    engine.put("/v1/workflows/w", definition("a")).await;
    let run = engine.trigger("w", json!(1)).await;
    let refused = engine.request("DELETE", "/v1/workflows/w", &[], "").await;
    assert_eq!(problem(&refused, 409, "in_use")["existing"], run["id"]);
    // A refused deletion leaves everything as it was.
    let second = engine.trigger("w", json!(2)).await;
    for run in [&run, &second] {
        let path = format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap());
        assert_eq!(engine.post(&path, json!({})).await.0, 200);
    }
    let deleted = engine.request("DELETE", "/v1/workflows/w", &[], "").await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    problem(&engine.request("DELETE", "/v1/workflows/w", &[], "").await, 404, "workflow_not_found");
    problem(&engine.request("GET", "/v1/workflows/w", &[], "").await, 404, "workflow_not_found");
    let trigger = engine.request("POST", "/v1/runs", &[], r#"{"workflow":"w"}"#).await;
    problem(&trigger, 404, "workflow_not_found");
    assert_eq!(engine.get("/v1/workflows").await.1["items"], json!([]));
    assert_eq!(engine.run(&run["id"]).await["status"], "cancelled");
    // Registered again it goes on counting.
    assert_eq!(engine.put("/v1/workflows/w", definition("b")).await.1["version"], 2);
    assert_eq!(engine.trigger("w", json!(3)).await["version"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_registrations_get_numbers_of_their_own() {
    let engine = support::engine().await;
    let puts = (0..20).map(|i| {
        let client = engine.client();
        async move { client.put("/v1/workflows/w", definition(&format!("a{}", i % 10))).await.1["version"].as_i64() }
    });
    let mut numbers = futures_util::future::join_all(puts).await;
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=10).map(Some).collect::<Vec<_>>());
    let current = engine.get("/v1/workflows/w").await.1["version"].clone();
    assert_eq!(engine.trigger("w", json!(1)).await["version"], current);
    let row = engine.sql().await.query_one("select version from workflow where name = 'w'", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), current);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_survive_a_restart() {
    let engine = support::engine().await;
    engine.put("/v1/workflows/w", definition("a")).await;
    let before = engine.put("/v1/workflows/w", definition("b")).await.1;
    let engine = engine.restart().await;
    assert_eq!(engine.get("/v1/workflows/w").await.1, before);
    assert_eq!(engine.trigger("w", json!(1)).await["version"], 2);
}

/// Clients and proxies take such a name in a path for a step, and never ask for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_no_path_can_have_is_not_given() {
    let engine = support::engine().await;
    let definition = json!({"tasks": [{"name": "t"}]});
    for path in ["%2E", "%2E%2E", "a%2F..%2Fb"] {
        let (status, refused) = engine.put(&format!("/v1/workflows/{path}"), definition.clone()).await;
        assert_eq!((status, &refused["code"], &refused["pointer"]), (400, &json!("invalid_field"), &json!("/name")));
    }
    for task in [json!({"name": ".."}), json!({"name": "t", "action": "."})] {
        let (status, refused) = engine.put("/v1/workflows/w", json!({"tasks": [task]})).await;
        assert_eq!((status, &refused["code"]), (400, &json!("invalid_field")), "{refused}");
    }
    // One from before this rule goes on, and can be deleted.
    engine.workflow("w").await;
    let rows = "insert into workflow_version select tenant, '..', version, checksum, definition, created_at from workflow_version;
        insert into workflow select tenant, '..', version, created_at, updated_at, deleted_at from workflow";
    engine.sql().await.batch_execute(rows).await.unwrap();
    let run = engine.trigger("..", json!(1)).await;
    assert_eq!(engine.get("/v1/runs?workflow=..").await.1["items"][0]["id"], run["id"]);
    let mut worker = support::worker(&engine, &["w"], 1).await;
    let task = worker.task().await;
    worker.finish(&task, json!(2)).await;
    engine.run_is(&run["id"], "succeeded").await;
    assert_eq!(engine.get("/v1/workflows/%2E%2E").await.0, 200);
    assert_eq!(engine.delete("/v1/workflows/%2E%2E").await.0, 204);
}
