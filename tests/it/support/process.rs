//! An engine as a process of its own, to be killed: what does not work fails the test.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};

use helve_bench::oracle::process::{self, Setup};
use nix::sys::signal::Signal;

/// `helve serve` on a fixed port. Killed when dropped; its log must say nothing bad.
pub struct EngineProcess(process::EngineProcess);

impl Deref for EngineProcess {
    type Target = process::EngineProcess;
    fn deref(&self) -> &process::EngineProcess {
        &self.0
    }
}

impl DerefMut for EngineProcess {
    fn deref_mut(&mut self) -> &mut process::EngineProcess {
        &mut self.0
    }
}

impl EngineProcess {
    /// Starts an engine on a migrated database and waits until it is ready.
    pub async fn start(database: &str, env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self::start_with(database, env).await
    }

    /// Starts another engine on the same database, with the same settings, on another port.
    pub async fn twin(&self) -> Self {
        Self::start_with(&self.setup().database, self.setup().env.clone()).await
    }

    /// As [`EngineProcess::start`].
    pub async fn start_with(database: &str, env: Vec<(String, String)>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("engine-{}-{number}.log", std::process::id()));
        let program = env!("CARGO_BIN_EXE_helve").into();
        Self(process::EngineProcess::start(Setup { program, database: database.to_owned(), env, log }).await.unwrap())
    }

    /// Starts the process again after its end; does not wait until it is ready.
    pub fn spawn(&mut self) {
        self.0.spawn().unwrap();
    }

    /// Waits until `/readyz` answers 200.
    pub async fn ready(&mut self) {
        self.0.ready().await.unwrap();
    }

    /// SIGKILL, and the end of the process.
    pub fn kill9(&mut self) {
        self.0.kill9().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal).unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) {
        self.0.stop().await.unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.0.ended().await.unwrap()
    }

    /// Starts it again after [`EngineProcess::kill9`] or [`EngineProcess::stop`], and waits until it is ready.
    pub async fn restart(&mut self) {
        self.0.restart().await.unwrap();
    }

    /// Waits until it is ready, and starts it again first if it has ended by itself.
    pub async fn revive(&mut self) {
        self.0.revive().await.unwrap();
    }

    /// Fails when the log has words that no test may cause.
    pub fn check_log(&self) {
        let bad = self.forbidden();
        assert!(bad.is_empty(), "the engine's log says:\n{}", bad.join("\n"));
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the last lines of {}:\n{}", self.setup().log.display(), self.log_tail(120));
            self.keep_log = true;
        } else {
            self.check_log();
        }
    }
}
