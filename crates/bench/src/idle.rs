//! What an engine sends to its database when nothing happens.

use std::time::Duration;

use helve_domain::error::Result;

use super::cost::counting;
use super::fleet::{Fleet, Log, Sent};
use super::report::{Figure, Must};
use super::{Bench, load, progress, real};

/// Runs that the worker has done before the second look.
const RUNS: usize = 100;
/// After a start and after work, something is left to do.
const SETTLE: Duration = Duration::from_secs(2);

/// Statements a minute without a worker, then with a connected one that has worked.
pub(super) async fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let Some(mut own) = counting(bench).await? else { return Ok(Vec::new()) };
    let mut figures = vec![watch(&own, "no worker").await?];
    let workflow = own.workflow("idle").await?;
    let log = Log::new(0);
    let fleet = Fleet::start(&own, &workflow, 1, 100, &log).await?;
    let sent: Sent = load::fill(&own, &workflow, RUNS).await?;
    log.take(sent.accepted.len()).await?;
    figures.push(watch(&own, "a connected worker").await?);
    fleet.stop().await?;
    own.ledger.check(&sent, &log);
    bench.take_back(own).await?;
    Ok(figures)
}

async fn watch(own: &Bench, with: &str) -> Result<Figure> {
    let time = Duration::from_secs(own.sizes.idle_seconds);
    progress(&format!("an idle engine with {with} is watched for {time:?}"));
    tokio::time::sleep(SETTLE).await;
    let mut count = 0;
    if let Some(probe) = &own.probe {
        probe.count_statements().await?;
        tokio::time::sleep(time).await;
        count = probe.statements().await?;
    }
    let minute = real(count.max(0)) * 60.0 / time.as_secs_f64();
    let figure = own.figure(format!("statements a minute when idle, {with}"), minute, "a minute");
    Ok(own.judge(figure.detail(format!("{count} in {} s", time.as_secs())), Must::AtMost(60.0)))
}
