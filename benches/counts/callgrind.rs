//! Instructions, counted by valgrind's callgrind: the same for every speed of the machine.

use std::path::Path;
use std::process::Command;

/// Instructions of the whole program that does this work so many times.
pub fn instructions(work: &str, times: usize) -> f64 {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind-{}", std::process::id()));
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--error-exitcode=1"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["play", work, &times.to_string()])
        .output()
        .unwrap_or_else(|err| panic!("instructions are counted by valgrind (apt-get install valgrind): {err}"));
    assert!(out.status.success(), "valgrind: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let summary = text.lines().find_map(|line| line.strip_prefix("summary: ")).expect("callgrind sums up");
    summary.trim().parse().unwrap()
}

/// What the compiler calls itself.
pub fn compiler() -> String {
    let out = Command::new("rustc").arg("--version").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
