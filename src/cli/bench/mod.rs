//! `helve bench`: how fast this machine is with Helve, against what its disk allows.

mod churn;
mod cost;
mod engine;
mod fairness;
mod faults;
mod fleet;
mod latency;
mod load;
mod probe;
mod process;
mod report;
mod scale;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum as _;
use serde_json::json;

use crate::cli::out;
use crate::cli::signals::Signals;
use crate::client::Http;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::id::RunId;
use crate::supervisor::Supervisor;

use engine::Engine;
use fleet::Ledger;
use probe::Probe;
use report::{Figure, Must, Report};

/// Arguments of `helve bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Base URL of a running engine; without it a private one is started
    #[arg(long, requires = "token")]
    url: Option<String>,
    /// Token of the running engine, with the scopes read, write and worker
    #[arg(long, env = "HELVE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Database of the running engine: without it there is no floor, no ratio and no cost
    #[arg(long, requires = "url")]
    database_url: Option<String>,
    /// Optimistic scheduling of the private engine
    #[arg(long, value_enum, default_value_t = Optimistic::Both)]
    optimistic: Optimistic,
    /// Seconds of measuring for each row
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Queued runs that the backlog rows drain
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..=50_000))]
    backlog: u32,
    /// Open runs that the row `recovery` starts on
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=5_000_000))]
    open_runs: u32,
    /// Only these rows
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,..")]
    only: Vec<Row>,
    /// Also write everything to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Instead of the rows: fill and empty the table of open runs for this long, and fail if it gets slower
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(6..=86_400))]
    churn: Option<u64>,
    /// Instead of the rows: kill and cut so often under load, and fail if anything is lost, stuck or doubled
    #[arg(long, value_name = "engine=N,postgres=N,cut=N", conflicts_with_all = ["url", "churn", "only"])]
    faults: Option<faults::Wanted>,
    /// Where the private engine's data is put while it runs: the disk that is measured
    #[arg(long, value_name = "DIR", default_value = "/var/tmp", conflicts_with = "url")]
    data_dir: PathBuf,
}

/// How the private engine gives runs to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Optimistic {
    /// Assigned by the statement that creates them
    On,
    /// Queued first
    Off,
    /// One after the other
    Both,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Row {
    /// A trigger until its task is at the worker, one at a time
    Start,
    /// A trigger until its result is back, one at a time
    RoundTrip,
    /// Closed loops of 8, 64 and 256 clients, and what a run costs
    Throughput,
    /// Triggers of 100 runs each
    Bulk,
    /// A backlog behind a single slot
    OneSlot,
    /// A backlog that 1 and then 4 workers drain
    Backlog,
    /// Single triggers beside another tenant's flood; only when asked for
    Fairness,
    /// 10,000 tenants, 10 of which work; only when asked for
    Tenants,
    /// The first task after a kill, with many open runs; only when asked for
    Recovery,
}

impl Row {
    /// Rows that take minutes or fill the disk are for those who ask for them.
    const fn is_usual(self) -> bool {
        !matches!(self, Self::Fairness | Self::Tenants | Self::Recovery)
    }
}

/// One engine under test, and everything that a row needs.
struct Bench {
    engine: Engine,
    http: Http,
    probe: Option<Probe>,
    clock: Clock,
    supervisor: Supervisor,
    /// How long a row is measured.
    window: Duration,
    backlog: usize,
    /// What the report calls the mode.
    mode: &'static str,
    /// Makes the names of this run's workflows its own.
    nonce: String,
    ledger: Ledger,
}

/// Runs the benchmark; the exit code says whether every accepted run was executed exactly once.
///
/// # Errors
/// When it cannot be carried out: no engine, no database, a request that must succeed fails.
pub async fn run(args: Args) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = measure(&args) => done,
        // Dropping the measurement ends the private engine; its data goes with it.
        () = signals.next() => Ok(ExitCode::from(130)),
    }
}

async fn measure(args: &Args) -> Result<ExitCode> {
    if let Some(wanted) = args.faults {
        let modes: Vec<_> = args.modes().into_iter().flatten().collect();
        return faults::run(wanted, &modes, &args.data_dir, args.json.as_deref()).await;
    }
    let clock = Clock::system();
    let mut report = Report::default();
    let mut sound = true;
    for optimistic in args.modes() {
        let mut bench = Bench::start(args, optimistic, &clock).await?;
        if let Some(probe) = &bench.probe {
            report.set_machine(probe.machine().await?);
        }
        let measured = match args.churn {
            Some(seconds) => churn::run(&mut bench, Duration::from_secs(seconds)).await,
            None => rows(args, &mut bench, &mut report).await.map(|()| true),
        };
        // The engine stops also after a failure, and the failure is what the caller hears of.
        let stopped = bench.stop(&mut report).await;
        sound &= measured?;
        stopped?;
    }
    if args.churn.is_none() {
        out::line(report.table().trim_end())?;
    }
    if let Some(file) = &args.json {
        let text = report.json().to_string();
        tokio::fs::write(file, text)
            .await
            .map_err(|err| failure(format!("{} cannot be written: {err}", file.display())))?;
    }
    let sound = sound && report.is_sound();
    if !sound && args.churn.is_none() {
        progress("not every accepted run was executed exactly once: see the ledger");
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn rows(args: &Args, bench: &mut Bench, report: &mut Report) -> Result<()> {
    let wanted = |row: &Row| if args.only.is_empty() { row.is_usual() } else { args.only.contains(row) };
    for row in Row::value_variants().iter().copied().filter(wanted) {
        let name = row.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
        progress(&format!("optimistic {}: {name} ..", bench.mode));
        report.add(match row {
            Row::Start => latency::start(bench).await?,
            Row::RoundTrip => latency::round_trip(bench).await?,
            Row::Throughput => throughput::closed_loops(bench).await?,
            Row::Bulk => throughput::bulk(bench).await?,
            Row::OneSlot => throughput::one_slot(bench).await?,
            Row::Backlog => throughput::backlog(bench).await?,
            Row::Fairness => fairness::run(bench).await?,
            Row::Tenants => scale::tenants(bench).await?,
            Row::Recovery => scale::recovery(bench, args.open_runs).await?,
        });
    }
    Ok(())
}

impl Args {
    /// `None`: a running engine, as it is.
    fn modes(&self) -> Vec<Option<bool>> {
        match self.optimistic {
            _ if self.url.is_some() => vec![None],
            Optimistic::On => vec![Some(true)],
            Optimistic::Off => vec![Some(false)],
            Optimistic::Both if self.churn.is_some() => vec![Some(true)],
            Optimistic::Both => vec![Some(true), Some(false)],
        }
    }
}

impl Bench {
    async fn start(args: &Args, optimistic: Option<bool>, clock: &Clock) -> Result<Self> {
        let engine = match (optimistic, &args.url, &args.token) {
            (None, Some(url), Some(token)) => Engine::running(url, token, args.database_url.as_deref()),
            _ => Engine::private(&args.data_dir, optimistic.unwrap_or(true), clock).await?,
        };
        let supervisor = Supervisor::default();
        let probe = match &engine.database_url {
            Some(url) => Some(Probe::open(url, engine.is_private(), &supervisor).await?),
            None => None,
        };
        // Its last digits are random.
        let nonce = RunId::generate(clock.now()).to_string().split_off(28);
        Ok(Self {
            http: Http::new(&engine.url, Some(&engine.token))?,
            engine,
            probe,
            clock: clock.clone(),
            supervisor,
            window: Duration::from_secs(args.seconds),
            backlog: usize::try_from(args.backlog).unwrap_or(usize::MAX),
            mode: optimistic.map_or("as it runs", |on| if on { "on" } else { "off" }),
            nonce,
            ledger: Ledger::default(),
        })
    }

    async fn stop(self, report: &mut Report) -> Result<()> {
        report.add(self.ledger.figures(self.mode));
        if let Some(probe) = &self.probe {
            probe.clean_up().await?;
        }
        self.supervisor.shut_down(Duration::from_secs(5)).await;
        self.engine.stop().await
    }

    /// Registers a workflow of one task that does nothing, and returns its name, which is also its action's.
    async fn workflow(&self, row: &str) -> Result<String> {
        let name = format!("bench-{row}-{}", self.nonce);
        let definition = json!({"tasks": [{"name": "noop", "action": name, "execution_timeout": "5m"}]});
        let response = self.http.put(&format!("/v1/workflows/{name}"), definition.to_string()).await?;
        if response.status.is_success() {
            return Ok(name);
        }
        Err(failure(format!("the workflow was not accepted: {}", response.status)))
    }

    /// A workflow of a running engine is taken away again; its runs stay until retention.
    async fn forget(&self, workflow: &str) -> Result<()> {
        if self.engine.is_private() {
            return Ok(());
        }
        let path = format!("/v1/workflows/{workflow}");
        self.http.request(hyper::Method::DELETE, &path, &[], None).await.map(drop)
    }

    fn figure(&self, name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure::new(self.mode, name, value, unit)
    }

    /// Sets the target of a figure. The targets are those of optimistic scheduling: without it figures
    /// are only looked at.
    fn judge(&self, figure: Figure, must: Must) -> Figure {
        if self.mode == "off" { figure } else { figure.must(must) }
    }
}

/// Something without which there is no figure.
fn failure(text: impl Into<String>) -> Error {
    Error::Internal(text.into())
}

/// Says on standard error what is going on; standard output is the table's.
fn progress(text: &str) {
    eprintln!("helve bench: {text}");
}

/// For figures only: above 2^53 the last digits go.
#[expect(clippy::cast_precision_loss, reason = "figures are rounded for people anyway")]
fn real(n: impl TryInto<u64>) -> f64 {
    n.try_into().unwrap_or(u64::MAX) as f64
}
