//! The machine, PostgreSQL and its settings, and what is not durable there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// If the load before the start leaves the benchmark less than this part of the cores, the machine is noisy.
const QUIET: f64 = 0.25;

/// The computer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Machine {
    /// Cores that this process may use.
    pub(super) cores: usize,
    pub(super) cpu: String,
    pub(super) memory_mib: u64,
    pub(super) kernel: String,
    /// What hides the real hardware: `hypervisor`, `container`, both, or nothing detectable.
    pub(super) virtualised: Vec<String>,
    /// The file system of the private engine's data.
    pub(super) data_file_system: Option<String>,
    /// Runnable processes, averaged over the minute before the start.
    pub(super) load_before: Option<f64>,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of `name : value` in a file of `/proc`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The type of the file system that contains `path`, from the text of `/proc/mounts`.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let parsed = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    });
    // Of two mounts in one place, the later one is on top.
    let found = parsed.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len());
    found.map(|(_, kind)| kind)
}

impl Machine {
    /// Examines this machine, and the place where data will be put.
    pub(super) fn look(data: Option<&Path>) -> Self {
        let cpu = read("/proc/cpuinfo");
        let flags = field(&cpu, "flags").or_else(|| field(&cpu, "Features")).unwrap_or_default();
        let mut virtualised = Vec::new();
        if flags.split(' ').any(|flag| flag == "hypervisor") {
            virtualised.push("hypervisor".to_owned());
        }
        if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
            virtualised.push("container".to_owned());
        }
        let memory = read("/proc/meminfo");
        let kib = field(&memory, "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        let data = data.and_then(|dir| dir.canonicalize().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
            memory_mib: kib / 1_024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            virtualised,
            data_file_system: data.and_then(|dir| file_system(&read("/proc/mounts"), &dir)),
            load_before: read("/proc/loadavg").split(' ').next().and_then(|n| n.parse().ok()),
        }
    }

    /// One line for a person.
    pub(super) fn text(&self) -> String {
        let Self { cores, cpu, memory_mib, kernel, virtualised, .. } = self;
        let real = if virtualised.is_empty() { String::new() } else { format!(", in a {}", virtualised.join(" and ")) };
        let disk = self.data_file_system.as_ref().map(|fs| format!(", data on {fs}")).unwrap_or_default();
        format!("{cores} cores ({cpu}), {:.1} GiB, Linux {kernel}{real}{disk}", super::real(*memory_mib) / 1_024.0)
    }

    /// A warning if others are using it.
    pub(super) fn noise(&self) -> Option<String> {
        let load = self.load_before.filter(|load| *load > super::real(self.cores) * QUIET)?;
        Some(format!("the machine was busy before the start (load {load:.1} on {} cores): expect noise", self.cores))
    }

    /// The differences between two files that affect figures.
    pub(super) fn differs(&self, other: &Self) -> bool {
        (self.cores, &self.cpu, &self.data_file_system) != (other.cores, &other.cpu, &other.data_file_system)
    }

    #[cfg(test)]
    pub(super) fn of_test() -> Self {
        Self { cores: 2, cpu: "A & B <1 GHz>".to_owned(), memory_mib: 2_048, ..Self::default() }
    }
}

/// The settings that decide what a commit is and what it costs.
pub(super) const SETTINGS: &[&str] = &[
    "autovacuum",
    "autovacuum_naptime",
    "checkpoint_timeout",
    "commit_delay",
    "data_checksums",
    "effective_io_concurrency",
    "fsync",
    "full_page_writes",
    "huge_pages",
    "jit",
    "max_connections",
    "max_wal_size",
    "shared_buffers",
    "shared_preload_libraries",
    "synchronous_commit",
    "synchronous_standby_names",
    "wal_buffers",
    "wal_compression",
    "wal_level",
    "wal_sync_method",
    "work_mem",
];

/// Settings without which an accepted run can be lost.
const DURABLE: &[&str] = &["fsync", "synchronous_commit", "full_page_writes"];

/// The database server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Postgres {
    pub(super) version: String,
    pub(super) settings: BTreeMap<String, String>,
    /// Why its commits are not durable; empty if they are.
    pub(super) not_durable: Vec<String>,
}

impl Postgres {
    /// Judges the settings that were read.
    pub(super) fn new(version: String, settings: BTreeMap<String, String>, in_memory: bool) -> Self {
        let state = |name: &&str| settings.get(*name).map_or("unknown", String::as_str).to_owned();
        // `local` and the remote ones flush here; a setting that cannot be read is not trusted.
        let bad = |value: &str| matches!(value, "off" | "unknown");
        let off = DURABLE.iter().map(|name| (name, state(name))).filter(|(_, value)| bad(value));
        let mut not_durable: Vec<_> = off.map(|(name, value)| format!("{name} is {value}")).collect();
        if in_memory {
            not_durable.push("its data directory is in memory".to_owned());
        }
        Self { version, settings, not_durable }
    }

    /// One line for a person.
    pub(super) fn text(&self) -> String {
        let shown = DURABLE.iter().chain(&["wal_sync_method", "wal_buffers", "shared_buffers"]);
        let settings: Vec<_> =
            shown.filter_map(|name| self.settings.get(*name).map(|value| format!("{name} {value}"))).collect();
        format!("PostgreSQL {}, {}", self.version, settings.join(", "))
    }

    #[cfg(test)]
    pub(super) fn of_test(off: &[&str]) -> Self {
        let state = |name: &&str| if off.contains(name) { "off" } else { "on" }.to_owned();
        let settings = DURABLE.iter().map(|name| ((*name).to_owned(), state(name))).collect();
        Self::new("15.0".to_owned(), settings, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::look(Some(Path::new("/proc")));
        assert!(machine.cores > 0 && machine.memory_mib > 100, "{machine:?}");
        assert_eq!(machine.data_file_system.as_deref(), Some("proc"));
        assert!(machine.text().contains(&machine.kernel), "{}", machine.text());
        assert!(!machine.differs(&machine.clone()));
        assert!(machine.differs(&Machine { cores: 99, ..machine.clone() }));
    }

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /var/tmp tmpfs rw 0 0\n/dev/b /var xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/var/tmp/x")).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/var/tmpx")).as_deref(), Some("xfs"));
        assert_eq!(file_system(mounts, Path::new("/home")).as_deref(), Some("ext4"));
    }

    #[test]
    fn a_busy_machine_is_named() {
        let machine = Machine { load_before: Some(1.5), ..Machine::of_test() };
        assert!(machine.noise().unwrap().contains("load 1.5 on 2 cores"));
        assert_eq!(Machine { load_before: Some(0.1), ..machine }.noise(), None);
    }

    #[test]
    fn what_is_off_unknown_or_in_memory_is_not_durable() {
        assert_eq!(Postgres::of_test(&[]).not_durable, Vec::<String>::new());
        assert_eq!(Postgres::of_test(&["fsync"]).not_durable, ["fsync is off"]);
        let unread = Postgres::new("15.0".to_owned(), BTreeMap::new(), true);
        assert_eq!(unread.not_durable.len(), 4, "{:?}", unread.not_durable);
    }
}
