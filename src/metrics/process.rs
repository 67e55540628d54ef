//! What the operating system says of this process. From `/proc`: elsewhere nothing is known.

use std::time::Duration;

/// `USER_HZ`, the unit of `/proc/self/stat`: fixed at 100 in Linux's interface to programs.
const TICKS: u64 = 100;

/// The process now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// CPU time of all its threads since the start.
    pub cpu: Duration,
    /// Memory that it has in RAM, in bytes.
    pub resident: u64,
    /// Files and sockets that it has open.
    pub open_files: Option<u64>,
}

impl Process {
    /// Asks the operating system.
    pub fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let open_files = std::fs::read_dir("/proc/self/fd").ok().map(|all| u64::try_from(all.count()).unwrap_or(0));
        Some(Self { cpu: cpu(&stat)?, resident: resident(&status)?, open_files })
    }
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name stands in parentheses and may hold anything.
    let rest: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |n: usize| rest.get(n)?.parse::<u64>().ok();
    Some(Duration::from_millis((number(11)? + number(12)?) * 1_000 / TICKS))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read() {
        assert_eq!(cpu("42 (a) (b c) S 7 1 1 0 -1 41 100 200 0 0 150 50 30 20 20 0"), Some(Duration::from_secs(2)));
        assert_eq!(resident("Name:\thelve\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!((cpu("42 (x"), resident("Name: x")), (None, None));
        if cfg!(target_os = "linux") {
            assert!(Process::now().is_some_and(|p| p.resident > 0));
        }
    }
}
