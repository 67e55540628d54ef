//! A constant load for a long time: whether memory, latency, throughput or tables change meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use helve_domain::error::Result;
use helve_domain::id::RunId;
use helve_terminal::out;
use serde::{Deserialize, Serialize};

use super::chart::{Chart, Point, Scale};
use super::fleet::{Fleet, Ledger, Log, Sent};
use super::load::{Latencies, Request};
use super::meter::Meter;
use super::open_loop::{Heard, Paced, REACHED, Schedule, late, numbered};
use super::report::number;
use super::stats::{self, Slope};
use super::{Bench, real};

/// Samples of a soak, each of at least a second.
const SAMPLES: u32 = 60;
/// The part at the beginning in which the level is still being reached.
const WARM: f64 = 0.2;
/// Below this time, growth is what every start has, and is not judged.
const JUDGED: Duration = Duration::from_secs(60);
/// How long the last runs may take to be stored.
const CATCH_UP: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(1);

/// A soak and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Soak {
    pub(super) optimistic: String,
    pub(super) seconds: f64,
    /// Triggers a second.
    pub(super) rate: u32,
    pub(super) samples: Vec<Sample>,
    pub(super) trends: Vec<Trend>,
}

/// One sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Since the start.
    pub(super) seconds: f64,
    pub(super) runs_per_second: f64,
    /// From the intended time to the task at the worker, milliseconds.
    pub(super) start_p50: f64,
    pub(super) start_p99: f64,
    pub(super) engine_mib: Option<f64>,
    /// With indexes.
    pub(super) open_run_mib: Option<f64>,
    pub(super) run_history_mib: Option<f64>,
    pub(super) database_mib: Option<f64>,
    pub(super) dead_rows: Option<i64>,
    /// Why the load generator, and not the engine, explains this sample.
    pub(super) generator_limit: Option<String>,
}

/// How one quantity changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Trend {
    pub(super) what: String,
    pub(super) unit: String,
    pub(super) mean: f64,
    /// Change per hour; absent with too few samples.
    pub(super) an_hour: Option<Slope>,
    pub(super) verdict: Verdict,
}

/// What a slope means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Its interval contains zero, or the change is too small to matter.
    Steady,
    /// It gets worse, beyond noise and by an amount that matters.
    Worsens,
    /// The same in the good direction.
    Improves,
    /// The soak was too short to tell.
    TooShort,
}

/// What is watched: its name, unit, where to read it, whether more is worse, and the change, as a part of its mean,
/// that matters.
type Watched = (&'static str, &'static str, fn(&Sample) -> Option<f64>, bool, f64);
const WATCHED: &[Watched] = &[
    ("memory of the engine", "MiB", |s| s.engine_mib, true, 0.05),
    ("start latency p99", "ms", |s| Some(s.start_p99), true, 0.25),
    ("throughput", "runs/s", |s| Some(s.runs_per_second), false, 0.05),
    ("table of open runs", "MiB", |s| s.open_run_mib, true, 0.25),
];

fn trends(samples: &[Sample], time: Duration) -> Vec<Trend> {
    let end = samples.last().map_or(0.0, |s| s.seconds);
    let held: Vec<_> = samples.iter().filter(|s| s.seconds > end * WARM).collect();
    let one = |(what, unit, of, more_is_worse, matters): &Watched| {
        let points: Vec<_> = held.iter().filter_map(|s| Some((s.seconds / 3_600.0, of(s)?))).collect();
        let values: Vec<_> = points.iter().map(|p| p.1).collect();
        let (mean, slope) = (stats::mean(&values), stats::slope(&points));
        let span = points.last().zip(points.first()).map_or(0.0, |(last, first)| last.0 - first.0);
        let verdict = match slope {
            None => Verdict::TooShort,
            Some(_) if time < JUDGED => Verdict::TooShort,
            Some(s) if s.interval.holds(0.0) || (s.each * span).abs() <= matters * mean.abs() => Verdict::Steady,
            Some(s) if (s.each > 0.0) == *more_is_worse => Verdict::Worsens,
            Some(_) => Verdict::Improves,
        };
        let seen = !values.is_empty();
        seen.then(|| Trend { what: (*what).to_owned(), unit: (*unit).to_owned(), mean, an_hour: slope, verdict })
    };
    WATCHED.iter().filter_map(one).collect()
}

impl Soak {
    /// Nothing got worse.
    pub(super) fn is_steady(&self) -> bool {
        self.trends.iter().all(|t| t.verdict != Verdict::Worsens)
    }

    /// The verdict, for a person.
    pub(super) fn text(&self) -> String {
        let Self { optimistic, seconds, rate, .. } = self;
        let mut text =
            format!("soak of {seconds:.0} s at {rate} triggers/s, optimistic {optimistic}, after the first fifth:\n");
        let mean = stats::mean(&self.samples.iter().map(|s| s.runs_per_second).collect::<Vec<_>>());
        if mean < f64::from(*rate) * REACHED {
            text += &format!("  NOT REACHED: {} of {rate} runs/s on average\n", number(mean));
        }
        for t in &self.trends {
            let slope = t.an_hour.map_or("no slope".to_owned(), |s| {
                let half = number(s.interval.half());
                let sign = if s.each < 0.0 { "" } else { "+" };
                format!("{sign}{} ± {half} {} an hour", number(s.each), t.unit)
            });
            let verdict = match t.verdict {
                Verdict::Steady => "steady",
                Verdict::Worsens => "WORSENS",
                Verdict::Improves => "improves",
                Verdict::TooShort => "too short to judge",
            };
            text += &format!("  {:<22} mean {} {}, {slope}: {verdict}\n", t.what, number(t.mean), t.unit);
        }
        text
    }

    /// Memory and tables over time.
    pub(super) fn chart(&self, note: &str) -> Chart {
        let line = |name: &str, of: fn(&Sample) -> Option<f64>| {
            let point = |s: &Sample| Some(Point { x: s.seconds / 60.0, y: of(s)?, range: None, hollow: false });
            let points: Vec<_> = self.samples.iter().filter_map(point).collect();
            (!points.is_empty()).then(|| (name.to_owned(), points))
        };
        let lines = [line("engine, resident", |s| s.engine_mib), line("table of open runs", |s| s.open_run_mib)];
        Chart {
            title: format!("Memory over time at {} triggers/s, optimistic {}", self.rate, self.optimistic),
            note: note.to_owned(),
            x_label: "time, minutes".to_owned(),
            y_label: "size, MiB".to_owned(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            lines: lines.into_iter().flatten().collect(),
        }
    }
}

/// The ledger of an endless load: what is settled on all sides is dropped.
#[derive(Default)]
struct Account {
    open: HashMap<RunId, Known>,
    accepted: u64,
    repeated: u64,
}

#[derive(Default)]
struct Known {
    number: Option<u64>,
    started: Option<Instant>,
    stored: bool,
}

impl Account {
    /// Takes what arrived since the last call; start latencies of runs accepted and started by now go to `latencies`.
    fn settle(&mut self, heard: &Heard, log: &Log, schedule: &Schedule, latencies: &mut Latencies) {
        let (started, stored) = log.drain();
        let mut touched = Vec::with_capacity(started.len());
        for (run, number) in numbered(heard) {
            self.accepted += 1;
            let known = self.open.entry(run).or_default();
            // One id for two triggers would merge two runs into one.
            self.repeated += u64::from(known.number.replace(number).is_some());
            touched.push(run);
        }
        for (run, at) in started {
            let known = self.open.entry(run).or_default();
            self.repeated += u64::from(known.started.replace(at).is_some());
            touched.push(run);
        }
        for run in stored {
            self.open.entry(run).or_default().stored = true;
            touched.push(run);
        }
        for run in touched {
            let Some(Known { number: Some(n), started: Some(at), stored: true }) = self.open.get(&run) else {
                continue;
            };
            latencies.record(late(schedule, *n, *at));
            self.open.remove(&run);
        }
    }

    fn ledger(&self, sent: &Sent) -> Ledger {
        let count = |wanted: fn(&Known) -> bool| real_count(self.open.values().filter(|k| wanted(k)).count());
        let lost = count(|k| k.number.is_some());
        let foreign = count(|k| k.number.is_none());
        Ledger::of_counts(sent, self.accepted, lost, self.repeated, foreign)
    }
}

fn real_count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Runs the load for `time`, and prints one line for each sample.
pub(super) async fn run(bench: &mut Bench, time: Duration, rate: u32) -> Result<Soak> {
    let workflow = bench.workflow("soak").await?;
    let log = Log::new(0);
    let fleet = Fleet::start(bench, &workflow, 4, 100, &log).await?;
    let schedule = Schedule::new(bench.clock.instant() + Duration::from_millis(50), rate, WARM_UP, time);
    let paced = Paced::new(schedule, &bench.clock)?;
    let request = Request::trigger(&workflow);
    let mut watch = Watch { account: Account::default(), sent: Sent::default(), samples: Vec::new() };
    let (sent, watched) =
        tokio::join!(paced.run(&bench.http, &bench.supervisor, &request), watch.all(bench, &paced, &log, time));
    sent.and(watched)?;
    let by = bench.clock.instant() + CATCH_UP;
    while !watch.catch_up(&paced, &log)? && bench.clock.instant() < by {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fleet.stop().await?;
    bench.ledger.merge(&watch.account.ledger(&watch.sent));
    bench.forget(&workflow).await?;
    let (seconds, optimistic) = (time.as_secs_f64(), bench.mode.to_owned());
    let trends = trends(&watch.samples, time);
    Ok(Soak { optimistic, seconds, rate, samples: watch.samples, trends })
}

struct Watch {
    account: Account,
    /// Refusals and lost answers; the accepted runs are in the account.
    sent: Sent,
    samples: Vec<Sample>,
}

impl Watch {
    fn take(&mut self, paced: &Paced, log: &Log) -> Result<Latencies> {
        let mut latencies = Latencies::new()?;
        let heard = paced.take()?;
        self.account.settle(&heard, log, &paced.schedule, &mut latencies);
        self.sent.refused += heard.sent.refused;
        self.sent.unanswered += heard.sent.unanswered;
        Ok(latencies)
    }

    /// Whether everything that was accepted is settled.
    fn catch_up(&mut self, paced: &Paced, log: &Log) -> Result<bool> {
        self.take(paced, log)?;
        Ok(self.account.open.is_empty())
    }

    async fn all(&mut self, bench: &Bench, paced: &Arc<Paced>, log: &Log, time: Duration) -> Result<()> {
        let every = (time / SAMPLES).max(Duration::from_secs(1));
        let start = paced.schedule.start + WARM_UP;
        tokio::time::sleep_until((start).into()).await;
        self.take(paced, log)?;
        let (mut last, mut stored) = (bench.clock.instant(), log.stored());
        for n in 1.. {
            let at = start + every * n;
            if at > start + time {
                break;
            }
            let meter = Meter::start(bench)?;
            tokio::time::sleep_until(at.into()).await;
            let limit = meter.read(bench).limit;
            let (now, all) = (bench.clock.instant(), log.stored());
            let latencies = self.take(paced, log)?;
            let rate = real(all - stored) / (now - last).as_secs_f64();
            (last, stored) = (now, all);
            let sample = look(bench, now - start, rate, &latencies, limit).await?;
            out::line(&sample.text())?;
            self.samples.push(sample);
        }
        Ok(())
    }
}

async fn look(
    bench: &Bench,
    since: Duration,
    rate: f64,
    latencies: &Latencies,
    generator_limit: Option<String>,
) -> Result<Sample> {
    let sizes = match &bench.probe {
        Some(probe) => Some(probe.sizes().await?),
        None => None,
    };
    let mib = |bytes: i64| real(bytes.max(0)) / 1_048_576.0;
    Ok(Sample {
        seconds: since.as_secs_f64(),
        runs_per_second: rate,
        start_p50: latencies.percentile(50.0),
        start_p99: latencies.percentile(99.0),
        engine_mib: bench.engine.memory(),
        open_run_mib: sizes.map(|s| mib(s.open_run)),
        run_history_mib: sizes.map(|s| mib(s.run_history)),
        database_mib: sizes.map(|s| mib(s.database)),
        dead_rows: sizes.map(|s| s.dead_rows),
        generator_limit,
    })
}

impl Sample {
    fn text(&self) -> String {
        let mib = |n: Option<f64>| n.map_or("?".to_owned(), |n| format!("{n:.1}"));
        let limit = self.generator_limit.as_ref().map(|l| format!("  {l}")).unwrap_or_default();
        format!(
            "{:>7.0} s {:>8.0} runs/s  start p50 {:.2} ms p99 {:.2} ms  engine {} MiB  open_run {} MiB ({} dead)  \
             run_history {} MiB{limit}",
            self.seconds,
            self.runs_per_second,
            self.start_p50,
            self.start_p99,
            mib(self.engine_mib),
            mib(self.open_run_mib),
            self.dead_rows.unwrap_or_default(),
            mib(self.run_history_mib),
        )
    }
}

#[cfg(test)]
mod tests;
