//! The server's process: started so that it never outlives this one, watched, and stopped.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use helve_domain::error::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, getppid};
use tokio::sync::watch;

use super::pidfile::{PidFile, TICK, wait_while};
use super::place::{Identity, failed};

/// The ways to end a server, and how long each may take: with a last checkpoint, without one, by force.
pub(super) const ENDING: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(30)),
    (Signal::SIGQUIT, Duration::from_secs(10)),
    (Signal::SIGKILL, Duration::from_secs(10)),
];

/// What `helve internal pg-guard` does, with the arguments that it gets when the server starts.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The process with which the server ends.
    pub parent: i32,
    /// The user and the group to become.
    pub identity: Option<(u32, u32)>,
    /// Stay, and check for the parent from time to time: for systems without a signal at its death.
    pub poll: bool,
    /// The server's program and its arguments.
    pub command: Vec<OsString>,
}

impl Guard {
    /// Becomes the server's user, requests a signal at the parent's death, and becomes the server. Returns only if that
    /// failed, or when the server has ended.
    ///
    /// The order matters: a change of user clears the request.
    pub fn run(self) -> Result<()> {
        let refused = |what: &str, e: nix::Error| failed(format!("pg-guard cannot {what}: {e}"));
        if let Some((uid, gid)) = self.identity {
            #[cfg(target_os = "linux")]
            nix::unistd::setgroups(&[]).map_err(|e| refused("drop its groups", e))?;
            nix::unistd::setgid(Gid::from_raw(gid)).map_err(|e| refused("change its group", e))?;
            nix::unistd::setuid(Uid::from_raw(uid)).map_err(|e| refused("change its user", e))?;
        }
        let parent = Pid::from_raw(self.parent);
        let Some((program, args)) = self.command.split_first() else {
            return Err(failed("pg-guard: no command"));
        };
        let mut command = Command::new(program);
        command.args(args);
        if self.poll {
            return hold(&mut command, parent);
        }
        #[cfg(target_os = "linux")]
        nix::sys::prctl::set_pdeathsig(Signal::SIGINT).map_err(|e| refused("ask for a signal", e))?;
        if getppid() != parent {
            return Err(failed("pg-guard: the parent died before the server was started"));
        }
        Err(failed(format!("{}: {}", program.display(), command.exec())))
    }
}

/// Runs the server until it ends or `parent` is gone.
fn hold(command: &mut Command, parent: Pid) -> Result<()> {
    let mut child = command.spawn().map_err(|e| failed(format!("the server does not start: {e}")))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let mut runs = || matches!(child.try_wait(), Ok(None));
    while runs() && getppid() == parent {
        std::thread::sleep(Duration::from_millis(100));
    }
    for (signal, patience) in ENDING {
        if !runs() {
            break;
        }
        // It may have ended in between.
        let _ = kill(pid, signal);
        wait_while(patience, &mut runs);
    }
    Ok(())
}

/// None of the caller's PostgreSQL settings reaches the private server.
pub(super) fn prepare(command: &mut Command, cwd: &Path) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").current_dir(cwd).stdin(Stdio::null());
}

/// How to start the server.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// `postgres`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The program whose `internal pg-guard` ties the server to this process; `None`: nothing ties it.
    pub guard: Option<PathBuf>,
    pub who: Option<Identity>,
    pub data: PathBuf,
    /// Where the server writes its messages.
    pub log: PathBuf,
}

/// A started server.
#[derive(Debug)]
pub(super) struct Process {
    data: PathBuf,
    ended: watch::Receiver<Option<ExitStatus>>,
}

/// Starts a server. The thread that starts it waits for its end, because the signal at the parent's death is bound to
/// that thread, which must not end before the server.
pub(super) fn spawn(launch: &Launch) -> Result<Process> {
    let log = File::options().create(true).append(true).open(&launch.log);
    let log = log.map_err(|e| failed(format!("{}: {e}", launch.log.display())))?;
    let mut command = match &launch.guard {
        Some(guard) => {
            let mut c = Command::new(guard);
            c.args(["internal", "pg-guard", "--parent", &std::process::id().to_string()]);
            if let Some(who) = launch.who {
                c.args(["--uid", &who.uid.to_string(), "--gid", &who.gid.to_string()]);
            }
            c.arg("--").arg(&launch.program).args(&launch.args);
            c
        }
        None => {
            let mut c = Command::new(&launch.program);
            if let Some(who) = launch.who {
                c.uid(who.uid.as_raw()).gid(who.gid.as_raw());
            }
            c.args(&launch.args);
            c
        }
    };
    prepare(&mut command, &launch.data);
    // A group of its own: Ctrl-C at a terminal stops the engine first, and the engine stops the server.
    command.process_group(0).stdout(Stdio::null()).stderr(log);
    let (end, ended) = watch::channel(None);
    let (started, start) = std::sync::mpsc::channel();
    let watcher = std::thread::Builder::new().name("postgres".to_owned()).spawn(move || {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => {
                let _ = started.send(Err(e));
                return;
            }
        };
        let _ = started.send(Ok(()));
        let _ = end.send(Some(child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1))));
    });
    watcher.map_err(|e| failed(format!("no thread for the server: {e}")))?;
    let program = launch.guard.as_deref().unwrap_or(&launch.program).display();
    match start.recv() {
        Ok(Ok(())) => Ok(Process { data: launch.data.clone(), ended }),
        Ok(Err(e)) => Err(failed(format!("{program} does not start: {e}"))),
        Err(_) => Err(failed(format!("{program} does not start"))),
    }
}

impl Process {
    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// Resolves when it has ended.
    pub fn ended(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.ended.clone()
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<i32> {
        PidFile::read(&self.data).map(|f| f.pid.as_raw())
    }

    /// Waits until it accepts connections; blocks.
    pub fn wait_ready(&self, patience: Duration) -> Result<bool> {
        for _ in 0..patience.as_millis() / TICK.as_millis() {
            if self.status().is_some() {
                return Ok(false);
            }
            if PidFile::read(&self.data).is_some_and(|f| f.ready) {
                return Ok(true);
            }
            std::thread::sleep(TICK);
        }
        Err(failed(format!("the server was not ready after {} s", patience.as_secs())))
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: Signal) {
        if let Some(file) = PidFile::read(&self.data).filter(|_| self.status().is_none()) {
            // It may have ended in between.
            let _ = kill(file.pid, signal);
        }
    }

    /// Stops it; blocks until it is gone. With `checkpoint`, the next start needs no recovery.
    pub fn stop(&self, checkpoint: bool) {
        for (signal, patience) in ENDING.into_iter().skip(usize::from(!checkpoint)) {
            self.signal(signal);
            if wait_while(patience, || self.status().is_none()) {
                return;
            }
        }
    }
}
