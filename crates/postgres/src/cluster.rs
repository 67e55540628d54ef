//! A private PostgreSQL: found, created, started with this process and ended with it.

mod archive;
mod find;
mod guard;
mod install;
mod pidfile;
mod place;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::{Either, select};
use nix::sys::signal::Signal;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::{info, warn};

pub use guard::Guard;
use helve_domain::error::Result;

use crate::{Database, plain};
use guard::{Launch, Process};
use place::{Identity, Kept, PrivateDir, at, failed};

/// How long a start may take. After a crash this includes the recovery.
const START: Duration = Duration::from_secs(300);
/// A start that finds the server's log larger than this, in bytes, begins it anew.
const MAX_LOG: u64 = 8 << 20;
/// What is left unescaped in a path within a URL's query.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_');

/// How a private server is started. By default: ephemeral, not durable, with the installed programs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where data is kept; `None`: in a temporary directory that is removed at the end.
    pub data_dir: Option<PathBuf>,
    /// The directory of PostgreSQL's programs; otherwise they are searched for.
    pub pg_bin: Option<PathBuf>,
    /// An archive that holds them.
    pub pg_archive: Option<PathBuf>,
    /// Whether what is committed survives a crash of the machine. Without it everything is faster.
    pub durable: bool,
    /// Whether a missing PostgreSQL may be installed with the system's packages.
    pub install: bool,
    /// The program `helve`, whose `internal pg-guard` ends the server with this process even if the process is killed;
    /// `None`: a killed process leaves its server behind.
    pub guard: Option<PathBuf>,
    /// Settings of the server that override those chosen here.
    pub settings: Vec<(String, String)>,
}

/// A running private server. Dropping it stops it.
#[derive(Debug)]
pub struct Cluster {
    launch: Launch,
    process: Process,
    socket: PrivateDir,
    /// Holds the lock of the data directory; `None`: ephemeral.
    kept: Option<Kept>,
}

impl Cluster {
    /// Finds PostgreSQL, makes its data directory if there is none, and starts it.
    ///
    /// # Errors
    /// `Internal` with a text for a person at a terminal: what is missing or in the way, and what helps.
    pub async fn start(options: Options) -> Result<Self> {
        tokio::task::spawn_blocking(move || Self::launch(&options))
            .await
            .map_err(|e| failed(format!("the start of the database did not end: {e}")))?
    }

    fn launch(options: &Options) -> Result<Self> {
        let who = Identity::find()?;
        let kept = options.data_dir.as_deref().map(|dir| Kept::take(dir, who)).transpose()?;
        let majors = kept.as_ref().map(Kept::majors).unwrap_or_default();
        let binaries = binaries(options, &majors)?;
        Identity::check_reach(who, &binaries.dir)?;
        let socket = PrivateDir::create(who)?;
        let (data, log) = match &kept {
            Some(kept) => {
                let name = format!("pg{}", binaries.major);
                if !majors.is_empty() && !majors.contains(&binaries.major) {
                    warn!("the data of PostgreSQL {majors:?} stays unused: starting empty with {}", binaries.major);
                }
                (kept.path().join(name), kept.path().join("postgres.log"))
            }
            None => (socket.path().join("data"), socket.path().join("postgres.log")),
        };
        pidfile::stop_leftover(&data)?;
        place::ensure_cluster(&binaries.dir, &data, who, options.durable)?;
        if fs::metadata(&log).is_ok_and(|meta| meta.len() > MAX_LOG) {
            File::create(&log).map_err(|e| at(&log, e))?;
        }
        let mut args: Vec<OsString> = vec!["-D".into(), data.clone().into(), "-p".into(), "5432".into()];
        args.extend(["-k".into(), socket.path().into()]);
        for (name, value) in settings(options.durable).into_iter().chain(options.settings.iter().cloned()) {
            args.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let program = binaries.dir.join("postgres");
        let launch = Launch { program, args, guard: options.guard.clone(), who, data, log };
        let process = run(&launch)?;
        info!(major = binaries.major, pid = process.pid(), data = %launch.data.display(), "database started");
        Ok(Self { launch, process, socket, kept })
    }

    /// The URL of one of its databases, for this program and for `psql`.
    pub fn url(&self, database: &str) -> String {
        let socket = self.socket.path().to_string_lossy();
        format!("postgres://postgres@/{database}?host={}&port=5432", utf8_percent_encode(&socket, IN_QUERY))
    }

    /// Creates a database unless it exists; `template` is copied.
    ///
    /// # Errors
    /// `Internal` when the server refuses, or the name has other characters than `a-z`, `0-9` and `_`.
    pub async fn create_database(&self, name: &str, template: Option<&str>) -> Result<()> {
        let template = template.unwrap_or("template1");
        for name in [name, template] {
            if name.is_empty() || !name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
                return Err(failed(format!("`{name}` is not a database name of a-z, 0-9 and _")));
            }
        }
        let (client, driver) = plain::connect(&Database::at(self.url("postgres")), "setup").await?;
        let work = async {
            let found = "select exists (select from pg_database where datname = $1)";
            if !client.query_one(found, &[&name]).await?.get::<_, bool>(0) {
                client.batch_execute(&format!("create database \"{name}\" template \"{template}\"")).await?;
            }
            Ok(())
        };
        let work = std::pin::pin!(work);
        let refused = |e: tokio_postgres::Error| {
            let why = e.as_db_error().map_or_else(|| e.to_string(), |e| e.message().to_owned());
            failed(format!("database {name}: {why}"))
        };
        match select(work, driver).await {
            Either::Left((done, _)) => done.map_err(refused),
            // The connection has ended, so the answer has arrived.
            Either::Right(((), work)) => work.await.map_err(refused),
        }
    }

    /// The directory that keeps its data, or the temporary one.
    pub fn data_dir(&self) -> &std::path::Path {
        self.kept.as_ref().map_or(self.socket.path(), Kept::path)
    }

    /// The server's own log.
    pub fn log_file(&self) -> &std::path::Path {
        &self.launch.log
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.pid().filter(|_| self.process.status().is_none())
    }

    /// Resolves when the server has ended, for whatever reason.
    pub fn ended(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        let mut ended = self.process.ended();
        async move {
            // The watcher ends only after it has reported the status.
            let status = ended.wait_for(Option::is_some).await.ok().and_then(|s| *s);
            status.unwrap_or_default()
        }
    }

    /// Stops the server as an operator would: open transactions are rolled back, committed ones are written.
    /// [`Cluster::start_again`] brings it back.
    pub async fn halt(&self) {
        self.process.signal(Signal::SIGINT);
        self.gone().await;
    }

    /// Kills the server's first process, as the kernel would when memory is short. Committed data is recovered at the
    /// next start.
    pub async fn kill(&self) {
        self.process.signal(Signal::SIGKILL);
        self.gone().await;
    }

    async fn gone(&self) {
        if tokio::time::timeout(Duration::from_secs(60), self.ended()).await.is_err() {
            warn!("the database does not stop");
        }
    }

    /// Starts the server again after its end, on the same data and under the same URL.
    pub async fn start_again(&mut self) -> Result<()> {
        self.gone().await;
        let launch = self.launch.clone();
        let started = tokio::task::spawn_blocking(move || {
            pidfile::stop_leftover(&launch.data)?;
            run(&launch)
        });
        self.process = started.await.map_err(|e| failed(format!("the database does not start: {e}")))??;
        Ok(())
    }

    /// Stops the server and, if it was ephemeral, removes its data.
    pub async fn stop(self) {
        // Dropping blocks until the server is gone.
        if tokio::task::spawn_blocking(move || drop(self)).await.is_err() {
            warn!("the database was not stopped in order");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.process.stop(self.kept.is_some());
    }
}

fn binaries(options: &Options, majors: &[u32]) -> Result<find::Binaries> {
    if let Some(dir) = &options.pg_bin {
        return find::at(dir);
    }
    if let Some(file) = &options.pg_archive {
        return find::at(&archive::unpack(file, &cache_dir()?)?);
    }
    if let Some(found) = find::installed(majors) {
        return Ok(found);
    }
    install::install(options.install)?;
    find::installed(majors).ok_or_else(|| failed("PostgreSQL was installed, but its programs are not found"))
}

/// Where unpacked archives are kept.
fn cache_dir() -> Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/helve/pg"));
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    cache.map(|c| c.join("helve/pg")).ok_or_else(|| failed("neither XDG_CACHE_HOME nor HOME is set"))
}

/// Starts the server and waits until it accepts connections. A server that was killed leaves processes behind that hold
/// its memory for a moment; the start is then tried again.
fn run(launch: &Launch) -> Result<Process> {
    for _ in 0..20 {
        let before = fs::metadata(&launch.log).map_or(0, |meta| meta.len());
        let process = guard::spawn(launch)?;
        if process.wait_ready(START)? {
            return Ok(process);
        }
        let log = fs::read(&launch.log).unwrap_or_default();
        let said = String::from_utf8_lossy(log.get(usize::try_from(before).unwrap_or(0)..).unwrap_or_default());
        if !said.contains("is still in use") {
            return Err(failed(format!("the database does not start:\n{}", said.trim())));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    Err(failed("the database does not start: processes of its last run are still there"))
}

/// Settings of the server, scaled to the machine. They are on its command line, so a new version of this program brings
/// its own.
fn settings(durable: bool) -> Vec<(String, String)> {
    let megabytes = memory_megabytes();
    let shared = (megabytes / 16).clamp(64, 1_024);
    let wal = if megabytes >= 4_096 { 4_096 } else { 1_024 };
    let mut settings = vec![
        // Only the socket in a private directory: anyone who reaches it is the server's superuser.
        ("listen_addresses", String::new()),
        ("unix_socket_permissions", "0700".to_owned()),
        ("max_connections", "200".to_owned()),
        ("shared_buffers", format!("{shared}MB")),
        ("wal_buffers", "16MB".to_owned()),
        ("max_wal_size", format!("{wal}MB")),
        ("checkpoint_timeout", "15min".to_owned()),
        // `open_run` makes thousands of dead rows a second: a minute between two looks lets it grow to gigabytes.
        ("autovacuum_naptime", "20s".to_owned()),
        ("lc_messages", "C".to_owned()),
        ("log_min_messages", "warning".to_owned()),
        // Statements may contain users' data.
        ("log_min_error_statement", "panic".to_owned()),
        ("log_checkpoints", "off".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        ("timezone", "UTC".to_owned()),
    ];
    if !durable {
        settings.extend([("fsync", "off".to_owned()), ("full_page_writes", "off".to_owned())]);
    }
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The memory of the machine or of the container, whichever is smaller; a guess if it cannot be read.
fn memory_megabytes() -> u64 {
    let number = |text: &str| text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = info.lines().find(|l| l.starts_with("MemTotal")).and_then(number).map_or(4_096, |kb| kb >> 10);
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    number(&limit).map_or(machine, |bytes| machine.min(bytes >> 20))
}
