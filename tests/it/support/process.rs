//! An engine as a process of its own, to be killed.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::http::Http;
use super::until_within;

/// How long a start may take until `/readyz` agrees: the old lease must run out, and a debug build
/// on a busy machine is slow.
const READY: Duration = Duration::from_secs(30);
/// Words in a log that no test may cause.
const FORBIDDEN: [&str; 5] = ["HELVE_INVARIANT", "panicked at", "task panicked", "pass panicked", "panicked=true"];

/// `helve serve` on a fixed port. Killed when dropped.
pub struct EngineProcess {
    /// `http://127.0.0.1:port`.
    pub url: String,
    database: String,
    listen: String,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    /// How often the process was started.
    pub starts: u32,
}

impl EngineProcess {
    /// Starts an engine on a migrated database and waits until it is ready.
    pub async fn start(database: &str, env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self::start_with(database, env).await
    }

    /// Starts another engine on the same database, with the same settings, on another port.
    pub async fn twin(&self) -> Self {
        Self::start_with(&self.database, self.env.clone()).await
    }

    async fn start_with(database: &str, env: Vec<(String, String)>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let listen = format!("127.0.0.1:{}", free_port());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("engine-{}-{number}.log", std::process::id()));
        let mut engine = Self {
            url: format!("http://{listen}"),
            database: database.to_owned(),
            listen,
            env,
            log,
            child: None,
            starts: 0,
        };
        engine.spawn();
        engine.ready().await;
        engine
    }

    /// Starts the process again after its end; does not wait until it is ready.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the engine runs");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_helve"))
            .args(["serve", "--allow-unsafe-settings"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DATABASE_URL", &self.database)
            .env("HELVE_LISTEN", &self.listen)
            .env("HELVE_LOG", std::env::var("HELVE_LOG").unwrap_or_else(|_| "warn".to_owned()))
            .env("RUST_BACKTRACE", "1")
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.starts += 1;
    }

    /// Waits until `/readyz` answers 200.
    pub async fn ready(&mut self) {
        let http = Http { limit: Duration::from_secs(2), ..Http::new(&self.url, None) };
        let child = self.child.as_mut().expect("the engine was started");
        until_within("the engine is ready", READY, || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the engine ended by itself: {ended:?}");
            let http = http.clone();
            async move {
                let response = http.try_request("GET", "/readyz", &[], "").await.ok()?;
                (response.status == 200).then_some(())
            }
        })
        .await;
    }

    /// SIGKILL, and the end of the process.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("the engine runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("the engine runs").id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let mut child = self.child.take().expect("the engine runs");
        let ended =
            until_within("the engine stops", Duration::from_secs(25), || std::future::ready(child.try_wait().unwrap()))
                .await;
        assert!(ended.success(), "the engine stopped with {ended}");
        ended
    }

    /// Starts it again after [`EngineProcess::kill9`] or [`EngineProcess::stop`], and waits until it is ready.
    pub async fn restart(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Waits until it is ready, and starts it again first if it has ended by itself: what a supervisor of
    /// processes does.
    pub async fn revive(&mut self) {
        let child = self.child.as_mut().expect("the engine was started");
        let settled = until_within("the engine is ready or has ended", READY, || {
            let ended = child.try_wait().unwrap().is_some();
            let http = Http { limit: Duration::from_secs(2), ..Http::new(&self.url, None) };
            async move {
                let ready = http.try_request("GET", "/readyz", &[], "").await.is_ok_and(|r| r.status == 200);
                (ended || ready).then_some(ended)
            }
        });
        if settled.await {
            self.child = None;
            self.restart().await;
        }
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything that the engine has logged so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Fails when the log has words that no test may cause.
    pub fn check_log(&self) {
        let log = self.log();
        let bad: Vec<_> = log.lines().filter(|l| FORBIDDEN.iter().any(|word| l.contains(word))).take(20).collect();
        assert!(bad.is_empty(), "the engine's log says:\n{}", bad.join("\n"));
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            println!("the last lines of {}:", self.log.display());
            for line in &lines[lines.len().saturating_sub(120)..] {
                println!("    {line}");
            }
        } else {
            self.check_log();
            let _ = std::fs::remove_file(&self.log);
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
