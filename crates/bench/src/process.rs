//! CPU time and memory of processes, from `/proc`.

use std::time::Duration;

/// `USER_HZ`, the unit of `/proc/<pid>/stat`: fixed at 100 in Linux's interface to programs.
const TICKS: u64 = 100;

struct Stat {
    name: String,
    parent: u32,
    own: u64,
    /// Of child processes that have ended.
    children: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    // The name is in parentheses and may contain anything.
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let rest: Vec<&str> = text[close + 1..].split_whitespace().collect();
    let number = |n: usize| rest.get(n)?.parse::<u64>().ok();
    Some(Stat {
        name: text[open + 1..close].to_owned(),
        parent: u32::try_from(number(1)?).ok()?,
        own: number(11)? + number(12)?,
        children: number(13)? + number(14)?,
    })
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / TICKS)
}

/// What a process has used so far.
pub(super) fn of(pid: u32) -> Option<Duration> {
    stat(pid).map(|s| time(s.own))
}

/// Memory that a process uses now, in MiB.
pub(super) fn memory(pid: u32) -> Option<f64> {
    let kib = resident(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
    Some(super::real(kib) / 1_024.0)
}

/// Resident KiB in the text of `/proc/<pid>/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a PostgreSQL server has used so far, with all its processes, living or ended. `None` unless `backend` is one of
/// its processes on this machine.
pub(super) fn of_server(backend: u32) -> Option<Duration> {
    let one = stat(backend).filter(|s| s.name == "postgres")?;
    let postmaster = stat(one.parent).filter(|s| s.name == "postgres")?;
    let living: u64 = std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .filter(|s| s.parent == one.parent)
        .map(|s| s.own)
        .sum();
    Some(time(postmaster.own + postmaster.children + living))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let fields = "S 7 1 1 0 -1 4194560 100 200 0 0 150 50 30 20 20 0 1 0";
        let s = parse(&format!("42 (a) (b c) {fields}")).unwrap();
        assert_eq!((s.name.as_str(), s.parent, s.own, s.children), ("a) (b c", 7, 200, 50));
        assert_eq!(time(s.own), Duration::from_secs(2));
        assert!(parse("42 (x").is_none());
    }

    #[test]
    fn resident_memory_is_found_among_its_neighbours() {
        assert_eq!(resident("VmHWM:\t  900 kB\nVmRSS:\t  812 kB\nRssAnon:\t 1 kB\n"), Some(812));
        assert_eq!(resident("Name:\tx\n"), None);
        assert!(memory(std::process::id()).is_some_and(|mib| mib > 1.0));
    }

    #[test]
    fn this_process_is_not_a_server() {
        assert!(of(std::process::id()).is_some());
        assert!(of_server(std::process::id()).is_none());
    }
}
