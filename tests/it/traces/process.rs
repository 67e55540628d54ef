//! Traces of a process: its settings, what it says of wrong ones, and its log lines.

use std::process::Output;

use helve::db::Pool;
use helve_postgres::Database;
use serde_json::{Value, json};

use super::{SENT, TRACE};
use crate::support::process::EngineProcess;
use crate::support::{Http, fresh_database, helve, provision, until};

const SECRET: &str = "secret-of-the-collector";

fn serve(env: &[(&str, &str)]) -> Output {
    let mut command = helve();
    command.args(["serve", "--print-config"]).env("DATABASE_URL", "postgres://db/x");
    command.env("OTEL_EXPORTER_OTLP_HEADERS", format!("api-key={SECRET}")).envs(env.iter().copied()).output().unwrap()
}

#[test]
fn wrong_settings_end_the_start_with_their_name() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
    ] {
        let out = serve(&[endpoint, (name, value)]);
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && text.contains(name) && text.contains(value), "{name}: {text}");
        assert!(!text.contains(SECRET), "{text}");
    }
    let out = serve(&[endpoint, ("OTEL_TRACES_SAMPLER", "always_on")]);
    let text = String::from_utf8(out.stdout).unwrap();
    let traces = serde_json::from_str::<Value>(&text).unwrap()["traces"].take();
    assert_eq!(
        (&traces["endpoint"], &traces["headers"]),
        (&json!("http://collector:4318/v1/traces"), &json!([["api-key", "[redacted]"]]))
    );
    assert_eq!(traces["sampler"], json!({"parent_based": false, "root": "all"}));
    let mut help = helve();
    let help = help.args(["serve", "--help"]).env("OTEL_EXPORTER_OTLP_HEADERS", SECRET).output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains(SECRET));
}

/// Without a collector too: whoever has logs finds those of a trace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_of_a_request_name_its_trace() {
    let database = fresh_database().await;
    let pool = Pool::new(&Database { pool_size: 2, ..Database::at(&database) }).unwrap();
    let (_, token) = provision(&pool, "traces").await;
    let env = [("HELVE_LOG", "warn,helve::api=debug"), ("HELVE_LOG_FORMAT", "json")];
    let mut engine = EngineProcess::start(&database, &env).await;
    let http = Http::new(&engine.url, Some(&token));
    assert_eq!(http.request("GET", "/v1/workflows", &[("traceparent", SENT)], "").await.status, 200);
    assert_eq!(http.request("GET", "/v1/events", &[], "").await.status, 200);
    let line = |route: &'static str| {
        let log = engine.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut lines = lines.filter(|line| line["span"]["http.route"] == route && line["message"] == "answered");
        lines.next()
    };
    let found = until("both lines", || async { Some((line("/v1/workflows")?, line("/v1/events")?)) }).await;
    assert_eq!((&found.0["span"]["trace_id"], &found.1["span"]["trace_id"]), (&json!(TRACE), &Value::Null));
    engine.stop().await;
}
