//! The table of open runs, filled and emptied for minutes, must not get slower.

use std::time::Duration;

use helve_domain::error::Result;
use helve_terminal::out;
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, Log, Sent};
use super::load;
use super::{Bench, progress, real};

/// Runs of one wave: the table is filled with this many, then it is emptied.
const WAVE: usize = 5_000;
const CLIENTS: usize = 5;
const BULK: usize = 100;
/// The last third of the time must keep this part of the first third's rate.
const KEPT: f64 = 0.6;

/// True when the rate was kept and every run was executed once.
pub(super) async fn run(bench: &mut Bench, time: Duration) -> Result<bool> {
    let workflow = bench.workflow("churn").await?;
    let log = Log::new(0);
    let fleet = Fleet::start(bench, &workflow, 4, 100, &log).await?;
    let stop = CancellationToken::new();
    let waves = async {
        let mut sent = Sent::default();
        while !stop.is_cancelled() {
            wave(bench, &workflow, &log, &mut sent).await?;
        }
        Ok(sent)
    };
    let watch = async {
        let rates = windows(bench, &log, time).await;
        stop.cancel();
        rates
    };
    let (sent, rates) = tokio::try_join!(waves, watch)?;
    fleet.stop().await?;
    bench.ledger.check(&sent, &log);
    bench.forget(&workflow).await?;
    let third = (rates.len() / 3).max(1);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / real(part.len()).max(1.0);
    let (first, last) = (mean(&rates[..third]), mean(&rates[rates.len() - third..]));
    let kept = last >= KEPT * first;
    let sound = bench.ledger.figures(bench.mode).iter().all(super::Figure::is_met);
    out::line(&format!(
        "first third {first:.0} runs/s, last third {last:.0} runs/s, kept {:.2} (must: {KEPT}): {}",
        last / first.max(1.0),
        if kept { "ok" } else { "below" }
    ))?;
    let account = if sound { "each executed once" } else { "the ledger is broken" };
    out::line(&format!("{} runs accepted, {account}", sent.accepted.len()))?;
    Ok(kept && sound)
}

async fn wave(bench: &Bench, workflow: &str, log: &Log, sent: &mut Sent) -> Result<()> {
    let sizes = vec![BULK; WAVE / CLIENTS / BULK];
    let jobs = (0..CLIENTS).map(|_| load::batches(bench.http.clone(), workflow.to_owned(), sizes.clone()));
    let before = sent.accepted.len();
    load::together(&bench.supervisor, jobs).await?.into_iter().for_each(|part| sent.merge(part));
    log.take(sent.accepted.len() - before).await
}

/// The rate of each 10 s; of shorter periods if the whole time is short.
async fn windows(bench: &Bench, log: &Log, time: Duration) -> Result<Vec<f64>> {
    let window = Duration::from_secs(10).min(time / 6);
    let mut rates = Vec::new();
    let end = bench.clock.instant() + time;
    while bench.clock.instant() + window / 2 < end {
        let (start, before) = (bench.clock.instant(), log.stored());
        tokio::time::sleep(window).await;
        let rate = real(log.stored() - before) / (bench.clock.instant() - start).as_secs_f64();
        rates.push(rate);
        let table = match &bench.probe {
            Some(probe) => probe.open_table().await?,
            None => None,
        };
        let table = table.map(|(dead, vacuums)| format!("; open_run: {dead} dead rows, {vacuums} autovacuums so far"));
        let table = table.unwrap_or_default();
        out::line(&format!("{:>5.0} s  {rate:>8.0} runs/s{table}", real(rates.len()) * window.as_secs_f64()))?;
    }
    progress("the time is over, the last wave is drained");
    Ok(rates)
}
