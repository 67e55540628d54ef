//! One key, one run.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::problem;
use crate::both_ways;
use crate::support::{Http, Response};

async fn create(client: &Http, key: &str, body: &str) -> Response {
    client.request("POST", "/v1/runs", &[("idempotency-key", key)], body.to_owned()).await
}

both_ways! {
    async fn fifty_at_once_give_one_run(engine) {
        engine.workflow("w").await;
        let clients = (0..50).map(|_| engine.client());
        let answers = join_all(clients.map(async |client| create(&client, "k", r#"{"workflow":"w"}"#).await)).await;
        let runs: Vec<Value> = answers.iter().map(Response::json).collect();
        let ids: BTreeSet<_> = runs.iter().map(|run| run["id"].to_string()).collect();
        assert_eq!(ids.len(), 1);
        let created: Vec<_> = answers.iter().filter(|a| a.status == 201).collect();
        assert_eq!(created.len(), 1);
        assert!(created[0].json().get("deduplicated").is_none());
        let repeated = answers.iter().filter(|a| a.status == 200 && a.json()["deduplicated"] == true).count();
        assert_eq!(repeated, 49);
        assert_eq!(engine.get("/v1/runs").await.1["items"].as_array().unwrap().len(), 1);
    }
}

both_ways! {
    async fn another_body_is_a_conflict_and_another_scope_is_not(engine) {
        engine.workflow("w").await;
        engine.workflow("v").await;
        let first = create(&engine, "k", r#"{"workflow":"w","input":1}"#).await.json();
        let conflict = create(&engine, "k", r#"{"workflow":"w","input":2}"#).await;
        assert_eq!(problem(&conflict, 409, "idempotency_conflict")["existing"], first["id"]);
        // A key is of its workflow and of its tenant.
        assert_eq!(create(&engine, "k", r#"{"workflow":"v","input":1}"#).await.status, 201);
        let other = engine.second_tenant().await;
        assert_eq!(other.put("/v1/workflows/w", json!({"tasks": [{"name": "t"}]})).await.0, 200);
        assert_eq!(create(&other, "k", r#"{"workflow":"w","input":1}"#).await.status, 201);
        assert_eq!(create(&engine, &"k".repeat(255), r#"{"workflow":"w"}"#).await.status, 201);
    }
}

both_ways! {
    async fn a_key_outlives_its_run_and_the_engine(engine) {
        engine.workflow("w").await;
        let body = r#"{"workflow":"w"}"#;
        let first = create(&engine, "k", body).await.json();
        let path = format!("/v1/runs/{}/cancel", first["id"].as_str().unwrap());
        assert_eq!(engine.post(&path, json!({})).await.0, 200);
        let engine = engine.restart().await;
        let again = create(&engine, "k", body).await;
        let run = again.json();
        assert_eq!((again.status, &run["id"], &run["status"]), (200, &first["id"], &json!("cancelled")));
    }
}
