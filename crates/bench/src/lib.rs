//! Measures Helve and judges it: `helve bench` says how fast it is on this machine, compared with what the disk allows;
//! [`oracle`] checks every fact of a load under faults against the promises.

mod args;
mod chart;
mod churn;
mod compare;
mod cost;
mod counts;
mod document;
mod engine;
mod events;
mod fairness;
mod faults;
mod fleet;
mod idle;
mod latency;
mod load;
mod lock;
mod machine;
mod memory;
mod meter;
mod open_loop;
pub mod oracle;
mod probe;
mod process;
mod provision;
mod replicas;
mod report;
mod scale;
mod served;
mod soak;
mod sockets;
mod stats;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use helve_client::Http;
use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::RunId;
use helve_supervisor::Supervisor;
use helve_terminal::out;
use helve_terminal::signals::Signals;
use serde_json::json;

pub use args::Args;
use args::{Command, Row, Sizes};
use document::Document;
use engine::Engine;
use fleet::Ledger;
use probe::Probe;
use report::{Figure, Must, Report};

/// How a private engine is started, so that a row can have another one.
#[derive(Debug, Clone)]
struct Origin {
    data_dir: PathBuf,
    optimistic: bool,
    pg_settings: Vec<(String, String)>,
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
    sizes: Sizes,
    /// The mode's name in the report.
    mode: &'static str,
    /// Makes the names of this call's workflows unique.
    nonce: String,
    ledger: Ledger,
    origin: Origin,
}

/// Runs the benchmark with arguments that [`Args::check`] accepted; the exit code says whether every accepted run was
/// executed exactly once.
///
/// # Errors
/// If it cannot be carried out: no engine, no database, a request that must succeed fails.
pub async fn run(args: Args) -> Result<ExitCode> {
    match &args.command {
        Some(Command::Compare(files)) => return compare::run(files),
        Some(Command::Chart { file, dir }) => {
            let names = chart::write(&Document::read(file)?, dir)?;
            names.iter().try_for_each(|name| out::line(&dir.join(name).display().to_string()))?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    if args.list {
        out::line(&args::list())?;
        return Ok(ExitCode::SUCCESS);
    }
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
    let data = args.url.is_none().then_some(args.data_dir.as_path());
    let mut document = Document::new(clock.now().to_string(), machine::Machine::look(data));
    (document.seconds, document.repeats) = (real(args.seconds), args.repeat);
    if data.is_some() {
        document.engine = engine::settings().await?;
    }
    let mut report = Report::default();
    let mut sound = true;
    for repeat in 1..=args.repeat {
        for optimistic in args.modes() {
            if args.repeat > 1 {
                progress(&format!("repeat {repeat} of {}", args.repeat));
            }
            sound &= one_engine(args, optimistic, &clock, &mut report, &mut document).await?;
        }
    }
    report.fill(&mut document);
    document.sound &= sound;
    if args.churn.is_none() {
        out::line(report::table(&document).trim_end())?;
        document.soak.iter().try_for_each(|soak| out::line(soak.text().trim_end()))?;
    }
    if let Some(file) = &args.json {
        document.write(file).await?;
    }
    if let Some(dir) = &args.chart {
        let names = chart::write(&document, dir)?;
        progress(&format!("drawn into {}: {}", dir.display(), names.join(", ")));
    }
    if !report.is_sound() {
        progress("not every accepted run was executed exactly once: see the ledger");
    }
    Ok(if document.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything on one fresh engine, or on the running one. False: what was to be proved was not.
async fn one_engine(
    args: &Args,
    optimistic: Option<bool>,
    clock: &Clock,
    report: &mut Report,
    document: &mut Document,
) -> Result<bool> {
    let mut bench = Bench::start(args, optimistic, clock).await?;
    if let Some(probe) = &bench.probe {
        report.set_postgres(probe.postgres().await?);
    }
    let measured = match (args.churn, args.soak) {
        (Some(seconds), _) => churn::run(&mut bench, Duration::from_secs(seconds)).await,
        (None, Some(time)) => soak::run(&mut bench, time, args.soak_rate).await.map(|soak| {
            let held = soak.is_steady();
            document.soak.push(soak);
            held
        }),
        (None, None) => rows(args, &mut bench, report).await.map(|()| true),
    };
    report.add(bench.ledger.figures(bench.mode));
    // The engine stops even after a failure, and the caller gets the failure.
    let stopped = bench.stop().await;
    let measured = measured?;
    stopped?;
    Ok(measured)
}

async fn rows(args: &Args, bench: &mut Bench, report: &mut Report) -> Result<()> {
    let rows = args.rows();
    let all = rows.len();
    for (done, row) in rows.into_iter().enumerate() {
        progress(&format!("optimistic {}: {} of {all}, {} ..", bench.mode, done + 1, row.name()));
        report.add(match row {
            Row::Start => latency::start(bench).await?,
            Row::OpenLoop => open_loop::run(bench).await?,
            Row::Events => events::run(bench).await?,
            Row::RoundTrip => latency::round_trip(bench).await?,
            Row::Throughput => throughput::closed_loops(bench).await?,
            Row::Bulk => throughput::bulk(bench).await?,
            Row::OneSlot => throughput::one_slot(bench).await?,
            Row::Backlog => throughput::backlog(bench).await?,
            Row::Statements => cost::statements(bench).await?,
            Row::Counts => counts::run(bench).await?,
            Row::Idle => idle::run(bench).await?,
            Row::Sockets => sockets::run(bench).await?,
            Row::Memory => memory::run(bench).await?,
            Row::Fairness => fairness::run(bench).await?,
            Row::Tenants => scale::tenants(bench).await?,
            Row::Recovery => scale::recovery(bench).await?,
            Row::Replicas => replicas::run(bench).await?,
        });
    }
    Ok(())
}

impl Bench {
    async fn start(args: &Args, optimistic: Option<bool>, clock: &Clock) -> Result<Self> {
        let (data_dir, pg_settings) = (args.data_dir.clone(), args.pg_setting.clone());
        let origin = Origin { data_dir, optimistic: optimistic.unwrap_or(true), pg_settings };
        let engine = match (optimistic, &args.url, &args.token) {
            (None, Some(url), Some(token)) => Engine::running(url, token, args.database_url.as_deref()),
            _ => Engine::private(&origin, clock).await?,
        };
        let mode = optimistic.map_or("as it runs", |on| if on { "on" } else { "off" });
        Self::with(engine, origin, mode, Duration::from_secs(args.seconds), args.sizes.clone(), clock).await
    }

    async fn with(
        engine: Engine,
        origin: Origin,
        mode: &'static str,
        window: Duration,
        sizes: Sizes,
        clock: &Clock,
    ) -> Result<Self> {
        let supervisor = Supervisor::default();
        let probe = match &engine.database_url {
            Some(url) => Some(Probe::open(url, engine.is_private(), &supervisor).await?),
            None => None,
        };
        // Its last digits are random.
        let nonce = RunId::generate(clock.now()).to_string().split_off(28);
        let http = Http::new(&engine.url, Some(&engine.token))?;
        let ledger = Ledger::default();
        let clock = clock.clone();
        Ok(Self { engine, http, probe, clock, supervisor, window, sizes, mode, nonce, ledger, origin })
    }

    /// Another private engine and database in the same mode, for measurements that need an untouched process or their
    /// own settings. [`Bench::take_back`] ends it.
    async fn beside(&self, pg_settings: &[(&str, &str)]) -> Result<Self> {
        let mut origin = self.origin.clone();
        origin.pg_settings.extend(pg_settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let engine = Engine::private(&origin, &self.clock).await?;
        Self::with(engine, origin, self.mode, self.window, self.sizes.clone(), &self.clock).await
    }

    /// Ends an engine of [`Bench::beside`]; its ledger counts like this one's.
    async fn take_back(&mut self, beside: Self) -> Result<()> {
        self.ledger.merge(&beside.ledger);
        beside.stop().await
    }

    async fn stop(self) -> Result<()> {
        if let Some(probe) = &self.probe {
            probe.clean_up().await?;
        }
        self.supervisor.shut_down(Duration::from_secs(5)).await;
        self.engine.stop().await
    }

    /// Registers a workflow of one task that does nothing, and returns its name, which is also its action's.
    async fn workflow(&self, row: &str) -> Result<String> {
        self.workflow_on(row, &[]).await
    }

    /// As [`Bench::workflow`], and also started by events whose key fits one of these patterns.
    async fn workflow_on(&self, row: &str, events: &[String]) -> Result<String> {
        let name = format!("bench-{row}-{}", self.nonce);
        let task = json!({"name": "noop", "action": name, "execution_timeout": "5m"});
        let definition = json!({"tasks": [task], "events": events});
        let response = self.http.put(&format!("/v1/workflows/{name}"), definition.to_string()).await?;
        if response.status.is_success() {
            return Ok(name);
        }
        Err(failure(format!("the workflow was not accepted: {}", response.status)))
    }

    /// Removes a workflow from a running engine; its runs stay until retention. A private engine keeps it to its end.
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

    /// Sets the target of a figure. The targets are those of optimistic scheduling: without it, figures are only shown.
    fn judge(&self, figure: Figure, must: Must) -> Figure {
        if self.mode == "off" { figure } else { figure.must(must) }
    }
}

/// An error that leaves no figure to report.
fn failure(text: impl Into<String>) -> Error {
    Error::Internal(text.into())
}

/// Reports progress on standard error; standard output is reserved for the table.
fn progress(text: &str) {
    out::note(&format!("helve bench: {text}"));
}

/// For figures only: above 2^53 the last digits are lost.
#[expect(clippy::cast_precision_loss, reason = "figures are rounded for people anyway")]
fn real(n: impl TryInto<u64>) -> f64 {
    n.try_into().unwrap_or(u64::MAX) as f64
}

/// A count as a size.
fn whole(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
