//! Other programs: the built one with nothing of this machine's user, and those that may be missing here.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// The built program, which knows nothing of the engine, the profiles and the database that the user of this machine has.
pub fn helve() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_helve"));
    forget(&mut command);
    command
}

/// Takes out of a command's environment what would lead Helve somewhere. Where PostgreSQL's programs are stays.
pub fn forget(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let leads = ["HELVE_", "OTEL_", "XDG_"].iter().any(|start| text.starts_with(start)) || text == "DATABASE_URL";
        if leads && !text.starts_with("HELVE_PG_") {
            command.env_remove(name);
        }
    }
}

/// Where a program is; also where only root's `PATH` leads.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A program that a test needs. `None` where a person has not got it: the test ends then, and a line says so. In CI it
/// must be there.
pub fn wanted(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        skip(&format!("`{program}` is missing"));
    }
    found
}

/// Python with the package of the example worker; else as [`wanted`].
pub fn wanted_python() -> Option<PathBuf> {
    let python = wanted("python3")?;
    let found = Command::new(&python).args(["-c", "import websockets.asyncio.client"]).output();
    if found.is_ok_and(|out| out.status.success()) {
        return Some(python);
    }
    skip("python3 has no package `websockets` (pip install 'websockets>=15')");
    None
}

fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI has everything that tests need: {why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by a macro: what a test prints is shown only when it fails.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {why}");
}
