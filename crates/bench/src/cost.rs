//! What a run costs, for the database and the machine.

use std::time::Duration;

use helve_domain::error::Result;
use helve_domain::id::RunId;

use super::fleet::{Fleet, Log, Sent};
use super::load::{self, single};
use super::probe::{Counters, Spent};
use super::report::{Figure, Must};
use super::{Bench, failure, process, progress, real};

/// PostgreSQL's processes publish their counters when a transaction ends, at most once a second.
const LAG: Duration = Duration::from_millis(1_100);

/// A reading of all counters.
pub(super) struct Reading {
    counters: Counters,
    engine: Option<Duration>,
}

/// Makes the engine's connections publish their counters: waits, then runs one task. Returns the run's id, because it
/// was accepted like any other. The workflow needs a worker.
pub(super) async fn settle(bench: &Bench, workflow: &str) -> Result<RunId> {
    #[derive(serde::Deserialize)]
    struct Run {
        id: RunId,
    }
    tokio::time::sleep(LAG).await;
    let response = bench.http.post("/v1/runs?wait=30s", single(workflow)).await?;
    if !response.status.is_success() {
        return Err(failure(format!("a single trigger was refused: {}", response.status)));
    }
    response.json().map(|run: Run| run.id)
}

/// Reads all counters; `None` without a database.
pub(super) async fn read(bench: &Bench) -> Result<Option<Reading>> {
    let Some(probe) = &bench.probe else { return Ok(None) };
    let counters = probe.counters().await?;
    Ok(Some(Reading { counters, engine: bench.engine.pid().and_then(process::of) }))
}

/// Statements per run, counted by PostgreSQL itself. Counting takes time, so this uses a separate engine, on which no
/// time is measured.
pub(super) async fn statements(bench: &mut Bench) -> Result<Vec<Figure>> {
    let Some(counted) = counting(bench).await? else { return Ok(Vec::new()) };
    let mut counted = counted;
    let workflow = counted.workflow("statements").await?;
    let mut figures = Vec::new();
    for clients in [1, 64] {
        let log = Log::new(0);
        let fleet = Fleet::start(&counted, &workflow, 4, 100, &log).await?;
        let mut sent = Sent::default();
        sent.accepted.push(settle(&counted, &workflow).await?);
        if let Some(probe) = &counted.probe {
            probe.count_statements().await?;
            let measured = load::closed_loop(&counted, &workflow, clients).await?.sent;
            let runs = measured.accepted.len();
            let each = real(probe.statements().await?.max(0)) / real(runs).max(1.0);
            let plural = if clients == 1 { "" } else { "s" };
            let name = format!("statements per run, {clients} client{plural}");
            figures.push(bench.figure(name, each, "statements").detail(format!("{runs} runs, housekeeping with them")));
            sent.merge(measured);
        }
        log.take(sent.accepted.len()).await?;
        fleet.stop().await?;
        counted.ledger.check(&sent, &log);
    }
    bench.take_back(counted).await?;
    Ok(figures)
}

/// An engine whose PostgreSQL counts statements; `None` if the server cannot.
pub(super) async fn counting(bench: &Bench) -> Result<Option<Bench>> {
    counting_with(bench, &[("shared_preload_libraries", "pg_stat_statements")]).await
}

/// The same with these settings, which load the extension.
pub(super) async fn counting_with(bench: &Bench, settings: &[(&str, &str)]) -> Result<Option<Bench>> {
    let Some(probe) = &bench.probe else { return Ok(None) };
    if !probe.can_count_statements().await? {
        progress("no pg_stat_statements here: statements are not counted");
        return Ok(None);
    }
    bench.beside(settings).await.map(Some)
}

/// The cost of each of `runs` since `from`.
pub(super) async fn figures(bench: &Bench, from: &Reading, runs: usize) -> Result<Vec<Figure>> {
    let Some(probe) = &bench.probe else { return Ok(Vec::new()) };
    let Spent { commits, rows, updates, hot, statements, wal_bytes, wal_exact, cpu, .. } =
        probe.spent(&from.counters).await?;
    let engine = bench.engine.pid().and_then(process::of).zip(from.engine).map(|(to, from)| to.saturating_sub(from));
    let each = |n: f64| n / real(runs).max(1.0);
    let count = |n: i64| each(real(n.max(0)));
    let micros = |d: Duration| each(d.as_secs_f64() * 1e6);
    let wal = if wal_exact { "without full-page images" } else { "without full-page images, estimated" };
    let bytes = bench.figure("WAL per run", each(wal_bytes), "bytes").detail(wal);
    let mut figures = vec![
        bench.judge(bytes, Must::AtMost(1_600.0)),
        // The count includes housekeeping, such as leases; hence the tenth.
        bench.judge(bench.figure("row changes per run", count(rows), "rows"), Must::AtMost(3.1)),
        bench.figure("commits per run", count(commits), "commits"),
    ];
    if updates > 0 {
        let share = real(hot.max(0)) / real(updates) * 100.0;
        let detail = format!("{:.2} updates a run", count(updates));
        figures.push(bench.figure("HOT share of updates", share, "%").detail(detail));
    }
    figures.extend(statements.map(|n| bench.figure("statements per run", count(n), "statements")));
    figures.extend(engine.map(|cpu| bench.figure("CPU per run, engine", micros(cpu), "us")));
    figures.extend(cpu.map(|cpu| bench.figure("CPU per run, PostgreSQL", micros(cpu), "us")));
    Ok(figures)
}
