//! One tenant's single triggers: alone, beside another tenant that sends bulk triggers in a loop, and while very many
//! of that tenant's runs become due at one instant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use helve_client::Http;
use helve_domain::error::Result;
use helve_terminal::this_program;
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, Log, Sent};
use super::load::{self, Latencies, WARM_UP, note, single};
use super::report::{Figure, Must};
use super::{Bench, failure, real};
use crate::provision::Provision;

/// Runs of one bulk trigger, the most that are allowed.
const BULK: usize = 1_000;
/// Runs that become due at one instant, and how long before it the first of them is created.
const TIMERS: usize = 30_000;
const AHEAD: Duration = Duration::from_secs(10);
/// For how long before and after that instant single triggers are measured.
const LEAD: Duration = Duration::from_millis(100);
const TIMED: Duration = Duration::from_millis(900);
/// Runs of the flood in progress at once: the engine limits it, and not a backlog that only grows.
const UNDERWAY: usize = 4_000;
/// With fewer samples, a p99 is only the worst of a few.
const SAMPLES: u64 = 300;
/// The limit for the p99 beside the flood, relative to the p99 alone.
const SLOWER: f64 = 3.0;

/// A tenant and an engine for the benchmark's clients and workers: swapped in, these use it instead of their own.
pub(super) struct Side {
    url: String,
    token: String,
    pub(super) http: Http,
}

impl Side {
    /// A new tenant of the engine at `url` with its `database`.
    pub(super) async fn of_new_tenant(url: &str, database: &str, name: &str) -> Result<Self> {
        let token = Provision::of(&this_program()?, database).token(name, "bench").await?;
        Ok(Self { http: Http::new(url, Some(&token))?, url: url.to_owned(), token })
    }

    /// The same tenant of an engine that has restarted at another address.
    pub(super) fn at(self, url: &str) -> Result<Self> {
        Ok(Self { http: Http::new(url, Some(&self.token))?, url: url.to_owned(), ..self })
    }

    /// A client of the same tenant at another engine.
    pub(super) fn client(&self, url: &str) -> Result<Http> {
        Http::new(url, Some(&self.token))
    }

    /// Swaps places with the side that the benchmark currently uses.
    pub(super) fn swap(&mut self, bench: &mut Bench) {
        std::mem::swap(&mut self.url, &mut bench.engine.url);
        std::mem::swap(&mut self.token, &mut bench.engine.token);
        std::mem::swap(&mut self.http, &mut bench.http);
    }
}

/// The latencies of single triggers.
struct Singles {
    answered: Latencies,
    started: Latencies,
}

/// Single triggers alone, then beside the flood.
pub(super) async fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let database = bench.engine.database_url.clone().filter(|_| bench.engine.is_private());
    let database = database.ok_or_else(|| failure("`fairness` makes a second tenant: only on a private engine"))?;
    let (flooded, timed) = (bench.workflow("flood").await?, bench.workflow("timers").await?);
    let underway = Log::new(UNDERWAY);
    let flood_fleet = Fleet::start(bench, &flooded, 1, 100, &underway).await?;
    let mut other = Side::of_new_tenant(&bench.engine.url, &database, "bench-other").await?;
    other.swap(bench);
    let workflow = bench.workflow("single").await?;
    let log = Log::new(0);
    let fleet = Fleet::start(bench, &workflow, 1, 100, &log).await?;

    let mut sent = Sent::default();
    singles(bench, &workflow, &log, &mut sent, (WARM_UP, 1)).await?;
    let alone = singles(bench, &workflow, &log, &mut sent, (bench.window, SAMPLES)).await?;
    let stop = CancellationToken::new();
    let flood = load::flood(other.http.clone(), flooded.clone(), BULK, Arc::clone(&underway), stop.clone());
    let beside = async {
        // The flood must end even after a failure.
        let _stop = stop.clone().drop_guard();
        singles(bench, &workflow, &log, &mut sent, (WARM_UP, 1)).await?;
        let (before, from) = (underway.stored(), bench.clock.instant());
        let measured = singles(bench, &workflow, &log, &mut sent, (bench.window, SAMPLES)).await?;
        let rate = real(underway.stored() - before) / (bench.clock.instant() - from).as_secs_f64();
        Ok((measured, rate))
    };
    let (floods, beside) = tokio::join!(load::together(&bench.supervisor, [flood]), beside);
    let (beside, rate): (Singles, f64) = beside?;
    let mut flood_sent = Sent::default();
    floods?.into_iter().for_each(|sent| flood_sent.merge(sent));
    underway.take(UNDERWAY).await?;
    let due = make_timers(bench, &other.http, &timed).await?;
    tokio::time::sleep_until((due - LEAD).into()).await;
    let timed = singles(bench, &workflow, &log, &mut sent, (LEAD + TIMED, SAMPLES)).await?;
    fleet.stop().await?;
    other.swap(bench);
    flood_fleet.stop().await?;
    bench.ledger.check(&sent, &log);
    bench.ledger.check(&flood_sent, &underway);
    let flood = format!("a flood of {rate:.0} runs/s");
    let mut figures = figures(bench, &alone, &beside, ("a flood", &flood));
    let timers = format!("{TIMERS} timers of another tenant at one instant");
    figures.extend(against(bench, &alone, &timed, ("timers", &timers)));
    Ok(figures)
}

/// Creates very many runs of a tenant that become due at one instant and have no worker; returns the instant.
async fn make_timers(bench: &Bench, http: &Http, workflow: &str) -> Result<Instant> {
    let due = bench.clock.instant() + AHEAD;
    let at = bench.clock.now().plus(AHEAD).to_string();
    load::fill_later(http, workflow, TIMERS, ("run_at", &at)).await?;
    if bench.clock.instant() + LEAD > due {
        return Err(failure("this machine is too slow to make the timers in time"));
    }
    Ok(due)
}

/// Single triggers, each sent when the result of the one before is stored, for at least this time and this number.
async fn singles(
    bench: &Bench,
    workflow: &str,
    log: &Log,
    sent: &mut Sent,
    (time, least): (Duration, u64),
) -> Result<Singles> {
    let mut took = Singles { answered: Latencies::new()?, started: Latencies::new()? };
    let (body, end) = (single(workflow), bench.clock.instant() + time);
    while bench.clock.instant() < end || took.answered.len() < least {
        let begin = bench.clock.instant();
        let answer = bench.http.post("/v1/runs", body.clone()).await;
        let answered = bench.clock.instant();
        let Some(run) = note(sent, answer)? else {
            return Err(failure("a single trigger was refused beside the flood"));
        };
        log.take(1).await?;
        took.answered.record(answered - begin);
        if let Some((started, at)) = log.last_start()
            && started == run
        {
            took.started.record(at.saturating_duration_since(begin));
        }
    }
    Ok(took)
}

fn figures(bench: &Bench, alone: &Singles, beside: &Singles, what: (&str, &str)) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, alone) in [("answered", &alone.answered), ("at the worker", &alone.started)] {
        for (label, p) in [("p50", 50.0), ("p99", 99.0)] {
            let figure = bench.figure(format!("single trigger {name}, alone, {label}"), alone.percentile(p), "ms");
            figures.push(figure.detail(format!("{} samples", alone.len())));
        }
    }
    figures.extend(against(bench, alone, beside, what));
    figures
}

/// The latency of single triggers beside something, relative to that alone.
fn against(bench: &Bench, alone: &Singles, beside: &Singles, (short, long): (&str, &str)) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, alone, beside, must) in [
        ("answered", &alone.answered, &beside.answered, true),
        ("at the worker", &alone.started, &beside.started, false),
    ] {
        for (label, p) in [("p50", 50.0), ("p99", 99.0), ("worst", 100.0)] {
            let (before, after) = (alone.percentile(p), beside.percentile(p));
            let figure = bench.figure(format!("single trigger {name}, beside {short}, {label}"), after, "ms");
            let figure = figure.ratio(after / before).detail(format!("{} samples, of alone; {long}", beside.len()));
            figures.push(if must && label == "p99" { bench.judge(figure, Must::AtMost(SLOWER)) } else { figure });
        }
    }
    figures
}
