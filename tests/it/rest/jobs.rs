//! Bulk jobs over REST: what they find, what they do, and what they refuse.

use serde_json::{Value, json};

use super::{NOBODY, pages, problem};
use crate::both_ways;
use crate::support::{self, Engine, Http, until};

fn path(job: &Value, action: &str) -> String {
    format!("/v1/jobs/{}{action}", job["id"].as_str().unwrap())
}

async fn create(client: &Http, body: Value) -> Value {
    let answer = client.request("POST", "/v1/jobs", &[], body.to_string()).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let job = answer.json();
    assert_eq!(answer.header("location"), path(&job, ""));
    job
}

/// Waits for the end of a job; gives it with the outcome of each run, oldest first.
pub(super) async fn ended(client: &Http, job: &Value, status: &str) -> (Value, Vec<Value>) {
    let job = until(&format!("{job} is {status}"), || async {
        let (code, job) = client.get(&path(job, "")).await;
        assert_eq!(code, 200, "{job}");
        (job["status"] == status).then_some(job)
    })
    .await;
    let items = pages(client, &path(&job, "/runs"), 3).await;
    (job, items)
}

fn ids(items: &[Value], field: &str) -> Vec<Value> {
    items.iter().map(|item| item[field].clone()).collect()
}

/// Runs of `work` that have failed, oldest first.
async fn failures(engine: &Engine, n: usize) -> Vec<Value> {
    let mut worker = support::worker(engine, &["work"], 1).await;
    let mut runs = Vec::new();
    for i in 0..n {
        let body = json!({"workflow": "work", "input": {"i": i}, "metadata": {"n": (i % 2).to_string()}});
        let (status, run) = engine.post("/v1/runs", body).await;
        assert_eq!(status, 201, "{run}");
        let task = worker.find_tasks().await.remove(0);
        worker.fail(&task, json!({"message": "x"})).await;
        runs.push(engine.run_is(&run["id"], "failed").await);
    }
    worker.goodbye().await;
    runs
}

both_ways! {
    async fn a_cancel_job_cancels_what_the_filter_finds(engine) {
        engine.workflow("work").await;
        engine.workflow("other").await;
        let mut worker = support::worker(&engine, &["work"], 1).await;
        let running = engine.trigger("work", json!(0)).await;
        let task = worker.task().await;
        let mut wanted = vec![running["id"].clone()];
        for i in 0..150 {
            wanted.push(engine.trigger("work", json!(i)).await["id"].clone());
        }
        let delayed = engine.post("/v1/runs", json!({"workflow": "work", "delay": "1h"})).await.1;
        wanted.push(delayed["id"].clone());
        let other = engine.trigger("other", json!(1)).await;

        let body = json!({"kind": "cancel", "filter": {"workflow": "work"}, "dry_run": true});
        assert_eq!(engine.post("/v1/jobs", body).await, (200, json!({"dry_run": true, "total": 152})));
        assert_eq!(engine.get("/v1/jobs").await.1["items"], json!([]));
        let job = create(&engine, json!({"kind": "cancel", "filter": {"workflow": "work"}})).await;
        assert_eq!((&job["kind"], &job["total"], &job["version"]), (&json!("cancel"), &json!(152), &Value::Null));
        assert_eq!(job["filter"], json!({"workflow": "work"}));
        let (job, items) = ended(&engine, &job, "finished").await;
        for (field, n) in [("total", 152), ("done", 152), ("skipped", 0), ("failed", 0)] {
            assert_eq!(job[field], n, "{field} of {job}");
        }
        assert!(job["started_at"].is_string() && job["finished_at"].is_string(), "{job}");
        assert_eq!(ids(&items, "run"), wanted);
        assert!(items.iter().all(|i| i["outcome"] == "done" && i["replay"].is_null() && i["error"].is_null()));
        let cancelled = pages(&engine, "/v1/runs?status=cancelled", 100).await;
        assert_eq!(cancelled.len(), wanted.len());
        // The worker was told, and what does not match goes on.
        assert_eq!(worker.find("cancel").await["tasks"][0]["task_run"], task["task_run"]);
        assert_eq!(engine.run(&other["id"]).await["status"], "queued");
    }
}

both_ways! {
    async fn a_replay_job_replays_each_run_once_and_in_order(engine) {
        engine.workflow("work").await;
        let runs = failures(&engine, 6).await;
        engine.workflow_with("work", json!({"retries": 1})).await;
        let filter = json!({"status": ["failed"], "workflow": "work", "metadata": {"n": "1"}});
        let job = create(&engine, json!({"kind": "replay", "filter": filter, "version": "same"})).await;
        assert_eq!((&job["total"], &job["version"], &job["filter"]), (&json!(3), &json!("same"), &filter));
        let (job, items) = ended(&engine, &job, "finished").await;
        assert_eq!((&job["done"], &job["total"]), (&json!(3), &json!(3)));
        let wanted: Vec<Value> = runs.iter().skip(1).step_by(2).map(|run| run["id"].clone()).collect();
        assert_eq!(ids(&items, "run"), wanted);
        // One new run for each, in the order of the first time, and the job does not find its own.
        for (item, old) in items.iter().zip(runs.iter().skip(1).step_by(2)) {
            let new = engine.run(&item["replay"]).await;
            assert_eq!((&new["replay_of"], &new["version"]), (&old["id"], &json!(1)));
            assert_eq!((&new["input"], &new["metadata"]), (&old["input"], &old["metadata"]));
            let query = format!("/v1/runs?replay_of={}", old["id"].as_str().unwrap());
            assert_eq!(ids(&pages(&engine, &query, 10).await, "id"), [item["replay"].clone()]);
        }
        let mut replays = ids(&items, "replay");
        let listed = pages(&engine, "/v1/runs?status=queued", 10).await;
        replays.reverse();
        assert_eq!(ids(&listed, "id"), replays);

        let job = create(&engine, json!({"kind": "replay", "filter": {"status": ["failed"], "replay_of": wanted[0]}})).await;
        assert_eq!(ended(&engine, &job, "finished").await.0["total"], 0);
    }
}

both_ways! {
    async fn what_cannot_be_done_is_said_for_each_run(engine) {
        engine.workflow("work").await;
        failures(&engine, 2).await;
        assert_eq!(engine.delete("/v1/workflows/work").await.0, 204);
        let job = create(&engine, json!({"kind": "replay", "filter": {"status": ["failed"]}})).await;
        let (job, items) = ended(&engine, &job, "finished").await;
        assert_eq!((&job["failed"], &job["done"]), (&json!(2), &json!(0)));
        assert!(items.iter().all(|i| i["outcome"] == "failed" && i["error"]["code"] == "workflow_not_found"), "{items:?}");
        assert_eq!(pages(&engine, &path(&job, "/runs?outcome=failed"), 1).await, items);
        assert_eq!(pages(&engine, &path(&job, "/runs?outcome=done"), 1).await, Vec::<Value>::new());
    }
}

both_ways! {
    async fn one_key_gives_one_job(engine) {
        engine.workflow("work").await;
        let key = [("idempotency-key", "k")];
        let body = json!({"kind": "cancel", "filter": {"workflow": "work"}});
        let (status, first) = engine.post_with("/v1/jobs", &key, body.clone()).await;
        assert_eq!(status, 201);
        let (status, second) = engine.post_with("/v1/jobs", &key, body).await;
        assert_eq!((status, &second["id"], &second["deduplicated"]), (200, &first["id"], &json!(true)));
        let other = r#"{"kind":"cancel","filter":{"workflow":"other"}}"#;
        let refused = engine.request("POST", "/v1/jobs", &key, other).await;
        assert_eq!(problem(&refused, 409, "idempotency_conflict")["existing"], first["id"]);
        // A run's key is another one.
        assert_eq!(engine.post_with("/v1/runs", &key, json!({"workflow": "work"})).await.0, 201);

        ended(&engine, &first, "finished").await;
        problem(&engine.request("POST", &path(&first, "/cancel"), &[], "").await, 409, "already_finished");
        let third = create(&engine, json!({"kind": "replay", "filter": {"status": ["failed"]}})).await;
        ended(&engine, &third, "finished").await;
        for limit in [1, 2, 50] {
            assert_eq!(ids(&pages(&engine, "/v1/jobs", limit).await, "id"), [third["id"].clone(), first["id"].clone()]);
        }
        for (query, found) in [("kind=cancel", 1), ("kind=replay&status=finished", 1), ("status=cancelled", 0)] {
            assert_eq!(pages(&engine, &format!("/v1/jobs?{query}"), 10).await.len(), found, "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_begins_nothing_more() {
    let engine = support::engine().await;
    engine.workflow("work").await;
    for _ in 0..3 {
        let many: Vec<Value> = (0..1_000).map(|i| json!({"workflow": "work", "input": i})).collect();
        assert_eq!(engine.post("/v1/runs/bulk", json!({"runs": many})).await.0, 200);
    }
    let job = create(&engine, json!({"kind": "cancel", "filter": {"workflow": "work"}})).await;
    until("it has begun", || async { (engine.get(&path(&job, "")).await.1["done"].as_i64() > Some(0)).then_some(()) })
        .await;
    let (status, cancelled) = engine.post(&path(&job, "/cancel"), json!({})).await;
    assert_eq!(status, 200, "{cancelled}");
    assert!(["cancelling", "cancelled"].contains(&cancelled["status"].as_str().unwrap()), "{cancelled}");
    let (job, items) = ended(&engine, &job, "cancelled").await;
    let done = usize::try_from(job["done"].as_i64().unwrap()).unwrap();
    assert!(done < 3_000, "it was cancelled too late: {job}");
    // Everything that was picked has its outcome, and nothing else was touched.
    assert_eq!(items.len(), done);
    assert!(items.iter().all(|item| item["outcome"] == "done"));
    assert_eq!(pages(&engine, "/v1/runs?status=cancelled", 1_000).await.len(), done);
    assert_eq!(job["total"], 3_000);
    // Again: the same answer.
    assert_eq!(engine.post(&path(&job, "/cancel"), json!({})).await, (200, job));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_by_its_field() {
    let engine = support::engine().await;
    for (body, code, pointer) in [
        (json!({}), "missing_field", "/kind"),
        (json!({"kind": "cancel"}), "missing_field", "/filter"),
        (json!({"kind": "cancel", "filter": {}}), "invalid_field", "/filter"),
        (json!({"kind": "delete", "filter": {"workflow": "w"}}), "invalid_field", "/kind"),
        (json!({"kind": 1, "filter": {"workflow": "w"}}), "invalid_field", "/kind"),
        (json!({"kind": "cancel", "filter": {"workflow": "w"}, "limit": 5}), "unknown_field", "/limit"),
        (json!({"kind": "cancel", "filter": {"colour": "red"}}), "unknown_field", "/filter/colour"),
        (json!({"kind": "cancel", "filter": {"status": ["failed"]}}), "invalid_field", "/filter/status/0"),
        (json!({"kind": "replay", "filter": {"status": ["failed", "queued"]}}), "invalid_field", "/filter/status/1"),
        (json!({"kind": "replay", "filter": {"workflow": "w"}}), "invalid_field", "/filter/status"),
        (json!({"kind": "cancel", "filter": {"workflow": "a b"}}), "invalid_field", "/filter/workflow"),
        (json!({"kind": "cancel", "filter": {"created_after": "today"}}), "invalid_field", "/filter/created_after"),
        (json!({"kind": "cancel", "filter": {"metadata": {"": "x"}}}), "invalid_field", "/filter/metadata"),
        (json!({"kind": "cancel", "filter": {"event": "run_1"}}), "invalid_field", "/filter/event"),
        (json!({"kind": "cancel", "filter": {"workflow": "w"}, "version": "same"}), "invalid_field", "/version"),
        (json!({"kind": "replay", "filter": {"status": ["failed"]}, "version": "old"}), "invalid_field", "/version"),
        (json!({"kind": "replay", "filter": {"status": ["failed"]}, "dry_run": "yes"}), "invalid_field", "/dry_run"),
    ] {
        let refused = problem(&engine.request("POST", "/v1/jobs", &[], body.to_string()).await, 400, code);
        assert_eq!(refused["pointer"], pointer, "{body}: {refused}");
    }
    for query in ["kind=delete", "status=open", "limit=0", "colour=red", "cursor=00"] {
        assert_eq!(engine.get(&format!("/v1/jobs?{query}")).await.0, 400, "{query}");
    }
    problem(&engine.request("GET", &format!("/v1/jobs/job_{NOBODY}/runs"), &[], "").await, 404, "not_found");
    problem(&engine.request("GET", "/v1/jobs/run_1", &[], "").await, 400, "invalid_id");
    assert_eq!(engine.get("/v1/jobs").await.1["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_its_own_jobs_and_not_too_many() {
    let engine = support::engine().await;
    engine.workflow("work").await;
    let mine = engine.trigger("work", json!(1)).await;
    let stranger = engine.second_tenant().await;
    // The stranger's job finds nothing of this tenant.
    let job = create(&stranger, json!({"kind": "cancel", "filter": {"workflow": "work"}})).await;
    assert_eq!(ended(&stranger, &job, "finished").await.0["total"], 0);
    assert_eq!(engine.run(&mine["id"]).await["status"], "queued");
    // Nor may it be seen or used by this one.
    for action in ["", "/runs"] {
        problem(&engine.request("GET", &path(&job, action), &[], "").await, 404, "not_found");
    }
    problem(&engine.request("POST", &path(&job, "/cancel"), &[], "").await, 404, "not_found");

    let sql = engine.sql().await;
    // Jobs of a shard that nobody works on, as with another engine that is busy.
    let tenant = engine.tenant.uuid();
    let insert = format!(
        "insert into job (id, tenant, shard, kind, state, request, created_at, total)
        select gen_random_uuid(), '{tenant}', 64, 0, 0, '{{\"filter\":{{}}}}', now(), 0 from generate_series(1, 20)"
    );
    sql.execute(&insert, &[]).await.unwrap();
    let body = r#"{"kind":"cancel","filter":{"workflow":"work"}}"#;
    let key = [("idempotency-key", "later")];
    let refused = engine.request("POST", "/v1/jobs", &key, body).await;
    assert!(problem(&refused, 429, "too_many_requests")["retry_after"].as_i64() > Some(0));
    // What was refused leaves no key behind.
    sql.execute("update job set state = 10, finished_at = now() where shard = 64", &[]).await.unwrap();
    assert_eq!(engine.request("POST", "/v1/jobs", &key, body).await.status, 201);
}

/// Old jobs go with their runs' outcomes; others stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_jobs_are_deleted() {
    let engine = support::engine().await;
    engine.workflow("work").await;
    engine.trigger("work", json!(1)).await;
    let old = create(&engine, json!({"kind": "cancel", "filter": {"workflow": "work"}})).await;
    assert_eq!(ended(&engine, &old, "finished").await.1.len(), 1);
    let sql = engine.sql().await;
    sql.batch_execute("update job set finished_at = finished_at - interval '8 days'").await.unwrap();
    let kept = create(&engine, json!({"kind": "cancel", "filter": {"workflow": "work"}})).await;
    ended(&engine, &kept, "finished").await;
    let before = helve_domain::clock::Clock::system().now().minus(engine.config.retention.jobs);
    assert!(!helve::db::jobs::expire(&engine.pool, before).await.unwrap());
    assert_eq!(ids(&pages(&engine, "/v1/jobs", 10).await, "id"), [kept["id"].clone()]);
    let items: i64 = sql.query_one("select count(*) from job_item", &[]).await.unwrap().get(0);
    assert_eq!(items, 0);
}
