//! An engine that may open few files: connections never take those that the database needs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use helve_bench::oracle::process::{EngineProcess, Setup};
use tokio::net::TcpStream;

use crate::support::{Http, fresh_database, sql, until_within};

/// Less than an idle connection is kept.
const PATIENCE: Duration = Duration::from_secs(8);

/// The program behind a shell that limits it, as an operator's may.
fn limited(name: &str, limits: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.sh", std::process::id()));
    let script = format!("#!/bin/sh\nulimit {limits}\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_helve"));
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn setup(name: &str, limits: &str, database: &str) -> Setup {
    let program = limited(name, limits);
    let log = program.with_extension("log");
    Setup { program, database: database.to_owned(), env: Vec::new(), log }
}

/// Clients that connect and say nothing.
async fn idle(engine: &EngineProcess, connections: usize) -> Vec<TcpStream> {
    let address = engine.url.strip_prefix("http://").unwrap();
    let mut idle = Vec::new();
    for _ in 0..connections {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    idle
}

/// Idle clients take what they may, then every connection to the database is cut: the engine opens them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_with_few_files_reaches_its_database_again() {
    let database = fresh_database().await;
    let client = sql(&database).await;
    let mut engine = EngineProcess::start(setup("few-files", "-n 170", &database)).await.unwrap();
    let idle = idle(&engine, 250).await;
    let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
        where datname = current_database() and application_name like 'helve:%'";
    client.query_one(ended, &[]).await.unwrap();
    until_within("every lane is open again", PATIENCE, || async {
        let open = "select count(*) from lane l join pg_stat_activity a on a.pid = l.pid \
            and a.backend_start = l.backend_start";
        (client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 2).then_some(())
    })
    .await;
    drop(idle);
    engine.ready().await.unwrap();
    let (log, told) = (engine.log(), "170 open files: of HELVE_HTTP_CONNECTIONS, 20000, 82 are taken at once");
    assert!(!log.contains("Too many open files") && log.contains(told), "{log}");
    engine.stop().await.unwrap();
}

/// What the operator's shell set is only where the process begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_takes_as_many_files_as_it_may() {
    let database = fresh_database().await;
    let mut engine = EngineProcess::start(setup("soft-files", "-Sn 100", &database)).await.unwrap();
    let _idle = idle(&engine, 300).await;
    let http = Http { limit: Duration::from_secs(5), ..Http::new(&engine.url, None) };
    assert_eq!(http.get("/readyz").await.0, 200);
    engine.stop().await.unwrap();
}

/// An engine that could hold hardly a connection says so, and does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_does_not_fit_says_so() {
    let database = fresh_database().await;
    let refused = EngineProcess::start(setup("no-files", "-n 90", &database)).await.err().unwrap();
    let text = refused.to_string();
    assert!(text.contains("allows this process 90 open files, and an engine needs 93 at least"), "{text}");
}
