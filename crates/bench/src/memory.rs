//! What an unfinished run takes: of the engine's memory, and of the disk.

use std::time::Duration;

use helve_domain::error::Result;
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, Log, Sent};
use super::report::Figure;
use super::{Bench, failure, load, real, whole};

/// Fewer than memory holds of one queue.
const QUEUE: u32 = 4_000;
/// Runs to complete before anything is compared, so that pools, caches and plans exist.
const WARM: usize = 5_000;
/// The longest that tasks may take to reach the worker that holds them.
const LIMIT: Duration = Duration::from_secs(120);

/// Bytes of a scheduled run, of a queued one in the window of its queue, and of a running one: resident memory of an
/// engine used for nothing else.
pub(super) async fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let mut own = bench.beside(&[]).await?;
    warm_up(&mut own).await?;
    let mut figures = later(&own).await?;
    let release = CancellationToken::new();
    let (mut fleets, log, mut sent) = (Vec::new(), Log::new(0), Sent::default());

    let before = memory(&own)?;
    let queues = own.sizes.held_runs.div_ceil(QUEUE);
    let each = own.sizes.held_runs / queues;
    for n in 0..queues {
        let workflow = own.workflow(&format!("queue-{n}")).await?;
        fleets.push(Fleet::holding(&own, &workflow, 1, &log, &release).await?);
        // The first is running, and the others wait behind it.
        sent.merge(load::fill(&own, &workflow, whole(each) + 1).await?);
    }
    came(&own, &log, whole(queues)).await?;
    let queued = each * queues;
    figures.push(bytes(&own, "memory of a queued run in the window", before, queued)?);

    let before = memory(&own)?;
    let workflow = own.workflow("held").await?;
    let held = own.sizes.held_runs.min(100_000);
    fleets.push(Fleet::holding(&own, &workflow, held, &log, &release).await?);
    sent.merge(load::fill(&own, &workflow, whole(held)).await?);
    came(&own, &log, whole(queues + held)).await?;
    figures.push(bytes(&own, "memory of a running run", before, held)?);

    release.cancel();
    log.take(sent.accepted.len()).await?;
    for fleet in fleets {
        fleet.stop().await?;
    }
    own.ledger.check(&sent, &log);
    bench.take_back(own).await?;
    Ok(figures)
}

async fn warm_up(own: &mut Bench) -> Result<()> {
    let workflow = own.workflow("warm").await?;
    let log = Log::new(0);
    let fleet = Fleet::start(own, &workflow, 1, 100, &log).await?;
    let sent = load::fill(own, &workflow, WARM).await?;
    log.take(sent.accepted.len()).await?;
    fleet.stop().await?;
    own.ledger.check(&sent, &log);
    Ok(())
}

/// Open runs that are due in a day, which memory need not hold. They are dropped with the database.
async fn later(own: &Bench) -> Result<Vec<Figure>> {
    let Some(probe) = &own.probe else { return Ok(Vec::new()) };
    let workflow = own.workflow("later").await?;
    probe.tidy().await?;
    let (before, size) = (memory(own)?, probe.sizes().await?.open_run);
    load::fill_later(&own.http, &workflow, whole(own.sizes.held_runs), ("delay", "1d")).await?;
    let grown = probe.sizes().await?.open_run - size;
    let disk = real(grown.max(0)) / f64::from(own.sizes.held_runs);
    let detail = "with indexes, 200 bytes of input";
    Ok(vec![
        bytes(own, "memory of an open run that is due in a day", before, own.sizes.held_runs)?,
        own.figure("disk of an open run", disk, "bytes").detail(detail),
    ])
}

/// Waits until this many tasks have arrived in all.
async fn came(own: &Bench, log: &Log, count: usize) -> Result<()> {
    let by = own.clock.instant() + LIMIT;
    while log.begun() < count {
        if own.clock.instant() > by {
            return Err(failure(format!("{} of {count} tasks came within {LIMIT:?}", log.begun())));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn memory(own: &Bench) -> Result<f64> {
    own.engine.memory().ok_or_else(|| failure("the memory of the engine cannot be read"))
}

fn bytes(own: &Bench, name: &str, before: f64, count: u32) -> Result<Figure> {
    let now = memory(own)?;
    let each = ((now - before) * 1_048_576.0 / f64::from(count.max(1))).max(0.0);
    let detail = format!("resident: {before:.1} to {now:.1} MiB with {count} of them");
    Ok(own.figure(name, each, "bytes").detail(detail))
}
