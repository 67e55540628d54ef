//! The cost in counts of a fixed number of runs: counts hardly vary, so they can be limited.

use std::time::Duration;

use bytes::Bytes;
use helve_client::Http;
use helve_domain::error::Result;

use super::fleet::{Fleet, Log, Sent};
use super::load::{bulk, event, note, note_bulk, note_event, single, together};
use super::report::Figure;
use super::{Bench, cost, failure, progress, real};

/// Enough slots that no run waits for one: a single worker, so that the batching of results does not depend on sockets.
const SLOTS: u32 = 256;
/// Runs or events one after the other: enough that housekeeping is below a hundredth.
const ALONE: usize = 1_000;
/// Clients at once, and how many runs each sends.
const CLIENTS: (usize, usize) = (64, 32);
/// Bulk triggers one after the other, and the runs of each.
const BULKS: (usize, usize) = (20, 100);

/// How runs are triggered.
#[derive(Debug, Clone, Copy)]
enum Way {
    Alone,
    Together,
    Bulk,
    Event,
}

impl Way {
    const ALL: [Self; 4] = [Self::Alone, Self::Together, Self::Bulk, Self::Event];

    const fn name(self) -> &'static str {
        match self {
            Self::Alone => "one run at a time",
            Self::Together => "64 clients",
            Self::Bulk => "bulk triggers of 100",
            Self::Event => "one event at a time",
        }
    }

    const fn runs(self) -> usize {
        match self {
            Self::Alone | Self::Event => ALONE,
            Self::Together => CLIENTS.0 * CLIENTS.1,
            Self::Bulk => BULKS.0 * BULKS.1,
        }
    }
}

/// How long the engine's work at its start may continue.
const START_UP: Duration = Duration::from_secs(5);

/// Statements, commits, row changes and WAL per run, on a separate engine: counting statements takes time, and
/// autovacuum's work does not belong to the runs.
pub(super) async fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let settings = [("shared_preload_libraries", "pg_stat_statements"), ("autovacuum", "off")];
    let Some(mut own) = cost::counting_with(bench, &settings).await? else { return Ok(Vec::new()) };
    let workflow = own.workflow("counts").await?;
    let listener = own.listener("counts-event").await?;
    let (log, mut sent, mut figures) = (Log::new(0), Sent::default(), Vec::new());
    let fleets =
        [Fleet::start(&own, &workflow, 1, SLOTS, &log).await?, Fleet::start(&own, &listener, 1, SLOTS, &log).await?];
    settled(&own, &workflow, &log, &mut sent).await?;
    // What an engine does once, at its start (creating weeks, dropping old ones), is not a cost of a run.
    tokio::time::sleep(START_UP).await;
    for way in Way::ALL {
        progress(&format!("{}: {} runs are counted", way.name(), way.runs()));
        let action = if matches!(way, Way::Event) { &listener } else { &workflow };
        figures.extend(count(&own, way, action, &log, &mut sent).await?);
    }
    for fleet in fleets {
        fleet.stop().await?;
    }
    own.ledger.check(&sent, &log);
    bench.take_back(own).await?;
    Ok(figures)
}

/// One way of triggering, counted between two moments at which the server's counters are up to date.
async fn count(own: &Bench, way: Way, workflow: &str, log: &Log, sent: &mut Sent) -> Result<Vec<Figure>> {
    let Some(probe) = &own.probe else { return Ok(Vec::new()) };
    // The first of each kind reads definitions and makes plans.
    ask(own, way, workflow, 1, log, sent).await?;
    settle(own, workflow, log, sent).await?;
    let before = probe.counters().await?;
    probe.count_statements().await?;
    let runs = ask(own, way, workflow, way.runs(), log, sent).await?;
    let statements = probe.statements().await?;
    settle(own, workflow, log, sent).await?;
    let spent = probe.spent(&before).await?;
    let figure = |what: &str, n: f64, of: usize, unit| {
        own.figure(format!("{}: {what} per run", way.name()), n / real(of), unit).detail(format!("{runs} runs"))
    };
    // The run that settles the counters is one more, of which the counters may lag behind.
    let rows = |what: &str, n: i64| figure(what, real(n.max(0)), runs + 1, "rows");
    // Summing the records needs their segments to be still present; otherwise it is an estimate, a percent or two
    // higher.
    let exact = if spent.wal_exact { "without full-page images" } else { "without full-page images, estimated" };
    Ok(vec![
        figure("statements", real(statements.max(0)), runs, "statements"),
        figure("commits", real(spent.commits.max(0)), runs + 1, "commits"),
        rows("rows inserted", spent.rows - spent.updates - spent.deletes),
        rows("rows updated", spent.updates),
        rows("rows deleted", spent.deletes),
        figure("WAL", spent.wal_bytes, runs + 1, "bytes").detail(exact),
    ])
}

async fn settle(own: &Bench, workflow: &str, log: &Log, sent: &mut Sent) -> Result<()> {
    sent.accepted.push(cost::settle(own, workflow).await?);
    log.take(1).await
}

/// The counters of what the engine wrote at its start are also published late: waits for them.
async fn settled(own: &Bench, workflow: &str, log: &Log, sent: &mut Sent) -> Result<()> {
    let Some(probe) = &own.probe else { return Ok(()) };
    for _ in 0..10 {
        let before = probe.counters().await?;
        settle(own, workflow, log, sent).await?;
        settle(own, workflow, log, sent).await?;
        // Two runs and the renewals of the lease.
        if probe.spent(&before).await?.rows < 20 {
            return Ok(());
        }
    }
    Err(failure("the engine does not come to rest: its rows change although nothing is asked of it"))
}

/// Executes `runs` runs, triggered in this way, and waits until all are stored.
async fn ask(own: &Bench, way: Way, workflow: &str, runs: usize, log: &Log, sent: &mut Sent) -> Result<usize> {
    let before = sent.accepted.len();
    match way {
        Way::Alone => sent.merge(one_after_the_other(own.http.clone(), single(workflow), runs).await?),
        Way::Together => {
            let each = runs.div_ceil(CLIENTS.0);
            let client = |_| one_after_the_other(own.http.clone(), single(workflow), each);
            let all = together(&own.supervisor, (0..runs / each).map(client)).await?;
            all.into_iter().for_each(|one| sent.merge(one));
        }
        Way::Bulk => {
            for size in std::iter::repeat_n(runs.min(BULKS.1), runs.div_ceil(BULKS.1)) {
                let answer = own.http.post("/v1/runs/bulk", bulk(workflow, size)).await;
                let accepted = note_bulk(sent, answer, size)?;
                log.take(accepted).await?;
            }
        }
        Way::Event => {
            for _ in 0..runs {
                note_event(sent, own.http.post("/v1/events", event(workflow)).await)?;
                log.take(1).await?;
            }
        }
    }
    let accepted = sent.accepted.len() - before;
    if accepted != runs {
        return Err(failure(format!("{}: {accepted} of {runs} runs were accepted", way.name())));
    }
    if matches!(way, Way::Alone | Way::Together) {
        log.take(accepted).await?;
    }
    Ok(accepted)
}

/// A client that waits for each run.
async fn one_after_the_other(http: Http, body: Bytes, runs: usize) -> Result<Sent> {
    let mut sent = Sent::default();
    for _ in 0..runs {
        note(&mut sent, http.post("/v1/runs?wait=30s", body.clone()).await)?;
    }
    Ok(sent)
}

impl Bench {
    /// Registers a workflow as [`Bench::workflow`] does, which events with its name start.
    async fn listener(&self, row: &str) -> Result<String> {
        self.workflow_on(row, &[format!("bench-{row}-{}", self.nonce)]).await
    }
}
