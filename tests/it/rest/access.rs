//! Who may call what: every operation of the document without a token, with too few scopes, and with another
//! tenant's objects.

use serde_json::json;

use super::contract::operations;
use super::{NOBODY, problem};
use crate::support::{self, Engine, Http};

/// An object of each kind that stands in a path.
struct Objects {
    run: String,
    event: String,
    workflow: String,
    job: String,
    worker: String,
}

impl Objects {
    async fn of(engine: &Engine) -> Self {
        let definition = json!({"tasks": [{"name": "t", "action": "nobody"}], "events": ["access.*"]});
        assert_eq!(engine.put("/v1/workflows/access", definition).await.0, 200);
        let run = engine.trigger("access", json!({"secret": "of-a"})).await;
        let (status, event) = engine.post("/v1/events", json!({"key": "access.x", "payload": "of-a"})).await;
        assert_eq!(status, 201, "{event}");
        let body = json!({"kind": "cancel", "filter": {"workflow": "none"}});
        let (status, job) = engine.post("/v1/jobs", body).await;
        assert_eq!(status, 201, "{job}");
        let text = |id: &serde_json::Value| id.as_str().unwrap().to_owned();
        let worker = support::worker(engine, &["somebody"], 1).await;
        Self {
            run: text(&run["id"]),
            event: text(&event["id"]),
            workflow: "access".to_owned(),
            job: text(&job["id"]),
            worker: text(&worker.welcome["worker"]),
        }
    }

    /// The path of an operation with these objects in it. A new kind of path needs a line here.
    fn path(&self, template: &str) -> String {
        let object = match template {
            path if !path.contains('{') => "",
            path if path.starts_with("/v1/runs/{id}") => &self.run,
            path if path.starts_with("/v1/jobs/{id}") => &self.job,
            path if path.starts_with("/v1/events/{id}") => &self.event,
            path if path.starts_with("/v1/workflows/{name}") => &self.workflow,
            path if path.starts_with("/v1/workers/{id}") => &self.worker,
            path if path.starts_with("/v1/actions/{action}") => "somebody",
            path => panic!("no object for {path}: add one, so that its isolation is tested"),
        };
        template.replace("{id}", object).replace("{name}", object).replace("{action}", object)
    }

    /// The same with ids that nobody has.
    fn unknown() -> Self {
        Self {
            run: format!("run_{NOBODY}"),
            event: format!("evt_{NOBODY}"),
            workflow: "never-registered".to_owned(),
            job: format!("job_{NOBODY}"),
            worker: format!("wrk_{NOBODY}"),
        }
    }
}

fn body(method: &str) -> &'static str {
    if matches!(method, "POST" | "PUT") { "{}" } else { "" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_needs_a_token_with_its_scope() {
    let engine = support::engine().await;
    let objects = Objects::of(&engine).await;
    let client = |token: Option<&str>| engine.client().with_token(token);
    let (read, write, worker) =
        (engine.token_with("read").await, engine.token_with("write").await, engine.token_with("worker").await);
    let mut tested = 0;
    for (template, method, _) in operations().into_iter().filter(|(path, ..)| path.starts_with("/v1/")) {
        let path = objects.path(&template);
        let ask = async |client: Http| client.request(&method, &path, &[], body(&method)).await;
        let refused = ask(client(None)).await;
        problem(&refused, 401, "unauthenticated");
        assert!(refused.header("www-authenticate").starts_with("Bearer"), "{method} {path}");
        problem(&ask(client(Some("helve_garbage"))).await, 401, "unauthenticated");
        if path.starts_with("/v1/worker/") {
            // What workers' servers ask for is theirs alone.
            for other in [&read, &write] {
                problem(&ask(client(Some(other))).await, 403, "forbidden");
            }
            assert_eq!(ask(client(Some(&worker))).await.status, 400, "the scope is enough, the body is not");
            tested += 1;
            continue;
        }
        problem(&ask(client(Some(&worker))).await, 403, "forbidden");
        let looks = method == "GET";
        let with_read = ask(client(Some(&read))).await;
        if looks {
            assert_eq!(with_read.status, 200, "{method} {path}");
        } else {
            problem(&with_read, 403, "forbidden");
        }
        // Not executed where it would change something: the scope is checked first, so any other answer shows it.
        if looks || body(&method) == "{}" && !path.ends_with("/cancel") {
            let with_write = ask(client(Some(&write))).await;
            assert!(![401, 403].contains(&with_write.status), "{method} {path}: {}", with_write.status);
        }
        tested += 1;
    }
    assert!(tested >= 14, "only {tested} operations were tested");
    assert_eq!(engine.run(&json!(objects.run)).await["status"], "queued");
    assert_eq!(engine.get("/v1/workflows/access").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenant_sees_and_changes_nothing() {
    let engine = support::engine().await;
    let (objects, unknown) = (Objects::of(&engine).await, Objects::unknown());
    let stranger = engine.second_tenant().await;
    let mut tested = 0;
    for (template, method, _) in operations() {
        // The name of an action belongs to nobody: rest/pauses.rs shows that what is done under it stays in the tenant.
        if !template.contains('{') || method == "PUT" || template.contains("{action}") {
            continue;
        }
        let path = objects.path(&template);
        let foreign = stranger.request(&method, &path, &[], body(&method)).await;
        let nobody = stranger.request(&method, &unknown.path(&template), &[], body(&method)).await;
        let code = if template.contains("{name}") { "workflow_not_found" } else { "not_found" };
        let (mut foreign, mut nobody) = (problem(&foreign, 404, code), problem(&nobody, 404, code));
        // The text repeats the id that was asked; nothing else may tell a foreign object from none.
        foreign["detail"].take();
        nobody["detail"].take();
        assert_eq!(foreign, nobody, "{method} {path}");
        tested += 1;
    }
    assert!(tested >= 6, "only {tested} operations were tested");

    for list in ["/v1/runs", "/v1/events", "/v1/workflows", "/v1/workers", "/v1/jobs"] {
        let (status, page) = stranger.get(list).await;
        assert_eq!((status, page["items"].as_array().unwrap().len()), (200, 0), "{list}");
    }
    let by_event = format!("/v1/runs?event={}", objects.event);
    assert_eq!(stranger.get(&by_event).await.1["items"], json!([]));
    assert_eq!(engine.get(&by_event).await.1["items"].as_array().unwrap().len(), 1);

    // The same name is another workflow there.
    let definition = json!({"tasks": [{"name": "other"}]});
    assert_eq!(stranger.put("/v1/workflows/access", definition).await.1["version"], 1);
    let mine = engine.get("/v1/workflows/access").await.1;
    assert_eq!((&mine["version"], &mine["definition"]["tasks"][0]["name"]), (&json!(1), &json!("t")));
    // The stranger's event does not start this tenant's workflows.
    let (status, event) = stranger.post("/v1/events", json!({"key": "access.y"})).await;
    assert_eq!((status, &event["runs"]), (201, &json!([])));
    assert_eq!(engine.run(&json!(objects.run)).await["status"], "queued");
}
