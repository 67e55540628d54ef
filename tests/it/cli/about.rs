//! What a person asks first: what is this, which engine is it, and what else can be asked of it.

use serde_json::json;

use super::{Person, rows};
use crate::support::engine;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_tells_its_version_and_writes_its_own_pages() {
    let person = Person::new();
    let version = person.json(&["version"]).await;
    assert_eq!((&version["version"], &version["protocol"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(1)));
    let schema = version["schema"].as_str().unwrap();
    assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(schema).is_dir(), "{schema}");
    assert!(person.prints(&["version"]).await.contains(schema));
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef helve"), ("fish", "complete -c helve")] {
        let script = person.prints(&["completion", shell]).await;
        assert!(script.contains(part) && script.contains("profile"), "{shell}");
    }
    assert!(person.prints(&["man"]).await.contains(".TH helve"));
    let dir = person.home.join("man");
    person.prints(&["man", "--dir", dir.to_str().unwrap()]).await;
    let page = std::fs::read_to_string(dir.join("helve-runs-list.1")).unwrap();
    assert!(page.contains("created\\-after"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_help_of_serve_shows_what_each_setting_takes_and_is() {
    let help = Person::new().prints(&["serve", "--help"]).await;
    for part in ["Limits:", "Scheduling:", "--limit-wait <DURATION>", "[default: 1m]", "--limit-slots <N>", "<on|off>"]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_tells_which_engine_it_is_and_whether_the_token_counts() {
    let engine = engine().await;
    let status = Person::of(&engine).json(&["status"]).await;
    assert_eq!(status["url"], json!(engine.url));
    assert_eq!([&status["ready"], &status["token"]], [&json!(true), &json!(true)]);
    let text = Person::of(&engine).prints(&["status"]).await;
    assert!(text.contains("the environment") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    // A token that may not read is a token.
    let worker = engine.token_with("worker").await;
    let worker = Person::new().with("HELVE_URL", &engine.url).with("HELVE_TOKEN", &worker);
    assert!(worker.prints(&["status"]).await.contains("without the scope `read`"));
    let nobody = Person::new().with("HELVE_URL", &engine.url).with("HELVE_TOKEN", "helve_wrong");
    let wrong = nobody.run(&["status"]).await;
    assert!(wrong.code == 4 && wrong.out.contains("token valid  no: "), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anything_can_be_asked_of_rest() {
    let engine = engine().await;
    let person = Person::of(&engine);
    let definition = r#"{"tasks": [{"name": "w"}]}"#;
    person.prints(&["api", "put", "/v1/workflows/w", definition]).await;
    let key = ["api", "POST", "/v1/runs", r#"{"workflow": "w"}"#, "--key", "k"];
    let (first, second) = (person.prints(&key).await, person.prints(&key).await);
    let run: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert!(second.contains("deduplicated") && second.contains(run["id"].as_str().unwrap()), "{second}");
    assert!(person.prints(&["api", "GET", "/v1/runs?limit=1"]).await.starts_with(r#"{"items":[{"id":"run_"#));
    person.is_refused(&["api", "GET", "/v1/nothing"], 3, "there is no route").await;
    person.is_refused(&["api", "GET", "v1/runs"], 2, "begins with a slash").await;
    person.is_refused(&["api", "GET", "/v1/runs", "{x}"], 2, "the body is not JSON").await;
}

/// What is deleted or changed in bulk is named with the engine before anybody says yes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_names_the_engine_and_what_is_meant() {
    let engine = engine().await;
    let person = Person::of(&engine);
    engine.workflow("w").await;
    let delete = ["workflows", "delete", "w"];
    let asked = format!("Delete the workflow `w` of {} (the environment)?", engine.url);
    person.is_refused(&delete, 2, &asked).await;
    assert_eq!(person.json(&["workflows", "get", "w"]).await["name"], "w");
    assert_eq!(person.prints(&["workflows", "delete", "w", "--yes"]).await, "deleted w\n");
    person.is_refused(&["workflows", "get", "w"], 3, "w").await;

    engine.workflow("w").await;
    engine.trigger("w", json!({})).await;
    let asked = format!("Cancel 1 run of {} (the environment), those with workflow w, status queued?", engine.url);
    person.is_refused(&["runs", "cancel", "--workflow", "w", "--status", "queued"], 2, &asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_an_id_names_a_run_where_there_is_one() {
    let engine = engine().await;
    let person = Person::of(&engine);
    engine.workflow("w").await;
    let (one, other) = (engine.trigger("w", json!({})).await, engine.trigger("w", json!({})).await);
    let id = |run: &serde_json::Value| run["id"].as_str().unwrap().to_owned();
    let (one, other) = (id(&one), id(&other));
    // The last digits are of chance, the first ones of the time.
    let last = &one[one.len() - 10..];
    assert_eq!(person.json(&["runs", "get", last]).await["id"], json!(one));
    assert!(person.prints(&["runs", "why", &format!("run_{last}")]).await.contains("`w`"));
    person.is_refused(&["runs", "get", &one[4..10]], 2, &other).await;
    person.is_refused(&["runs", "get", "ffffffffffffffff"], 3, "newest runs").await;
    assert_eq!(rows(&person.prints(&["runs", "list", "--since", "1h"]).await).len(), 3);
    // A watch ends with its reader.
    assert_eq!(person.unread(&["runs", "list", "--watch"], true).await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_engine_does_not_know_is_not_kept() {
    let engine = engine().await;
    let person = Person::new();
    let set = ["profile", "set", "here", "--url", &engine.url];
    let wrong = person.run_with(&set, "helve_wrong").await;
    assert!(wrong.code == 4 && wrong.err.contains("does not know this token"), "{wrong:?}");
    assert!(!person.home.join(".config").exists());
    // One for workers alone may not read, and is a token all the same.
    let worker = engine.token_with("worker").await;
    assert_eq!(person.run_with(&set, &worker).await.code, 0);
    let nowhere = person.run_with(&["profile", "set", "later", "--url", "http://127.0.0.1:1"], "helve_a").await;
    assert!(nowhere.code == 0 && nowhere.err.contains("was not tried"), "{nowhere:?}");
}
