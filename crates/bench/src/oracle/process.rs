//! An engine as a separate process that can be killed.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use helve_client::Http;
use helve_domain::error::{Error, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{failure, until};

/// How long a start may take until `/readyz` agrees: the old lease must expire, and a debug build on a busy machine is
/// slow.
const READY: Duration = Duration::from_secs(30);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(25);
/// How long `/readyz` may take to answer.
const ASK: Duration = Duration::from_secs(2);
/// Words that must never occur in a log.
const FORBIDDEN: [&str; 5] = ["HELVE_INVARIANT", "panicked at", "task panicked", "pass panicked", "panicked=true"];

/// How an engine is started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program `helve`.
    pub program: PathBuf,
    /// The migrated database.
    pub database: String,
    /// Its settings, as environment variables.
    pub env: Vec<(String, String)>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// `helve serve` on a fixed port. Killed when dropped.
pub struct EngineProcess {
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// How often the process was started.
    pub starts: u32,
    /// Whether the log is kept when this is dropped.
    pub keep_log: bool,
    setup: Setup,
    listen: String,
    child: Option<Child>,
}

fn wrong(what: &str, err: &dyn std::fmt::Display) -> Error {
    failure(format!("{what}: {err}"))
}

fn not_running() -> Error {
    failure("the engine does not run")
}

impl EngineProcess {
    /// Starts an engine and waits until it is ready.
    ///
    /// # Errors
    /// `Internal` when it cannot be started or does not become ready.
    pub async fn start(setup: Setup) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let url = format!("http://{listen}");
        let mut engine = Self { url, starts: 0, keep_log: false, setup, listen, child: None };
        engine.restart().await?;
        Ok(engine)
    }

    /// What it was started with.
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Starts the process again after its end; does not wait until it is ready.
    ///
    /// # Errors
    /// `Internal` if it is running, or the system refuses.
    pub fn spawn(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Err(failure("the engine runs already"));
        }
        let Setup { program, database, env, log } = &self.setup;
        let file = File::options().create(true).append(true).open(log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = file.map_err(|err| wrong(&log.display().to_string(), &err))?;
        let child = Command::new(program)
            .args(["serve", "--allow-unsafe-settings"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DATABASE_URL", database)
            .env("HELVE_LISTEN", &self.listen)
            .env("HELVE_LOG", std::env::var("HELVE_LOG").unwrap_or_else(|_| "warn".to_owned()))
            .env("RUST_BACKTRACE", "1")
            .envs(env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|err| wrong("the engine cannot be started", &err))?;
        self.child = Some(child);
        self.starts += 1;
        Ok(())
    }

    /// How the process ended, if it has.
    fn end(&mut self) -> Result<Option<ExitStatus>> {
        self.child.as_mut().ok_or_else(not_running)?.try_wait().map_err(|err| wrong("the engine's end", &err))
    }

    /// Waits until it answers that it is ready, or has ended.
    async fn settled(&mut self) -> Result<Option<ExitStatus>> {
        let http = Http::new(&self.url, None)?.with_timeout(ASK);
        let settled = until("the engine is ready or has ended", READY, || {
            let (ended, http) = (self.end(), http.clone());
            async move {
                match ended {
                    Ok(None) if http.get("/readyz").await.is_ok_and(|r| r.status.is_success()) => Some(Ok(None)),
                    Ok(None) => None,
                    other => Some(other),
                }
            }
        });
        settled.await?
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// `Internal` when it does not, or the engine ends.
    pub async fn ready(&mut self) -> Result<()> {
        match self.settled().await? {
            None => Ok(()),
            Some(status) => Err(failure(format!("the engine ended by itself with {status}:\n{}", self.log_tail(20)))),
        }
    }

    /// Sends SIGKILL, and waits for the end of the process.
    ///
    /// # Errors
    /// `Internal` when it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().ok_or_else(not_running)?;
        child.kill().and_then(|()| child.wait()).map(drop).map_err(|err| wrong("the engine cannot be killed", &err))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `Internal` when it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(not_running)?;
        kill(Pid::from_raw(pid), signal).map_err(|err| wrong("the engine takes no signal", &err))
    }

    /// Sends SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// `Internal` if it does not end, or not in order.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let ended = self.ended().await?;
        if ended.success() { Ok(ended) } else { Err(failure(format!("the engine stopped with {ended}"))) }
    }

    /// Starts it after [`EngineProcess::kill9`] or [`EngineProcess::stop`], and waits until it is ready.
    ///
    /// # Errors
    /// `Internal` when it does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Waits until it is ready, and first restarts it if it has ended by itself, as a process supervisor would.
    ///
    /// # Errors
    /// `Internal` when it does not become ready.
    pub async fn revive(&mut self) -> Result<()> {
        if self.settled().await?.is_some() {
            self.child = None;
            self.restart().await?;
        }
        Ok(())
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// `Internal` when it does not.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = until("the engine ends", STOP, || std::future::ready(self.end().transpose())).await??;
        self.child = None;
        Ok(ended)
    }

    /// Sets a variable of the environment for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        let env = &mut self.setup.env;
        env.retain(|(known, _)| known != name);
        env.push((name.to_owned(), value.to_owned()));
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything that the engine has logged so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.setup.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of [`EngineProcess::log`].
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<_> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Lines of the log with words that must never occur.
    pub fn forbidden(&self) -> Vec<String> {
        let log = self.log();
        let bad = log.lines().filter(|l| FORBIDDEN.iter().any(|word| l.contains(word)));
        bad.take(20).map(str::to_owned).collect()
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        // If it has ended by itself, there is nothing to kill.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.keep_log {
            let _ = std::fs::remove_file(&self.setup.log);
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let found = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    found.map(|address| address.port()).map_err(|err| wrong("no free port", &err))
}
