//! Plans of the lanes' statements: `open_run` is nearly empty yet churns, and whatever the statistics say, rows are
//! found by their primary key. See docs/decisions/0002.

use serde_json::{Value, json};

use crate::support::{Builder, create_migrated, options, worker};

/// The server writes the plan of every statement to its log.
fn explaining() -> helve_postgres::cluster::Options {
    let mut options = options(false);
    for (name, value) in [
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_format", "json"),
        ("log_destination", "stderr"),
    ] {
        options.settings.push((name.to_owned(), value.to_owned()));
    }
    options
}

/// Every plan node below `plan`.
fn nodes<'a>(plan: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(plan);
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, found);
    }
}

/// The JSON documents of auto_explain in a log.
fn plans(log: &str) -> Vec<Value> {
    let mut plans = Vec::new();
    for part in log.split("plan:\n").skip(1) {
        let mut documents = serde_json::Deserializer::from_str(part).into_iter::<Value>();
        if let Some(Ok(plan)) = documents.next() {
            plans.push(plan);
        }
    }
    plans
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_runs_are_found_by_their_key_whatever_the_statistics_say() {
    let cluster = helve_postgres::cluster::Cluster::start(explaining()).await.unwrap();
    let database = create_migrated(&cluster, "plans").await;
    let engine = Builder::new().on(&database).await;
    engine.workflow("work").await;
    let sql = engine.sql().await;
    let mut worker = worker(&engine, &["work"], 1_000).await;
    // What statistics say: nothing yet; that the table was empty when autovacuum came, cut to no page; and the same with
    // pages that could not be cut off: the planner believes in no rows at all.
    let empty = "vacuum analyze open_run";
    let hollow = "update pg_class set reltuples = 0, relpages = 3000 where oid = 'open_run'::regclass";
    for before in [None, Some(empty), Some(hollow)] {
        if let Some(statement) = before {
            sql.batch_execute(statement).await.unwrap();
        }
        for n in [1_usize, 32, 250, 1_000] {
            let runs: Vec<Value> = (0..n).map(|i| json!({"workflow": "work", "input": i})).collect();
            let (status, _) = engine.post("/v1/runs/bulk", json!({"runs": runs})).await;
            assert_eq!(status, 200);
            let mut tasks = Vec::new();
            while tasks.len() < n {
                tasks.extend(worker.find_tasks().await);
            }
            worker.succeed(&tasks).await;
            for task in &tasks {
                engine.run_is(&task["run"], "succeeded").await;
            }
        }
    }
    let log = std::fs::read_to_string(cluster.log_file()).unwrap();
    let plans = plans(&log);
    let of_lane = |p: &&Value| {
        p["Query Text"].as_str().is_some_and(|q| q.contains("/* helve:lane:finish */") && q.contains("open_run"))
    };
    let of_lane: Vec<&Value> = plans.iter().filter(of_lane).collect();
    assert!(of_lane.len() > 8, "the log has {} plans, {} of the finish lane", plans.len(), of_lane.len());
    for plan in of_lane {
        let mut found = Vec::new();
        nodes(&plan["Plan"], &mut found);
        let scans = found.iter().filter(|n| n["Relation Name"] == "open_run" && n["Node Type"] != "ModifyTable");
        for scan in scans {
            let kind = scan["Node Type"].as_str().unwrap();
            let index = scan["Index Name"].as_str().unwrap_or_default();
            let by_key =
                matches!(kind, "Index Scan" | "Bitmap Heap Scan") && (index == "open_run_pkey" || kind != "Index Scan");
            assert!(by_key, "{kind} {index} in {}", plan["Plan"]);
        }
        // Comparing each row of a batch with each is quadratic.
        assert!(found.iter().all(|n| n["Node Type"] != "Nested Loop"), "a nested loop in {}", plan["Plan"]);
        let bitmaps = found.iter().filter(|n| n["Node Type"] == "Bitmap Index Scan");
        for scan in bitmaps {
            assert_eq!(scan["Index Name"], "open_run_pkey");
        }
    }
    engine.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_of_a_deep_queue_is_read_in_the_order_of_its_index() {
    let cluster = helve_postgres::cluster::Cluster::start(explaining()).await.unwrap();
    let database = create_migrated(&cluster, "deep").await;
    let engine = Builder::new().on(&database).await;
    engine.workflow("work").await;
    engine.trigger("work", json!(1)).await;
    let sql = engine.sql().await;
    let deep = "insert into open_run select (jsonb_populate_record(o, \
        jsonb_build_object('id', gen_random_uuid(), 'rank', o.rank + n))).* \
        from open_run o, generate_series(1, 50000) n; analyze open_run";
    sql.batch_execute(deep).await.unwrap();
    let mut worker = worker(&engine, &["work"], 1).await;
    worker.find_tasks().await;
    let log = std::fs::read_to_string(cluster.log_file()).unwrap();
    let reads: Vec<Value> = plans(&log)
        .into_iter()
        .filter(|plan| plan["Query Text"].as_str().is_some_and(|q| q.contains("Queued runs of one action")))
        .collect();
    assert!(!reads.is_empty(), "no window was read");
    for plan in reads {
        let mut found = Vec::new();
        nodes(&plan["Plan"], &mut found);
        let kinds: Vec<_> = found.iter().map(|node| node["Node Type"].as_str().unwrap()).collect();
        // By rank from the index; of equal ranks by id, a few at a time.
        assert!(kinds.contains(&"Index Scan") && !kinds.contains(&"Sort"), "{kinds:?} in {}", plan["Plan"]);
    }
    engine.stop().await;
    cluster.stop().await;
}
