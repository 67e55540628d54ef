//! Many runs in one request.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{pages, post, problem};
use crate::both_ways;
use crate::support::{Builder, Http};

async fn bulk(client: &Http, body: &str) -> Vec<Value> {
    let response = post(client, "/v1/runs/bulk", body).await;
    assert_eq!(response.status, 200, "{}", response.json());
    response.json()["results"].as_array().unwrap().clone()
}

both_ways! {
    async fn each_item_has_its_own_outcome(engine) {
        engine.workflow("w").await;
        let body = r#"{"runs":[
            {"workflow":"w","input":{"n":0},"metadata":{"a":"b"},"priority":4},
            {"workflow":"unknown"},
            {"workflow":"w","typo":1},
            {"workflow":"w","input":{"n":3}},
            7,
            {"workflow":"w","delay":"1h"},
            {"workflow":"w","metadata":{"a":{}}},
            {"workflow":"w","idempotency_key":"a b"}
        ]}"#;
        let results = bulk(&engine, body).await;
        let statuses: Vec<_> = results.iter().map(|r| r["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [201, 404, 400, 201, 400, 201, 400, 400]);
        let codes: Vec<_> = results.iter().map(|r| r["problem"]["code"].as_str().unwrap_or("")).collect();
        assert_eq!(codes, ["", "workflow_not_found", "unknown_field", "", "invalid_field", "", "invalid_field", "invalid_field"]);
        let pointers: Vec<_> = results.iter().map(|r| r["problem"]["pointer"].as_str().unwrap_or("")).collect();
        assert_eq!(pointers, ["", "", "/runs/2/typo", "", "/runs/4", "", "/runs/6/metadata/a", "/runs/7/idempotency_key"]);
        assert_eq!((&results[0]["run"]["priority"], &results[3]["run"]["input"]), (&json!(4), &json!({"n": 3})));
        assert_eq!(results[5]["run"]["status"], "scheduled");
        for result in &results {
            assert_ne!(result.get("run").is_some(), result.get("problem").is_some(), "{result}");
            if let Some(run) = result.get("run") {
                assert_eq!(engine.run(&run["id"]).await, *run);
            }
        }
        assert_eq!(engine.get("/v1/runs").await.1["items"].as_array().unwrap().len(), 3);
    }
}

both_ways! {
    async fn a_thousand_are_created_in_order_and_one_more_is_refused(engine) {
        engine.workflow("w").await;
        let items = |n: usize| json!({"runs": (0..n).map(|i| json!({"workflow": "w", "input": i})).collect::<Vec<_>>()});
        let results = bulk(&engine, &items(1_000).to_string()).await;
        assert_eq!(results.len(), 1_000);
        let ids: BTreeSet<_> = results.iter().map(|r| r["run"]["id"].to_string()).collect();
        assert_eq!(ids.len(), 1_000);
        for (i, result) in results.iter().enumerate() {
            assert_eq!((&result["status"], &result["run"]["input"]), (&json!(201), &json!(i)));
        }
        assert_eq!(pages(&engine, "/v1/runs", 300).await.len(), 1_000);
        for wrong in [items(1_001), items(0)] {
            let response = post(&engine, "/v1/runs/bulk", &wrong.to_string()).await;
            assert_eq!(problem(&response, 400, "invalid_field")["pointer"], "/runs");
        }
        for (wrong, code) in [("{}", "missing_field"), (r#"{"runs":{}}"#, "invalid_field"), (r#"{"runs":[{"workflow":"w"},]}"#, "malformed")] {
            problem(&post(&engine, "/v1/runs/bulk", wrong).await, 400, code);
        }
        assert_eq!(pages(&engine, "/v1/runs", 1_000).await.len(), 1_000);
    }
}

both_ways! {
    async fn keys_hold_within_a_request_and_over_requests(engine) {
        engine.workflow("w").await;
        let item = |key: &str, n: u32| json!({"workflow": "w", "input": n, "idempotency_key": key});
        let body = json!({"runs": [item("a", 1), item("a", 1), item("b", 2), item("a", 9), {"workflow": "w"}]}).to_string();
        let first = bulk(&engine, &body).await;
        let statuses: Vec<_> = first.iter().map(|r| r["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [201, 200, 201, 409, 201]);
        assert_eq!(first[1]["run"]["id"], first[0]["run"]["id"]);
        assert_eq!(first[1]["run"]["deduplicated"], true);
        assert_eq!(first[3]["problem"]["existing"], first[0]["run"]["id"]);
        let again = bulk(&engine, &body).await;
        let statuses: Vec<_> = again.iter().map(|r| r["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [200, 200, 200, 409, 201]);
        assert_eq!(again[2]["run"]["id"], first[2]["run"]["id"]);
        // The key is the same one that a single trigger uses; only the bytes differ.
        let single = engine.request("POST", "/v1/runs", &[("idempotency-key", "b")], item("b", 2)["workflow"].to_string()).await;
        assert_eq!(single.status, 400);
        assert_eq!(pages(&engine, "/v1/runs", 100).await.len(), 4);
    }
}

both_ways! {
    with Builder::new().limits(|l| l.payload_bytes = 100);
    async fn a_large_item_is_refused_alone(engine) {
        engine.workflow("w").await;
        let item = |size: usize| json!({"workflow": "w", "input": "x".repeat(size - 2)});
        let results = bulk(&engine, &json!({"runs": [item(100), item(101)]}).to_string()).await;
        assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(201), &json!(413)));
        assert_eq!((&results[1]["problem"]["limit"], &results[1]["problem"]["size"]), (&json!(100), &json!(101)));
    }
}
