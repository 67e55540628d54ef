//! Engines whose login roles may not see or end each other's connections.

use std::time::Duration;

use helve::db::{Pool, migrate};
use helve_postgres::Database;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio_postgres::Client;

use super::lives::{nodes, renewed, spread};
use crate::support::process::EngineProcess;
use crate::support::{Http, Worker, fresh_database, hello, provision, sql, until_within};

const GOES_ON: Duration = Duration::from_secs(20);

/// A database of a role that nobody logs in by, and two roles that are members of it.
struct Roles {
    a: String,
    b: String,
    admin: Client,
}

impl Roles {
    /// `set`: the second role becomes the owner at each login, as poolers and operators like it.
    async fn new(set: bool) -> Self {
        let base = fresh_database().await;
        let name = base.split(['/', '?']).nth(3).unwrap().to_owned();
        let admin = sql(&base).await;
        let roles = format!(
            "create role {name}_owner nologin; create role {name}_a login in role {name}_owner; \
             create role {name}_b login in role {name}_owner; create role {name}_setup login in role {name}_owner; \
             alter role {name}_setup set role = {name}_owner"
        );
        admin.batch_execute(&roles).await.unwrap();
        if set {
            admin.batch_execute(&format!("alter role {name}_b set role = {name}_owner")).await.unwrap();
        }
        admin.batch_execute(&format!("create database {name}_theirs owner {name}_owner")).await.unwrap();
        let at = |role: &str| {
            let by = format!("postgres://{role}@/{name}_theirs?");
            base.replacen(&format!("postgres://postgres@/{name}?"), &by, 1)
        };
        let by = |role: &str| at(&format!("{name}_{role}"));
        migrate::migrate(&Database::at(by("setup"))).await.unwrap();
        Self { a: by("a"), b: by("b"), admin: sql(&at("postgres")).await }
    }
}

async fn a_run_succeeds(url: &str, token: &str) {
    let http = Http::new(url, Some(token));
    until_within("a worker does a run", GOES_ON, || async {
        let mut worker = Worker::open(url, Some(token)).await.ok()?;
        worker.send(hello("w", &["a"], 1)).await;
        let (status, run) = http.post("/v1/runs", json!({"workflow": "a"})).await;
        if status != 201 {
            return None;
        }
        worker.find("welcome").await;
        let task = worker.task().await;
        worker.finish(&task, json!(1)).await;
        worker.goodbye().await;
        let (_, run) = http.get(&format!("/v1/runs/{}", run["id"].as_str().unwrap())).await;
        assert_eq!(run["status"], "succeeded", "{run}");
        Some(())
    })
    .await;
}

async fn side_by_side(set: bool, optimistic: &str) {
    let roles = Roles::new(set).await;
    let env = [("HELVE_SCHEDULING_OPTIMISTIC", optimistic)];
    let mut a = EngineProcess::start(&roles.a, &env).await;
    let b = EngineProcess::start(&roles.b, &env).await;
    spread(&roles.admin).await;
    let before = nodes(&roles.admin).await;
    renewed(&roles.admin, 4).await;
    assert_eq!(nodes(&roles.admin).await, before, "two that live leave each other alone");
    let (_, token) = provision(&Pool::new(&Database::at(&roles.a)).unwrap(), "test").await;
    let put = Http::new(&a.url, Some(&token)).put("/v1/workflows/a", json!({"tasks": [{"name": "a"}]})).await;
    assert_eq!(put.0, 200, "{}", put.1);
    a_run_succeeds(&b.url, &token).await;

    // A death is noticed as one of the same role is, and not by the lease: that goes on for 60 s here.
    roles.admin.batch_execute("update node set expires_at = expires_at + interval '60 s'").await.unwrap();
    a.kill9();
    until_within("the dead one is replaced", Duration::from_secs(5), || async {
        (nodes(&roles.admin).await.len() == 1).then_some(())
    })
    .await;
    a_run_succeeds(&b.url, &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_login_roles_optimistic() {
    side_by_side(false, "on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_set_at_login_queued() {
    side_by_side(true, "off").await;
}

/// One that stands still cannot be cut off by the other's role: its lane's rows do it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_engine_of_another_role_is_replaced() {
    let roles = Roles::new(false).await;
    let mut a = EngineProcess::start(&roles.a, &[]).await;
    let _b = EngineProcess::start(&roles.b, &[]).await;
    spread(&roles.admin).await;
    a.signal(Signal::SIGSTOP);
    until_within("the frozen one is replaced", GOES_ON, || async {
        (nodes(&roles.admin).await.len() == 1).then_some(())
    })
    .await;
    let fenced: Vec<bool> = {
        let rows = roles.admin.query("select fenced from lane where node not in (select id from node)", &[]).await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(fenced, [true, true]);
    a.signal(Signal::SIGCONT);
    assert_ne!(a.ended().await.code(), Some(0), "it ends when it finds out");
}
