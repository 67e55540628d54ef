//! Servers of earlier starts, recognised by the notes that PostgreSQL leaves in its data directory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use helve_domain::error::Result;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::guard::ENDING;
use super::place::failed;

/// The wait between two looks at something expected soon.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// What a server writes about itself into its data directory.
pub(super) struct PidFile {
    /// Its first process.
    pub pid: Pid,
    /// Whether it accepts connections.
    pub ready: bool,
}

impl PidFile {
    /// Lines: process, data directory, start time, port, socket directory, address, key, status.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 1)?;
        Some(Self { pid: Pid::from_raw(pid), ready: lines.nth(6).is_some_and(|l| l.trim() == "ready") })
    }

    /// That of the server on `data`, if any.
    pub fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }
}

/// Whether a server runs on `data`. By now, a process id in an old file may belong to another process.
pub(super) fn is_running(data: &Path) -> bool {
    let Some(file) = PidFile::read(data) else { return false };
    if kill(file.pid, None) == Err(nix::Error::ESRCH) {
        return false;
    }
    if !cfg!(target_os = "linux") {
        return true;
    }
    // Every process of a server has its data directory as its working directory.
    match (fs::read_link(format!("/proc/{}/cwd", file.pid)), data.canonicalize()) {
        (Ok(cwd), Ok(data)) => cwd == data,
        _ => false,
    }
}

/// Ends the server that a killed engine left on `data`, and removes what it left; blocks.
pub(super) fn stop_leftover(data: &Path) -> Result<()> {
    let Some(file) = PidFile::read(data) else { return Ok(()) };
    for (signal, patience) in ENDING {
        if !is_running(data) {
            break;
        }
        tracing::info!(pid = file.pid.as_raw(), "stopping the database of an earlier start");
        let _ = kill(file.pid, signal);
        wait_while(patience, || is_running(data));
    }
    if is_running(data) {
        return Err(failed(format!("the server of an earlier start (process {}) does not stop", file.pid)));
    }
    match fs::remove_file(data.join("postmaster.pid")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(format!("{}: {e}", data.display()))),
        _ => Ok(()),
    }
}

/// Polls `condition` until it is false; blocks. False: it was still true at the end.
pub(super) fn wait_while(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..patience.as_millis() / TICK.as_millis() {
        if !condition() {
            return true;
        }
        std::thread::sleep(TICK);
    }
    !condition()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_own_notes_are_understood() {
        let text = "4711\n/d\n1790000000\n5432\n/tmp/x\n\n  5432001    123\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert!(file.pid == Pid::from_raw(4711) && file.ready);
        assert!(!PidFile::parse(&text.replace("ready", "starting")).unwrap().ready);
        assert!(PidFile::parse("4711\n/d\n").is_some_and(|f| !f.ready));
        assert!(PidFile::parse("").is_none() && PidFile::parse("-1\n").is_none());
    }

    #[test]
    fn a_process_id_that_was_given_to_another_program_is_not_a_server() {
        let data = std::env::temp_dir().join(format!("helve-pidfile-test-{}", std::process::id()));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n{}\n", std::process::id(), data.display())).unwrap();
        assert!(!is_running(&data));
        stop_leftover(&data).unwrap();
        assert!(!data.join("postmaster.pid").exists());
        fs::remove_dir_all(&data).unwrap();
    }
}
