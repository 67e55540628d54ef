//! Runs, workflows, events and workers: what is shown, what is refused, and how a command ends.

use serde_json::json;

use super::{Person, rows};
use crate::support::{engine, worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_a_table_or_the_json_of_the_interface() {
    let engine = engine().await;
    let person = Person::of(&engine);
    person.prints(&["workflows", "put", "resize", r#"{"tasks": [{"name": "resize"}]}"#]).await;
    // A number that no type holds, byte for byte in and out.
    let input = r#"{"n": 1e400}"#;
    let made = person.run_with(&["runs", "trigger", "resize", "--input", "-", "--metadata", "a=b=c"], input).await;
    assert!(made.code == 0 && made.out.contains(input), "{made:?}");
    person.json(&["runs", "trigger", "resize", "--priority", "4"]).await;

    let table = person.prints(&["runs", "list", "--workflow", "resize"]).await;
    let lines = rows(&table);
    assert_eq!(lines[0], ["id", "workflow", "status", "attempt", "created", "took", "error"]);
    assert_eq!((lines.len(), &lines[1][1..4]), (3, ["resize", "queued", "0"].as_slice()), "{table}");
    assert!(table.lines().nth(1).unwrap().ends_with(" ago"), "{table}");
    assert!(person.prints(&["runs", "list", "--utc"]).await.lines().nth(1).unwrap().ends_with('Z'));

    let out = person.prints(&["runs", "list", "--metadata", "a=b=c", "--json"]).await;
    let exact = engine.client().request("GET", "/v1/runs?metadata=a%3Db%3Dc", &[], "").await;
    assert_eq!(out.trim_end().as_bytes(), exact.body);
    assert!(out.contains(input) && out.contains(r#""a":"b=c""#), "{out}");

    // Page by page, as one list.
    let all = person.prints(&["runs", "list", "--all", "--limit", "1", "--json"]).await;
    assert!(all.contains(input) && all.matches("\"id\":").count() == 2, "{all}");
    assert_eq!(rows(&person.prints(&["runs", "list", "--all", "--limit", "1"]).await).len(), 3);
    let first = person.run(&["runs", "list", "--limit", "1"]).await;
    assert_eq!(rows(&first.out).len(), 2);
    let cursor = first.err.split("--cursor ").nth(1).unwrap().split(',').next().unwrap();
    assert_eq!(rows(&person.prints(&["runs", "list", "--cursor", cursor]).await)[1][0], lines[2][0]);
    // A time may be how long ago.
    assert_eq!(rows(&person.prints(&["runs", "list", "--created-before", "1h"]).await).len(), 1);
    assert_eq!(rows(&person.prints(&["runs", "list", "--created-after", "1h"]).await).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_has_its_code_and_says_what_is_wrong() {
    let engine = engine().await;
    engine.workflow("resize").await;
    let run = engine.trigger("resize", json!({})).await;
    let id = run["id"].as_str().unwrap();
    let person = Person::of(&engine);
    for (args, code, says) in [
        (vec!["runs", "get", "run_00000000000000000000000000000001"], 3, "there is no run"),
        (vec!["runs", "get", "run_1"], 2, "run_"),
        (vec!["runs", "get", "../healthz"], 2, "run_"),
        (vec!["runs", "trigger", "missing"], 3, "code workflow_not_found"),
        (vec!["runs", "trigger", "resize", "--priority", "9"], 2, "field /priority"),
        (vec!["runs", "trigger", "resize", "--input", "{x}"], 2, "--input is not JSON"),
        (vec!["runs", "trigger", "resize", "--input", "@none.json"], 2, "none.json"),
        (vec!["runs", "trigger", "resize", "--metadata", "x"], 2, "KEY=VALUE"),
        (vec!["runs", "list", "--status", "lost"], 2, "expected one or more of scheduled"),
        (vec!["runs", "list", "--limit", "1001"], 2, "1000"),
        (vec!["runs", "list", "--created-after", "yesterday"], 2, "yesterday"),
        (vec!["runs", "replay", id], 4, "code not_finished"),
        (vec!["runs", "unpark", id], 4, "code not_parked"),
        (vec!["runs", "trigger", "resize", "--labels", "[{\"key\": 1}]"], 2, "field /labels/0"),
        (vec!["runs", "cancel"], 2, "--workflow"),
        (vec!["runs", "cancel", id, "--workflow", "resize"], 2, "not both"),
        (vec!["workflows", "delete", "resize", "--yes"], 4, "code in_use"),
        (vec!["workflows", "get", "missing"], 3, "missing"),
        (vec!["workflows", "put", "resize", r#"{"tasks": []}"#], 2, "field /tasks"),
        (vec!["events", "push", "not a key"], 2, "field /key"),
        (vec!["jobs", "get", "job_00000000000000000000000000000001"], 3, "job_"),
        (vec!["runs", "frobnicate"], 2, "frobnicate"),
    ] {
        person.is_refused(&args, code, says).await;
    }
    let problem = person.run(&["runs", "get", "run_1", "--json"]).await;
    let problem: serde_json::Value = serde_json::from_str(&problem.err).unwrap();
    assert_eq!((problem["code"].as_str(), problem["status"].as_i64()), (Some("invalid_id"), Some(400)));

    let nobody = Person::new().with("HELVE_URL", &engine.url).with("HELVE_TOKEN", "helve_wrong");
    nobody.is_refused(&["runs", "list"], 4, "the token is that of the environment").await;
    let reader = engine.token_with("read").await;
    let reader = Person::new().with("HELVE_URL", &engine.url).with("HELVE_TOKEN", &reader);
    reader.prints(&["runs", "list"]).await;
    reader.is_refused(&["runs", "cancel", id], 4, "write").await;
    let url = engine.url.clone();
    let gone = Person::of(&engine);
    engine.stop().await;
    gone.is_refused(&["runs", "list"], 5, &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_tenant_is_not_there() {
    let engine = engine().await;
    engine.workflow("resize").await;
    let run = engine.trigger("resize", json!({})).await;
    let (_, event) = engine.post("/v1/events", json!({"key": "x"})).await;
    let (_, job) = engine.post("/v1/jobs", json!({"kind": "cancel", "filter": {"workflow": "none"}})).await;
    let other = engine.second_tenant().await;
    let stranger = Person::new().with("HELVE_URL", &engine.url).with("HELVE_TOKEN", &other.token);
    let id = |object: &serde_json::Value| object["id"].as_str().unwrap().to_owned();
    let (run, event, job) = (id(&run), id(&event), id(&job));
    for args in [
        ["runs", "get", &run],
        ["runs", "watch", &run],
        ["runs", "cancel", &run],
        ["runs", "replay", &run],
        ["runs", "unpark", &run],
        ["events", "get", &event],
        ["events", "replay", &event],
        ["jobs", "get", &job],
        ["jobs", "watch", &job],
        ["jobs", "runs", &job],
        ["jobs", "cancel", &job],
        ["workflows", "get", "resize"],
        ["workflows", "versions", "resize"],
        ["workflows", "delete", "resize"],
    ] {
        stranger.is_refused(&args, 3, args[2]).await;
    }
    assert_eq!(rows(&stranger.prints(&["runs", "list"]).await).len(), 1);
    assert_eq!(Person::of(&engine).json(&["runs", "get", &run]).await["status"], "queued");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_waited_for_and_decides_how_the_command_ends() {
    let engine = engine().await;
    engine.workflow("resize").await;
    let person = Person::of(&engine);
    let open = person.run(&["runs", "trigger", "resize", "--wait", "100ms"]).await;
    assert!(open.code == 6 && open.out.contains("queued"), "{open:?}");
    let id = open.out.lines().next().unwrap().split_whitespace().nth(1).unwrap();
    person.prints(&["runs", "cancel", id]).await;
    let watched = person.run(&["runs", "watch", id]).await;
    assert!(watched.code == 1 && watched.out.contains("cancelled on request"), "{watched:?}");

    let mut worker = worker(&engine, &["resize"], 2).await;
    let table = person.prints(&["workers", "list"]).await;
    assert!(table.contains("connected") && table.contains("default 0/2") && table.contains("resize"), "{table}");
    let trigger = ["runs", "trigger", "resize", "--wait", "30s"];
    let (done, ()) = tokio::join!(person.run(&trigger), async {
        let task = worker.task().await;
        worker.finish(&task, json!({"ok": true})).await;
    });
    assert!(done.code == 0 && done.out.contains(r#"{"ok":true}"#), "{done:?}");

    // What a worker says cannot steer the terminal.
    let (failed, ()) = tokio::join!(person.run(&trigger), async {
        let task = worker.task().await;
        worker.fail(&task, json!({"message": "boom \u{1b}[2J"})).await;
    });
    assert!(failed.code == 1 && failed.out.contains("boom"), "{failed:?}");
    let table = person.prints(&["runs", "list", "--status", "failed"]).await;
    assert!(table.contains("boom") && !table.contains('\u{1b}'), "{table}");

    let parking = json!({"retries": {"count": 0, "on_exhausted": "park"}});
    engine.workflow_with("resize", parking).await;
    let run = engine.trigger("resize", json!({})).await;
    let task = worker.task().await;
    worker.fail(&task, json!({"message": "mend me"})).await;
    let listed = person.prints(&["runs", "list", "--status", "parked"]).await;
    assert!(listed.contains("mend me"), "{listed}");
    person.prints(&["runs", "unpark", run["id"].as_str().unwrap()]).await;
    let task = worker.task().await;
    let watch = ["runs", "watch", run["id"].as_str().unwrap()];
    let late = person.run(&[watch.as_slice(), &["--timeout", "200ms"]].concat()).await;
    assert!(late.code == 6 && late.out.contains("running, attempt 2, worker wrk_"), "{late:?}");
    let (watched, ()) = tokio::join!(person.run(&watch), async {
        worker.finish(&task, json!("done")).await;
    });
    let last: Vec<_> = watched.out.lines().rev().take(2).collect();
    assert!(watched.code == 0 && last[0] == "done" && last[1].contains("succeeded"), "{watched:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_no_further_ends_a_command_quietly() {
    let engine = engine().await;
    let person = Person::of(&engine);
    engine.workflow("w").await;
    for n in 0..3 {
        engine.trigger("w", json!(n)).await;
    }
    for args in [["runs", "list", "--all", "--limit=1"], ["runs", "list", "--json", "--all"]] {
        assert_eq!(person.unread(&args, true).await, (0, String::new()), "{args:?}");
    }
    // What is said on standard error needs no reader either.
    assert_eq!(person.unread(&["runs", "get", "nothing"], false).await, (2, String::new()));
    let (code, listed) = person.unread(&["runs", "list", "--limit=1"], false).await;
    assert_eq!((code, rows(&listed).len()), (0, 2), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_filter_that_matches_nothing_is_wrong_usage() {
    let person = Person::new();
    person.is_refused(&["--log", "loud", "openapi"], 2, "`loud` is no level").await;
    person.is_refused(&["--log", "info,helv=debug", "openapi"], 2, "logs as `helv`").await;
    assert!(person.prints(&["--log", "warning", "openapi"]).await.starts_with('{'));
}
