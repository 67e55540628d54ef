//! Runs per second: closed loops, bulk triggers, one slot, and backlogs.

use std::time::{Duration, Instant};

use helve_domain::error::Result;
use tokio_util::sync::CancellationToken;

use super::document::Axis;
use super::fleet::{Fleet, Log, Sent};
use super::load::{self, Latencies, WARM_UP};
use super::meter::Meter;
use super::report::{Figure, Must, number};
use super::{Bench, cost, real, whole};

/// Enough slots that no run waits for one: 4 workers with 100 each.
const WORKERS: usize = 4;
const SLOTS: u32 = 100;
/// Runs of one bulk trigger, and the number of clients that send them; at most twice as many runs are in progress.
const BULKS: [usize; 2] = [100, 1_000];
const BULK_CLIENTS: usize = 8;

/// Closed loops, in which each client has one run in progress; with the most clients, also the cost of a run.
pub(super) async fn closed_loops(bench: &mut Bench) -> Result<Vec<Figure>> {
    let workflow = bench.workflow("throughput").await?;
    let mut figures = Vec::new();
    let most = bench.sizes.clients.iter().copied().max();
    for clients in bench.sizes.clients.clone() {
        let log = Log::new(0);
        let fleet = Fleet::start(bench, &workflow, WORKERS, SLOTS, &log).await?;
        let costed = Some(clients) == most && bench.probe.is_some();
        let mut sent = Sent::default();
        if costed {
            sent.accepted.push(cost::settle(bench, &workflow).await?);
        }
        let before = if costed { cost::read(bench).await? } else { None };
        let meter = Meter::start(bench)?;
        let measured = load::closed_loop(bench, &workflow, whole(clients)).await?;
        let generator = meter.read(bench);
        let refused = measured.sent.refused + measured.sent.unanswered;
        let runs = measured.sent.accepted.len() + 1;
        sent.merge(measured.sent);
        let rate = real(measured.latencies.len()) / bench.window.as_secs_f64();
        let (p50, p99) = (measured.latencies.percentile(50.0), measured.latencies.percentile(99.0));
        let failed = if refused == 0 { String::new() } else { format!(", {refused} failed") };
        let figure = bench
            .figure(format!("throughput, {clients} clients"), rate, "runs/s")
            .detail(format!("p50 {p50:.1} ms, p99 {p99:.1} ms{failed}"))
            .distribution(measured.latencies.distribution())
            .generator(&generator)
            .curve(Axis::Clients, f64::from(clients), "runs/s", true);
        figures.push(if clients == 256 { bench.judge(figure, Must::AtLeast(10_000.0)) } else { figure });
        if let Some(before) = before {
            sent.accepted.push(cost::settle(bench, &workflow).await?);
            figures.extend(cost::figures(bench, &before, runs).await?);
        }
        log.take(sent.accepted.len()).await?;
        fleet.stop().await?;
        bench.ledger.check(&sent, &log);
    }
    bench.forget(&workflow).await?;
    Ok(figures)
}

/// Triggers of 100 and of 1,000 runs, at the pace at which the workers finish.
pub(super) async fn bulk(bench: &mut Bench) -> Result<Vec<Figure>> {
    let workflow = bench.workflow("bulk").await?;
    let mut figures = Vec::new();
    for size in BULKS {
        let underway = BULK_CLIENTS * size * 2;
        let log = Log::new(underway);
        let fleet = Fleet::start(bench, &workflow, WORKERS, SLOTS, &log).await?;
        let stop = CancellationToken::new();
        let meter = Meter::start(bench)?;
        let jobs: Vec<_> = (0..BULK_CLIENTS)
            .map(|_| load::flood(bench.http.clone(), workflow.clone(), size, log.clone(), stop.clone()))
            .collect();
        let watch = async {
            tokio::time::sleep(WARM_UP).await;
            let rate = rate(bench, &log, bench.window).await;
            stop.cancel();
            rate
        };
        let (sent, rate) = tokio::join!(load::together(&bench.supervisor, jobs), watch);
        let generator = meter.read(bench);
        let mut all = Sent::default();
        sent?.into_iter().for_each(|sent| all.merge(sent));
        // All credit is back: nothing is in progress.
        log.take(underway).await?;
        fleet.stop().await?;
        bench.ledger.check(&all, &log);
        let share = real(all.assigned) / real(all.accepted.len()).max(1.0) * 100.0;
        let figure = bench
            .figure(format!("throughput, bulk triggers of {}", number(real(size))), rate, "runs/s")
            .detail(format!("{BULK_CLIENTS} clients, {share:.0} % assigned when created"))
            .generator(&generator);
        figures.push(if size == 100 { bench.judge(figure, Must::AtLeast(20_000.0)) } else { figure });
    }
    bench.forget(&workflow).await?;
    Ok(figures)
}

/// Stored runs a second over `window`.
async fn rate(bench: &Bench, log: &Log, window: Duration) -> f64 {
    let (start, before) = (bench.clock.instant(), log.stored());
    tokio::time::sleep(window).await;
    real(log.stored() - before) / (bench.clock.instant() - start).as_secs_f64()
}

/// A backlog behind one slot: between two tasks there is one commit, which is compared with the floor's.
pub(super) async fn one_slot(bench: &mut Bench) -> Result<Vec<Figure>> {
    let workflow = bench.workflow("one-slot").await?;
    let (log, seconds) = (Log::new(0), bench.window + WARM_UP);
    // More than one slot can do: no disk here commits 4,000 times a second one after the other.
    let total = usize::try_from(seconds.as_millis()).unwrap_or(usize::MAX).saturating_mul(4).min(50_000);
    let sent = load::fill(bench, &workflow, total).await?;
    let mut floor = Latencies::new()?;
    floor_for(bench, &mut floor, Duration::from_millis(500)).await?;
    let fleet = Fleet::start(bench, &workflow, 1, 1, &log).await?;
    tokio::time::sleep(WARM_UP).await;
    let one = rate(bench, &log, bench.window).await;
    fleet.stop().await?;
    floor_for(bench, &mut floor, Duration::from_millis(500)).await?;
    // The rest is not measured, but it was accepted.
    let fleet = Fleet::start(bench, &workflow, WORKERS, SLOTS, &log).await?;
    log.take(sent.accepted.len()).await?;
    fleet.stop().await?;
    bench.ledger.check(&sent, &log);
    bench.forget(&workflow).await?;
    let mut figure = bench.figure("one slot drains a backlog", one, "runs/s");
    if floor.len() > 0 {
        figure = figure.ratio(one * floor.percentile(50.0) / 1_000.0).detail("of the floor's rate");
        figure = bench.judge(figure, Must::AtLeast(0.45));
    }
    Ok(vec![figure])
}

pub(super) async fn floor_for(bench: &mut Bench, floor: &mut Latencies, time: Duration) -> Result<()> {
    let end = bench.clock.instant() + time;
    while let Some(probe) = &mut bench.probe
        && bench.clock.instant() < end
    {
        floor.record(probe.floor(&bench.clock).await?);
    }
    Ok(())
}

/// Runs that were queued while no worker was connected; time counts from the first worker's connect.
pub(super) async fn backlog(bench: &mut Bench) -> Result<Vec<Figure>> {
    let workflow = bench.workflow("backlog").await?;
    let mut figures = Vec::new();
    for workers in [1, 4] {
        let log = Log::new(0);
        let sent = load::fill(bench, &workflow, whole(bench.sizes.backlog)).await?;
        let meter = Meter::start(bench)?;
        let start: Instant = bench.clock.instant();
        let fleet = Fleet::start(bench, &workflow, workers, SLOTS, &log).await?;
        log.take(sent.accepted.len()).await?;
        let rate = real(sent.accepted.len()) / (bench.clock.instant() - start).as_secs_f64();
        let generator = meter.read(bench);
        fleet.stop().await?;
        bench.ledger.check(&sent, &log);
        let plural = if workers == 1 { "" } else { "s" };
        let figure = bench
            .figure(format!("backlog drained by {workers} worker{plural}"), rate, "runs/s")
            .detail(format!("{} runs, {SLOTS} slots each", sent.accepted.len()))
            .generator(&generator);
        figures.push(bench.judge(figure, Must::AtLeast(12_000.0)));
    }
    bench.forget(&workflow).await?;
    Ok(figures)
}
