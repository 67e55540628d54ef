//! `/metrics` and the load of actions: who may read them, what they count, and that labels stay few.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use helve::config::MetricsAccess;
use serde_json::{Value, json};

use super::{pages, problem};
use crate::both_ways;
use crate::support::{self, Builder, Engine, Http, Worker, until};

/// The page's samples by name with labels.
async fn samples(client: &Http) -> BTreeMap<String, f64> {
    let page = client.request("GET", "/metrics", &[], "").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    lines.map(sample).collect()
}

/// Waits until all of these samples have these values. The page is made once a second.
async fn show(engine: &Engine, wanted: &[(&str, f64)]) -> BTreeMap<String, f64> {
    until(&format!("{wanted:?}"), || async {
        let found = samples(engine).await;
        let fits = |(name, value): &(&str, f64)| found.get(*name).copied().unwrap_or(0.0) == *value;
        wanted.iter().all(fits).then_some(found)
    })
    .await
}

both_ways! {
    async fn the_figures_follow_what_happens(engine) {
        let optimistic = engine.config.scheduling.optimistic;
        engine.workflow("w").await;
        for n in 0..3 {
            engine.trigger("w", json!(n)).await;
        }
        // Without a worker the queue is only in the database.
        let now = show(&engine, &[
            ("helve_queue_depth{action=\"w\"}", 3.0),
            ("helve_action_workers{action=\"w\"}", 0.0),
            ("helve_runs_created_total", 3.0),
            ("helve_runs_optimistic_total", 0.0),
            ("helve_queues_counted", 1.0),
            ("helve_shards_owned", 64.0),
            ("helve_ready", 1.0),
            ("helve_http_requests_total{method=\"POST\",route=\"/v1/runs\",status=\"2xx\"}", 3.0),
            ("helve_http_requests_total{method=\"PUT\",route=\"/v1/workflows/{name}\",status=\"2xx\"}", 1.0),
        ]).await;
        assert!(now["helve_queue_oldest_seconds{action=\"w\"}"] > 0.0);
        assert!(now["process_resident_memory_bytes"] > 1e6 && now["process_cpu_seconds_total"] > 0.0);
        let mut worker = support::worker(&engine, &["w"], 1).await;
        let task = worker.task().await;
        show(&engine, &[
            ("helve_queue_depth{action=\"w\"}", 2.0),
            ("helve_action_running{action=\"w\"}", 1.0),
            ("helve_action_workers{action=\"w\"}", 1.0),
            ("helve_workers{state=\"connected\"}", 1.0),
            ("helve_sockets", 1.0),
            ("helve_slots", 1.0),
            ("helve_slots_used", 1.0),
        ]).await;
        worker.finish(&task, json!(null)).await;
        for _ in 0..2 {
            let task = worker.task().await;
            worker.finish(&task, json!(null)).await;
        }
        show(&engine, &[("helve_runs_ended_total{status=\"succeeded\"}", 3.0), ("helve_slots_used", 0.0)]).await;
        // Now a slot is free.
        engine.trigger("w", json!("last")).await;
        let task = worker.task().await;
        worker.finish(&task, json!(null)).await;
        let (at_once, queued) = if optimistic { (1.0, 3.0) } else { (0.0, 4.0) };
        let now = show(&engine, &[
            ("helve_runs_created_total", 4.0),
            ("helve_runs_optimistic_total", at_once),
            ("helve_start_seconds_count{path=\"optimistic\"}", at_once),
            ("helve_start_seconds_count{path=\"queued\"}", queued),
            ("helve_runs_ended_total{status=\"succeeded\"}", 4.0),
            ("helve_run_seconds_count", 4.0),
            ("helve_queue_depth{action=\"w\"}", 0.0),
            ("helve_lane_waiting{lane=\"create\"}", 0.0),
        ]).await;
        // Four runs in at most four batches, each run a row.
        assert_eq!(now["helve_lane_rows_sum{lane=\"create\"}"], 4.0);
        assert!(now["helve_lane_busy_seconds_sum{lane=\"create\"}"] > 0.0);
        assert!(now["helve_lane_rows_count{lane=\"finish\"}"] >= 4.0);
        // The first waited for the worker, and the wait is in the sum.
        assert!(now["helve_start_seconds_sum{path=\"queued\"}"] > 0.0);
        assert_eq!(now["helve_lane_unknown_total{lane=\"create\"}"], 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_that_never_started_has_no_run_time() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    let run = engine.trigger("w", json!(1)).await;
    let (status, body) = engine.post(&format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap()), json!({})).await;
    assert!(status < 300, "{body}");
    let now = show(&engine, &[("helve_runs_ended_total{status=\"cancelled\"}", 1.0)]).await;
    assert_eq!((now["helve_run_seconds_count"], now["helve_runs_ended_total{status=\"failed\"}"]), (0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_the_page_is_a_setting() {
    let engine = support::engine().await;
    let page = async |token: Option<&str>| engine.client().with_token(token).request("GET", "/metrics", &[], "").await;
    problem(&page(None).await, 401, "unauthenticated");
    problem(&page(Some("helve_garbage")).await, 401, "unauthenticated");
    for scopes in ["read", "write", "worker"] {
        problem(&page(Some(&engine.token_with(scopes).await)).await, 403, "forbidden");
    }
    assert_eq!(page(Some(&engine.token)).await.status, 200);
    for (access, status) in [(MetricsAccess::Open, 200), (MetricsAccess::Off, 404)] {
        let engine = Builder::new().http(|h| h.metrics = access).start().await;
        let answer = engine.client().with_token(None).request("GET", "/metrics", &[], "").await;
        assert_eq!(answer.status, status, "{access:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_stay_few_and_name_no_tenant() {
    let engine = Builder::new().limits(|l| l.actions = 300).start().await;
    let actions: Vec<String> = (0..130).map(|n| format!("action-{n}")).collect();
    let names: Vec<&str> = actions.iter().map(String::as_str).collect();
    let _worker = support::worker(&engine, &names, 1).await;
    let second = engine.second_tenant().await;
    let _other = Worker::connect(&engine.url, &second.token, support::hello("o", &["action-0"], 1)).await;
    for _ in 0..3 {
        engine.get("/nowhere/at/all").await;
    }
    let wanted = [
        ("helve_action_workers{action=\"other\"}", 30.0),
        ("helve_workers{state=\"connected\"}", 2.0),
        ("helve_http_requests_total{method=\"other\",route=\"other\",status=\"4xx\"}", 3.0),
    ];
    let now = show(&engine, &wanted).await;
    let labels = now.keys().filter(|name| name.starts_with("helve_action_workers{")).count();
    assert_eq!(labels, 101);
    let text: String = now.keys().map(String::as_str).collect();
    for id in [engine.tenant.to_string(), second.id.to_string(), "second-".to_owned()] {
        assert!(!text.contains(&id), "{id}");
    }
    let both = now.iter().filter(|(name, _)| name.starts_with("helve_action_workers{")).map(|(_, n)| n).sum::<f64>();
    assert_eq!(both, 131.0);
}

both_ways! {
    async fn an_autoscaler_sees_what_there_is_to_do(engine) {
        engine.workflow("a").await;
        engine.workflow("b").await;
        for workflow in ["a", "a", "a", "b"] {
            engine.trigger(workflow, json!(null)).await;
        }
        let ask = async |query: &str| {
            let (status, list) = engine.get(&format!("/v1/metrics/queues{query}")).await;
            assert_eq!(status, 200, "{list}");
            list
        };
        let mut worker = support::worker(&engine, &["a", "c"], 2).await;
        let mut tasks = worker.tasks().await;
        while tasks.len() < 2 {
            tasks.extend(worker.tasks().await);
        }
        let list = ask("").await;
        let shown = |at: usize| {
            let item = &list["items"][at];
            let fields = ["action", "queued", "running", "unfinished", "workers"].map(|field| item[field].clone());
            (fields, item["slots"].clone(), item["oldest_seconds"].is_number())
        };
        let slots = json!({"total": 2, "used": 2});
        let of = |action: &str, numbers: [usize; 4]| {
            [json!(action), json!(numbers[0]), json!(numbers[1]), json!(numbers[2]), json!(numbers[3])]
        };
        assert_eq!(shown(0), (of("a", [1, 2, 3, 1]), slots.clone(), true));
        assert_eq!(shown(1), (of("b", [1, 0, 1, 0]), json!({"total": 0, "used": 0}), true));
        assert_eq!(shown(2), (of("c", [0, 0, 0, 1]), slots, false));
        assert_eq!((list["items"].as_array().unwrap().len(), &list["next_cursor"]), (3, &Value::Null));
        let only = ask("?action=b").await;
        assert_eq!((only["items"].as_array().unwrap().len(), &only["items"][0]["queued"]), (1, &json!(1)));
        let nothing = ask("?action=unheard-of").await;
        assert_eq!(nothing["items"][0]["unfinished"], 0);
        assert_eq!(nothing["items"][0]["oldest_seconds"], Value::Null);
        for task in &tasks {
            worker.finish(task, json!(null)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_come_in_pages_and_only_of_the_own_tenant() {
    let engine = support::engine().await;
    for name in ["a", "b", "c"] {
        engine.workflow(name).await;
        engine.trigger(name, json!(null)).await;
    }
    let second = engine.second_tenant().await;
    let _worker = Worker::connect(&engine.url, &second.token, support::hello("o", &["a", "theirs"], 7)).await;
    for limit in [1, 2, 50] {
        let items = pages(&engine, "/v1/metrics/queues", limit).await;
        let actions: Vec<_> = items.iter().map(|item| item["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["a", "b", "c"], "limit {limit}");
        assert!(items.iter().all(|item| item["workers"] == 0 && item["slots"]["total"] == 0), "{items:?}");
    }
    let theirs = pages(&second, "/v1/metrics/queues", 50).await;
    assert_eq!(theirs.len(), 2);
    assert!(theirs.iter().all(|item| item["queued"] == 0 && item["slots"]["total"] == 7), "{theirs:?}");
    let answer = engine.request("GET", "/v1/metrics/queues?action=theirs", &[], "").await.json();
    assert_eq!((&answer["items"][0]["workers"], &answer["items"][0]["queued"]), (&json!(0), &json!(0)));
    let cursor = engine.get("/v1/metrics/queues?limit=1").await.1["next_cursor"].as_str().unwrap().to_owned();
    let stolen = second.request("GET", &format!("/v1/metrics/queues?cursor={cursor}"), &[], "").await;
    problem(&stolen, 400, "invalid_cursor");
    problem(&engine.request("GET", "/v1/metrics/queues?workflow=a", &[], "").await, 400, "unknown_field");
    problem(&engine.request("GET", "/v1/metrics/queues?action=", &[], "").await, 400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_beyond_the_window_is_counted() {
    let engine = Builder::new().scheduling(|s| s.window = 4).start().await;
    engine.workflow("w").await;
    let runs: Vec<Value> = (0..40).map(|n| json!({"workflow": "w", "input": n})).collect();
    let (status, body) = engine.post("/v1/runs/bulk", json!({"runs": runs})).await;
    assert!(status < 300, "{body}");
    let mut worker = support::worker(&engine, &["w"], 1).await;
    let task = worker.task().await;
    let (_, list) = engine.get("/v1/metrics/queues?action=w").await;
    assert_eq!((&list["items"][0]["queued"], &list["items"][0]["running"]), (&json!(39), &json!(1)), "{list}");
    show(&engine, &[("helve_queue_depth{action=\"w\"}", 39.0)]).await;
    worker.finish(&task, json!(null)).await;
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Names of families that stand in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_');
    let names = words.filter(|word| word.starts_with("helve_") || word.starts_with("process_"));
    let family = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word).to_owned()
    };
    names.map(family).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_the_dashboard_and_the_alerts_name_what_there_is() {
    let engine = support::engine().await;
    let page = String::from_utf8(engine.request("GET", "/metrics", &[], "").await.body.to_vec()).unwrap();
    let families: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert!(families.len() > 30, "{families:?}");
    let documented: BTreeMap<String, String> = read("docs/operations.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`').split('{').next()?.to_owned();
            Some((name, cells.next()?.to_owned()))
        })
        .filter(|(name, _)| name.starts_with("helve_") || name.starts_with("process_"))
        .collect();
    let shown: BTreeMap<String, String> =
        families.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
    assert_eq!(documented, shown, "docs/operations.md has a row for each metric, with its kind");
    for file in ["deploy/grafana.json", "deploy/alerts.yml"] {
        let used = names(&read(file));
        assert!(used.len() >= 10, "{file}: {used:?}");
        for name in used {
            assert!(families.contains_key(name.as_str()), "{file} uses {name}, which is not there");
        }
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().iter().all(|panel| panel["targets"][0]["expr"].is_string()));
    assert!(read("deploy/keda.yaml").contains("/v1/metrics/queues?action="));
}
