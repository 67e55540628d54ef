//! The operator's commands: what they print, and how they end.

use std::process::Output;

use helve::db::migrate;
use helve_postgres::Database;
use helve_postgres::cluster::Cluster;
use serde_json::Value;

use crate::support::{self, fresh_database, options};

fn helve(database: &str, args: &[&str]) -> Output {
    support::helve().args(args).env("DATABASE_URL", database).output().unwrap()
}

fn json(database: &str, args: &[&str]) -> Value {
    let out = helve(database, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn refusal(database: &str, args: &[&str]) -> (Option<i32>, String) {
    let out = helve(database, args);
    assert!(out.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&out.stdout));
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_makes_tenants_and_tokens_and_ends_tokens() {
    let db = fresh_database().await;
    let tenant = json(&db, &["tenant", "create", "acme", "--json"]);
    let tenants = json(&db, &["tenant", "list", "--json"]);
    assert_eq!(tenants["items"], serde_json::json!([tenant]));
    let (code, said) = refusal(&db, &["tenant", "create", "acme"]);
    assert_eq!(code, Some(1), "{said}");

    let made = json(&db, &["token", "create", "--tenant", "acme", "--scopes", "read,worker", "--json"]);
    assert!(made["token"].as_str().unwrap().starts_with("helve_"));
    assert_eq!(made["scopes"], serde_json::json!(["read", "worker"]));
    let id = made["id"].as_str().unwrap();
    let bare = helve(&db, &["token", "create", "--tenant", tenant["id"].as_str().unwrap()]);
    assert!(String::from_utf8(bare.stdout).unwrap().starts_with("helve_"));

    let list = helve(&db, &["token", "list", "--json"]);
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(text.contains(id) && !text.contains("helve_"), "a list shows no secrets: {text}");
    assert_eq!(json(&db, &["token", "revoke", id, "--json"])["revoked"], true);
    let items = &json(&db, &["token", "list", "--tenant", "acme", "--json"])["items"];
    assert!(items[0]["revoked_at"].is_string() && items[1]["revoked_at"].is_null(), "{items}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_usage_and_failure_end_differently() {
    let db = fresh_database().await;
    for (args, code, word) in [
        (vec!["token", "create", "--tenant", "x", "--scopes", "root"], 2, "read"),
        (vec!["token", "revoke", "tok_1"], 2, "tok_"),
        (vec!["serve", "--scheduling-heartbeat", "1h"], 2, "HELVE_SCHEDULING_SILENCE"),
        (vec!["frobnicate"], 2, "frobnicate"),
        (vec!["token", "create", "--tenant", "nobody"], 1, "nobody"),
    ] {
        let (ended, said) = refusal(&db, &args);
        assert_eq!(ended, Some(code), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
    let (ended, said) = refusal("", &["migrate"]);
    assert_eq!(ended, Some(2));
    assert!(said.contains("DATABASE_URL"), "{said}");
    let (ended, said) = refusal("postgres://postgres:hunter2@127.0.0.1:1/x", &["migrate"]);
    assert_eq!(ended, Some(1));
    assert!(said.contains("the database `x` at 127.0.0.1, port 1, as `postgres` cannot be reached"), "{said}");
    assert!(said.contains("refused") && !said.contains("hunter2"), "{said}");
}

/// What is wrong is said of what is to blame: the command that was asked, and the variable where there was no flag.
#[test]
fn what_is_wrong_is_said_of_the_command_and_the_variable() {
    let said = |args: &[&str], env: &[(&str, &str)]| {
        let out = support::helve().args(args).env_remove("DATABASE_URL").envs(env.iter().copied()).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, text) = said(&["serve"], &[]);
    assert!(code == Some(2) && text.contains("DATABASE_URL") && text.contains("Usage: helve serve"), "{text}");
    let (code, text) = said(&["serve"], &[("HELVE_LISTEN", "here")]);
    assert!(code == Some(2) && text.contains("'here' for 'HELVE_LISTEN of the environment'"), "{text}");
    let (code, text) = said(&["serve", "--listen", "here"], &[("HELVE_LISTEN", "127.0.0.1:0")]);
    assert!(code == Some(2) && text.contains("'here' for '--listen"), "{text}");
    let (code, text) = said(&["dev", "--listen", "0.0.0.0:7733"], &[]);
    assert!(code == Some(2) && text.contains("--port") && text.contains("helve serve --listen"), "{text}");

    // Nothing is made for an engine that has no place to listen.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let place = [("HELVE_DATA_DIR", "/dev/null/none"), ("HELVE_SCHEDULNG_GRACE", "1s")];
    let (code, text) = said(&["dev", "--port", &port], &place);
    assert!(code == Some(1) && text.contains(&format!("127.0.0.1:{port}")) && text.contains("HELVE_PORT"), "{text}");
    assert!(text.contains("did you mean HELVE_SCHEDULING_GRACE?"), "{text}");
    let (code, text) = said(&["dev", "--port", "0"], &place[..1]);
    assert!(code == Some(1) && text.contains("/dev/null") && text.contains("--data-dir"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_refuses_a_database_that_would_lose_work_or_was_not_migrated() {
    // Of its own: its settings, and databases beside the shared template.
    let cluster = Cluster::start(options(false)).await.unwrap();
    cluster.create_database("bare", None).await.unwrap();
    let url = cluster.url("bare");
    let listen = ["serve", "--listen", "127.0.0.1:0"];
    let (code, said) = refusal(&url, &listen);
    assert_eq!(code, Some(1));
    assert!(said.contains("fsync") && said.contains("--allow-unsafe-settings"), "{said}");
    let (code, said) = refusal(&url, &[listen.as_slice(), &["--allow-unsafe-settings"]].concat());
    assert_eq!(code, Some(1));
    assert!(said.contains("helve migrate"), "{said}");

    let pool = helve::db::Pool::new(&Database::at(&url)).unwrap();
    let pending = migrate::pending(&pool).await.unwrap();
    assert!(!pending.is_empty());
    assert_eq!(json(&url, &["migrate", "--json"])["applied"], serde_json::json!(pending));
    assert_eq!(json(&url, &["migrate", "--json"])["applied"], serde_json::json!([]));
    assert!(migrate::pending(&pool).await.unwrap().is_empty());
    cluster.stop().await;
}

#[test]
fn the_settings_are_printed_without_secrets() {
    let out = helve(
        "postgres://me:hunter2@db/x",
        &["serve", "--print-config", "--limit-wait", "5s", "--scheduling-optimistic", "off"],
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let printed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(printed["scheduling"]["optimistic"], false);
    assert_eq!(printed["database"]["url"], "postgres://me@db/x");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_survive_a_restart_of_the_database() {
    let mut cluster = Cluster::start(options(false)).await.unwrap();
    let url = cluster.url("postgres");
    migrate::migrate(&Database::at(&url)).await.unwrap();
    let pool = helve::db::Pool::new(&Database::at(&url)).unwrap();
    assert!(migrate::pending(&pool).await.unwrap().is_empty());
    for round in 0..4 {
        let before = cluster.pid();
        if round % 2 == 0 {
            cluster.halt().await
        } else {
            cluster.kill().await
        }
        assert_eq!(cluster.pid(), None);
        cluster.start_again().await.unwrap();
        assert!(cluster.pid().is_some() && cluster.pid() != before);
        // Every connection of before is dead, and no caller notices.
        for _ in 0..8 {
            assert!(migrate::pending(&pool).await.unwrap().is_empty());
        }
    }
    cluster.stop().await;
}
