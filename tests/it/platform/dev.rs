//! `helve dev` as a user meets it: what it prints, keeps, refuses, and leaves behind when it is killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{self, Http, bare_database, sql, until_within, wanted};

const LIMIT: Duration = Duration::from_secs(30);

/// `helve dev --json` after its line. Killed when dropped.
struct Dev {
    child: Child,
    ready: Value,
}

fn helve(args: &[&str]) -> Command {
    let mut command = support::helve();
    command.args(args).stdin(Stdio::null());
    command
}

impl Dev {
    /// Blocks until it is ready.
    fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = helve(&["dev", "--json", "--port", "0"]);
        command.args(args).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: `{line}`")) }
    }

    fn field(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap_or_else(|| panic!("{name} in {}", self.ready))
    }

    async fn data_directory(&self) -> PathBuf {
        let row = sql(self.field("database_url")).await.query_one("show data_directory", &[]).await.unwrap();
        row.get::<_, String>(0).into()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        until_within("helve dev ends", LIMIT, || std::future::ready(self.child.try_wait().unwrap())).await
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's first process, as its own notes have it.
fn server(data: &Path) -> Pid {
    let notes = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    Pid::from_raw(notes.lines().next().unwrap().trim().parse().unwrap())
}

async fn gone(pid: Pid) {
    // One that has ended may keep its number for a while, until the system's first process looks at it.
    let ended = move || fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty());
    let probe = || std::future::ready(ended().then_some(()));
    until_within("the process is gone", LIMIT, probe).await;
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("helve-dev-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

#[tokio::test]
async fn the_line_of_json_is_all_that_a_program_needs() {
    let mut dev = Dev::start(&["--ephemeral"]);
    assert_eq!(dev.field("event"), "ready");
    let url = dev.field("url").to_owned();
    assert_eq!(Http::new(&url, None).get("/healthz").await.0, 200);
    let with_token = Http::new(&url, Some(dev.field("token")));
    assert_eq!(with_token.get("/v1/runs").await.0, 200);
    assert_eq!(Http::new(&url, None).get("/v1/runs").await.0, 401);
    let data = dev.data_directory().await;
    let name: String =
        sql(dev.field("database_url")).await.query_one("select name from tenant", &[]).await.unwrap().get(0);
    assert_eq!(name, "dev");
    assert!(dev.field("tenant").starts_with("ten_"));

    let server = server(&data);
    dev.signal(Signal::SIGTERM);
    assert!(dev.ended().await.success());
    gone(server).await;
    assert!(!data.exists(), "ephemeral data is removed");
}

/// Whoever works on another application has its database in the environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_used_only_when_a_flag_names_it() {
    let theirs = bare_database().await;
    let tables = async || -> i64 {
        let count = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
        sql(&theirs).await.query_one(count, &[]).await.unwrap().get(0)
    };
    let mut dev = Dev::start_with(&["--ephemeral"], &[("DATABASE_URL", &theirs)]);
    assert_ne!(dev.field("database_url"), theirs);
    assert_eq!(tables().await, 0);
    dev.signal(Signal::SIGTERM);
    assert!(dev.ended().await.success());

    let dir = scratch("named");
    let dir_arg = dir.display().to_string();
    let named = ["--database-url", &theirs, "--data-dir", &dir_arg];
    let mut dev = Dev::start_with(&named, &[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")]);
    assert_eq!(dev.field("database_url"), theirs);
    assert!(tables().await > 0);
    dev.signal(Signal::SIGTERM);
    assert!(dev.ended().await.success());
    fs::remove_dir_all(&dir).unwrap();

    let refused = helve(&["dev", "--ephemeral", "--database-url", &theirs]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("--ephemeral"), "{said}");
}

#[tokio::test]
async fn a_killed_engine_leaves_no_server() {
    let mut dev = Dev::start(&["--ephemeral"]);
    let server = server(&dev.data_directory().await);
    dev.signal(Signal::SIGKILL);
    dev.ended().await;
    gone(server).await;
}

#[tokio::test]
async fn data_and_token_are_kept_and_one_at_a_time_uses_them() {
    let dir = scratch("kept");
    let dir_arg = dir.display().to_string();
    let mut first = Dev::start(&["--data-dir", &dir_arg]);

    let second = helve(&["dev", "--port", "0", "--data-dir", &dir_arg]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains(&first.child.id().to_string()) && said.contains("--data-dir"), "{said}");

    first.signal(Signal::SIGKILL);
    first.ended().await;
    // At once: the server of the first start may still be going down.
    let mut again = Dev::start(&["--data-dir", &dir_arg]);
    assert_eq!(again.field("token"), first.field("token"));
    assert_eq!(again.field("tenant"), first.field("tenant"));
    again.signal(Signal::SIGINT);
    assert!(again.ended().await.success());
    fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_on_its_data() {
    let dev = Dev::start(&["--ephemeral"]);
    let data = dev.data_directory().await;
    let first = server(&data);
    kill(first, Signal::SIGKILL).unwrap();
    gone(first).await;
    let url = dev.field("database_url").to_owned();
    let tenants = until_within("the database is back", LIMIT, || async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.ok()?;
        let query = async { client.query_one("select count(*) from tenant", &[]).await.ok() };
        tokio::select! { row = query => row.map(|r| r.get::<_, i64>(0)), _ = connection => None }
    })
    .await;
    assert_eq!(tenants, 1);
    assert_ne!(server(&data), first);
}

/// The way of systems that do not tell a process of its parent's death.
#[tokio::test]
async fn a_guard_that_polls_ends_its_program_too() {
    if wanted("ps").is_none() {
        return;
    }
    let script = format!("{} internal pg-guard --poll --parent $$ -- sleep 1000; true", env!("CARGO_BIN_EXE_helve"));
    let mut shell = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    let child_of = |parent: u32| {
        let out = Command::new("ps").args(["-o", "pid=", "--ppid", &parent.to_string()]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse::<u32>().ok()
    };
    let guard = until_within("a guard", LIMIT, || std::future::ready(child_of(shell.id()))).await;
    let program = until_within("its program", LIMIT, || std::future::ready(child_of(guard))).await;
    shell.kill().unwrap();
    shell.wait().unwrap();
    gone(Pid::from_raw(program.try_into().unwrap())).await;
    gone(Pid::from_raw(guard.try_into().unwrap())).await;
}
