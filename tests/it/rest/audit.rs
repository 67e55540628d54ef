//! The audit views show what the interface shows.

use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::both_ways;
use crate::support;

fn text(row: &Row, column: &str) -> Value {
    row.get::<_, Option<String>>(column).map_or(Value::Null, Value::from)
}

/// What both sides say of a run, with times in the same words.
const RUN: &str = "select id, tenant, workflow, version, status, attempt, retries, priority, worker, event, replay_of,
    metadata::text as metadata, error::text as error, helve_audit.uuid(id) = uuid as same,
    to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as created_at,
    to_char(run_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as run_at,
    to_char(started_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as started_at,
    to_char(finished_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as finished_at
    from helve_audit.run";

both_ways! {
    async fn runs_attempts_and_transitions_agree_with_the_interface(engine) {
        engine.workflow_with("work", json!({"retries": {"count": 1, "base": "1ms", "jitter": false}})).await;
        engine.workflow("waits").await;
        let mut worker = support::worker(&engine, &["work"], 1).await;
        let failed = engine.post("/v1/runs", json!({"workflow": "work", "metadata": {"user": "42"}})).await.1;
        for attempt in 1..=2 {
            let task = worker.find_tasks().await.remove(0);
            worker.fail(&task, json!({"message": format!("no {attempt}"), "code": "broken"})).await;
        }
        engine.run_is(&failed["id"], "failed").await;
        let succeeded = engine.trigger("work", json!(1)).await;
        let task = worker.find_tasks().await.remove(0);
        worker.finish(&task, json!(2)).await;
        let running = engine.trigger("work", json!(1)).await;
        worker.find_tasks().await;
        let delayed = engine.post("/v1/runs", json!({"workflow": "waits", "delay": "1h"})).await.1;
        let queued = engine.trigger("waits", json!(1)).await;
        let cancelled = engine.trigger("waits", json!(1)).await;
        assert_eq!(engine.post(&format!("/v1/runs/{}/cancel", cancelled["id"].as_str().unwrap()), json!({})).await.0, 200);
        let again = engine.post(&format!("/v1/runs/{}/replay", cancelled["id"].as_str().unwrap()), json!({})).await.1;

        let sql = engine.sql().await;
        let promise: i32 = sql.query_one("select version from helve_audit.promise", &[]).await.unwrap().get(0);
        assert_eq!(promise, 1);
        let rows = sql.query(RUN, &[]).await.unwrap();
        let all = [&failed, &succeeded, &running, &delayed, &queued, &cancelled, &again];
        assert_eq!(rows.len(), all.len());
        for run in all {
            let run = engine.run(&run["id"]).await;
            let row = rows.iter().find(|row| text(row, "id") == run["id"]).unwrap();
            for column in ["workflow", "status", "worker", "event", "replay_of", "created_at", "run_at", "started_at", "finished_at"] {
                assert_eq!(text(row, column), run[column], "{column} of {run}");
            }
            for column in ["version", "attempt", "retries"] {
                assert_eq!(row.get::<_, i32>(column), run[column], "{column}");
            }
            assert_eq!(row.get::<_, i16>("priority"), run["priority"]);
            assert_eq!(text(row, "tenant"), engine.tenant.to_string());
            assert!(row.get::<_, bool>("same"));
            let json = |column| serde_json::from_str::<Value>(text(row, column).as_str().unwrap_or("null")).unwrap();
            assert_eq!((json("metadata"), json("error")), (run["metadata"].clone(), run["error"].clone()));
        }

        let attempts = sql
            .query("select run, attempt, worker, outcome, error::text as error, ended_at is null as open, started_at is null as early
                from helve_audit.attempt order by run_uuid, attempt", &[]).await.unwrap();
        let seen: Vec<Value> = attempts.iter().map(|row| json!([
            text(row, "run"), row.get::<_, i32>("attempt"), text(row, "worker"), text(row, "outcome"),
            row.get::<_, bool>("open"), row.get::<_, bool>("early"),
        ])).collect();
        let id = &worker.welcome["worker"];
        assert_eq!(seen, [
            json!([failed["id"], 1, id, "retry", false, false]),
            json!([failed["id"], 2, id, "failed", false, false]),
            json!([succeeded["id"], 1, id, "succeeded", false, false]),
            json!([running["id"], 1, id, "running", true, false]),
        ]);
        let error: Value = serde_json::from_str(text(&attempts[0], "error").as_str().unwrap()).unwrap();
        assert_eq!((&error["message"], &error["code"]), (&json!("no 1"), &json!("broken")));

        let transitions = sql
            .query("select run, status, reason, attempt, started_at <= at as timed from helve_audit.transition order by at", &[]).await.unwrap();
        let seen: Vec<Value> = transitions.iter().map(|row| json!([
            text(row, "run"), text(row, "status"), text(row, "reason"), row.get::<_, i32>("attempt"),
            row.get::<_, Option<bool>>("timed"),
        ])).collect();
        assert_eq!(seen, [
            json!([failed["id"], "scheduled", "retry", 1, true]),
            json!([cancelled["id"], "cancelled", "cancelled", 0, null]),
        ]);
    }
}

/// What may only look needs no right to a table, and an id finds its row by the index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_needs_the_views_only() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let run = engine.trigger("w", json!(1)).await;
    let sql = engine.sql().await;
    // The server is shared by every test, and so are its roles.
    let role = format!("auditor_{}", engine.tenant.uuid().as_simple());
    sql.batch_execute(&format!(
        "create role {role}; grant usage on schema helve_audit to {role};
         grant select on all tables in schema helve_audit to {role}; set role {role}"
    ))
    .await
    .unwrap();
    let id = run["id"].as_str().unwrap();
    let find = "select status from helve_audit.run where uuid = helve_audit.uuid($1)";
    let status: String = sql.query_one(find, &[&id]).await.unwrap().get(0);
    assert_eq!(status, "queued");
    assert!(sql.query("select from open_run", &[]).await.is_err());
    let clean_up = format!("reset role; drop owned by {role}; drop role {role}; set enable_seqscan = off");
    sql.batch_execute(&clean_up).await.unwrap();
    let plan = sql.query(&format!("explain {}", find.replace("$1", &format!("'{id}'"))), &[]).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("open_run_pkey")), "{plan:?}");
}
