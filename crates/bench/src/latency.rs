//! One trigger at a time, between inserts of the floor: how long until the task is at the worker, and until its result
//! is back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helve_domain::error::Result;

use super::fleet::{Fleet, Log, Sent};
use super::load::{Latencies, WARM_UP, note, single};
use super::meter::{Generator, Meter};
use super::report::{Figure, Must};
use super::{Bench, failure, real};

/// The result of one way of measuring.
struct Measured {
    generator: Generator,
    floor: Latencies,
    latencies: Latencies,
    sent: Sent,
}

#[derive(Clone, Copy, PartialEq)]
enum Until {
    Started,
    Answered,
}

/// From sending a trigger to the frame at the worker.
pub(super) async fn start(bench: &mut Bench) -> Result<Vec<Figure>> {
    let measured = row(bench, "start", Until::Started).await?;
    let mut figures = floor(bench, &measured.floor);
    figures.extend(pair(bench, "start latency", &measured, Some(1.9), Some(6.0)));
    let share = real(measured.sent.assigned) / real(measured.sent.accepted.len()).max(1.0);
    let share = bench.figure("assigned when created, of single triggers", share * 100.0, "%");
    figures.push(match bench.mode {
        "on" => share.must(Must::AtLeast(95.0)),
        "off" => share.must(Must::AtMost(0.0)),
        _ => share,
    });
    Ok(figures)
}

/// From sending a trigger with `wait` to its answer.
pub(super) async fn round_trip(bench: &mut Bench) -> Result<Vec<Figure>> {
    let measured = row(bench, "round-trip", Until::Answered).await?;
    Ok(pair(bench, "round trip", &measured, Some(3.8), None))
}

async fn row(bench: &mut Bench, name: &str, until: Until) -> Result<Measured> {
    let workflow = bench.workflow(name).await?;
    let log = Log::new(0);
    let fleet = Fleet::start(bench, &workflow, 1, 100, &log).await?;
    let (mut floor, mut latencies, mut sent) = (Latencies::new()?, Latencies::new()?, Sent::default());
    let meter = Meter::start(bench)?;
    let body = single(&workflow);
    let from = bench.clock.instant() + WARM_UP;
    let end = from + bench.window;
    loop {
        let now = bench.clock.instant();
        if now >= end {
            break;
        }
        let counts = now >= from;
        if let Some(probe) = &mut bench.probe {
            let took = probe.floor(&bench.clock).await?;
            if counts {
                floor.record(took);
            }
        }
        if let Some(took) = one(bench, until, body.clone(), &log, &mut sent).await?
            && counts
        {
            latencies.record(took);
        }
    }
    let generator = meter.read(bench);
    fleet.stop().await?;
    bench.ledger.check(&sent, &log);
    bench.forget(&workflow).await?;
    if latencies.len() == 0 {
        return Err(failure(format!("no trigger was accepted: {} were refused", sent.refused)));
    }
    Ok(Measured { generator, floor, latencies, sent })
}

/// Start latencies at concurrency 1 for one window, with a fleet that is already connected and has been used before.
pub(super) async fn starts(bench: &Bench, workflow: &str, log: &Arc<Log>, sent: &mut Sent) -> Result<Latencies> {
    let (body, mut latencies) = (single(workflow), Latencies::new()?);
    let end = bench.clock.instant() + bench.window;
    while bench.clock.instant() < end {
        if let Some(took) = one(bench, Until::Started, body.clone(), log, sent).await? {
            latencies.record(took);
        }
    }
    Ok(latencies)
}

/// One trigger, up to the stored result, so that the next one starts on an idle engine. `None`: refused.
async fn one(bench: &Bench, until: Until, body: Bytes, log: &Arc<Log>, sent: &mut Sent) -> Result<Option<Duration>> {
    let path = if until == Until::Started { "/v1/runs" } else { "/v1/runs?wait=30s" };
    let begin = bench.clock.instant();
    let answer = bench.http.post(path, body).await;
    let answered = bench.clock.instant();
    let Some(run) = note(sent, answer)? else {
        tokio::time::sleep(Duration::from_millis(20)).await;
        return Ok(None);
    };
    log.take(1).await?;
    let end = match (until, log.last_start()) {
        (Until::Answered, _) => answered,
        (Until::Started, Some((started, at))) if started == run => at,
        (Until::Started, _) => return Err(failure(format!("{run} was not the run that the worker got last"))),
    };
    Ok(Some(end.saturating_duration_since(begin)))
}

fn floor(bench: &Bench, floor: &Latencies) -> Vec<Figure> {
    if floor.len() == 0 {
        return Vec::new();
    }
    [("floor, one INSERT, p50", 50.0), ("floor, one INSERT, p99", 99.0)]
        .map(|(name, p)| bench.figure(name, floor.percentile(p), "ms"))
        .into()
}

/// p50 and p99, both relative to the floor's p50 of the same row.
fn pair(bench: &Bench, name: &str, measured: &Measured, p50: Option<f64>, p99: Option<f64>) -> Vec<Figure> {
    let unit = (measured.floor.len() > 0).then(|| measured.floor.percentile(50.0));
    [("p50", 50.0, p50), ("p99", 99.0, p99)]
        .map(|(label, p, most)| {
            let value = measured.latencies.percentile(p);
            let mut figure = bench.figure(format!("{name} {label}"), value, "ms").generator(&measured.generator);
            if let Some(unit) = unit {
                figure = figure.ratio(value / unit);
                if let Some(most) = most {
                    figure = bench.judge(figure, Must::AtMost(most));
                }
            }
            if p < 99.0 {
                let floor = unit.map(|unit| format!(", floor {unit:.2} ms")).unwrap_or_default();
                figure = figure
                    .detail(format!("{} samples{floor}", measured.latencies.len()))
                    .distribution(measured.latencies.distribution());
            }
            figure
        })
        .into()
}
