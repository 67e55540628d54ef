//! The engine under test: a private one started for the benchmark, or one that is already running.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use helve_domain::clock::Clock;
use helve_domain::error::Result;
use helve_domain::id::RunId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Origin, failure, process, progress};

/// A first start creates a database cluster.
const START: Duration = Duration::from_secs(60);
/// A drain and the stop of PostgreSQL.
const STOP: Duration = Duration::from_secs(30);
/// Lines of its log to show if it does not start.
const TAIL: usize = 20;

/// Where to send requests and to connect workers.
pub(super) struct Engine {
    pub(super) url: String,
    pub(super) token: String,
    pub(super) database_url: Option<String>,
    private: Option<Private>,
}

/// Ends with its owner, and so does its data.
struct Private {
    child: Child,
    data: PathBuf,
    log: PathBuf,
}

#[derive(Deserialize)]
struct Ready {
    url: String,
    token: String,
    database_url: String,
}

/// Every setting of a private engine: the defaults, and what the environment sets.
pub(super) async fn settings() -> Result<serde_json::Value> {
    let program = std::env::current_exe().map_err(|err| failure(format!("this program's own path: {err}")))?;
    let printed = Command::new(program).args(["serve", "--print-config"]).env_remove("DATABASE_URL").output().await;
    let printed = printed.map_err(|err| failure(format!("the settings cannot be read: {err}")))?;
    let mut all: serde_json::Value = serde_json::from_slice(&printed.stdout)
        .map_err(|_| failure(format!("the settings: {}", String::from_utf8_lossy(&printed.stderr).trim())))?;
    if let Some(all) = all.as_object_mut() {
        // Its place and its owner are not settings that a figure depends on.
        all.retain(|part, _| part != "database" && part != "takeover");
    }
    Ok(all)
}

impl Engine {
    /// One that somebody else runs.
    pub(super) fn running(url: &str, token: &str, database_url: Option<&str>) -> Self {
        Self {
            url: url.to_owned(),
            token: token.to_owned(),
            database_url: database_url.map(ToOwned::to_owned),
            private: None,
        }
    }

    /// Starts `helve dev` with persistent data, the configuration whose commits are durable, in a directory of its own
    /// under the origin's.
    pub(super) async fn private(origin: &Origin, clock: &Clock) -> Result<Self> {
        let parent: &Path = &origin.data_dir;
        let settings = origin.pg_settings.iter().flat_map(|(n, v)| ["--pg-setting".to_owned(), format!("{n}={v}")]);
        let name = format!("helve-bench-{}", RunId::generate(clock.now()).uuid().simple());
        let (data, log) = (parent.join(&name), parent.join(format!("{name}.log")));
        let wrong = |what: &str, err: std::io::Error| failure(format!("{what}: {err}"));
        let errors = std::fs::File::create(&log).map_err(|err| wrong(&format!("{}", log.display()), err))?;
        let program = std::env::current_exe().map_err(|err| wrong("this program's own path", err))?;
        progress("starting a private engine");
        let child = Command::new(program)
            .args(["dev", "--port", "0", "--json", "--data-dir"])
            .arg(&data)
            .args(settings)
            .env("HELVE_SCHEDULING_OPTIMISTIC", if origin.optimistic { "on" } else { "off" })
            .env("HELVE_LOG", "warn")
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(|err| {
                // It is empty, and nobody would look for it.
                let _ = std::fs::remove_file(&log);
                wrong("the engine cannot be started", err)
            })?;
        let mut private = Private { child, data, log };
        match private.ready().await {
            Some(Ready { url, token, database_url }) => {
                Ok(Self { url, token, database_url: Some(database_url), private: Some(private) })
            }
            None => {
                Err(failure(format!("the private engine did not start; its log ends with\n{}", private.log_tail())))
            }
        }
    }

    pub(super) const fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// Memory of the private engine in MiB, without PostgreSQL's.
    pub(super) fn memory(&self) -> Option<f64> {
        self.pid().and_then(process::memory)
    }

    /// The private engine's process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.private.as_ref().and_then(|p| p.child.id())
    }

    /// Ends the private engine as Ctrl-C would. A stop that hangs is a defect, and is reported.
    pub(super) async fn stop(mut self) -> Result<()> {
        let Some(private) = &mut self.private else { return Ok(()) };
        if let Some(pid) = private.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM)
                .map_err(|err| failure(format!("the private engine cannot be stopped: {err}")))?;
        }
        match tokio::time::timeout(STOP, private.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failure(format!(
                "the private engine ended with {status}; its log ends with\n{}",
                private.log_tail()
            ))),
            Ok(Err(err)) => Err(failure(format!("the private engine: {err}"))),
            Err(_) => Err(failure(format!("the private engine did not stop within {STOP:?}"))),
        }
    }
}

impl Private {
    async fn ready(&mut self) -> Option<Ready> {
        let mut lines = BufReader::new(self.child.stdout.take()?).lines();
        let line = tokio::time::timeout(START, lines.next_line()).await.ok()?.ok()??;
        serde_json::from_str(&line).ok()
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Private {
    /// If the engine is still running, it is asked to end first: if killed, it could not stop PostgreSQL in order. What
    /// cannot be removed stays in a directory for temporary files.
    fn drop(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            for _ in 0..100 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let _ = std::fs::remove_dir_all(&self.data);
        let _ = std::fs::remove_file(&self.log);
    }
}
