//! Clients and workers of an engine, with their ledger; faults are injected by the caller.

use std::time::Duration;

use helve_client::Http;
use helve_domain::error::Result;
use helve_supervisor::Supervisor;
use hyper::StatusCode;
use serde_json::json;

use super::ledger::plays::{ACTION, Play};
use super::ledger::{Kind, Ledger, Plan};
use super::load::{Load, register};
use super::verdict::{Report, Terms, judge};
use super::worker::{LoadWorker, Order};
use super::{failure, store, until};

/// The grace of a lost worker, in the engine under load.
pub const GRACE: Duration = Duration::from_secs(3);
/// The silence after which a worker counts as lost.
pub const SILENCE: Duration = Duration::from_secs(4);
/// How long the repair of a fault may affect further runs: a missing confirmation (6 s), or silence and grace, on a
/// slow machine.
pub const REPAIR: Duration = Duration::from_secs(10);
/// How long the work may take to finish after the last fault.
const QUIET: Duration = Duration::from_secs(60);
/// How long the work may make no progress.
const STILL: Duration = Duration::from_secs(40);
/// Slots of each worker.
const SLOTS: u32 = 8;

/// Settings of the engine under load, with which losses are noticed and repaired quickly.
pub fn settings(optimistic: bool) -> Vec<(String, String)> {
    let millis = |d: Duration| format!("{}ms", d.as_millis());
    let all = [
        ("HELVE_SCHEDULING_OPTIMISTIC", (if optimistic { "on" } else { "off" }).to_owned()),
        ("HELVE_SCHEDULING_GRACE", millis(GRACE)),
        ("HELVE_SCHEDULING_SILENCE", millis(SILENCE)),
        ("HELVE_SCHEDULING_HEARTBEAT", "1s".to_owned()),
        ("HELVE_HTTP_DRAIN", "2s".to_owned()),
    ];
    all.map(|(name, value)| (name.to_owned(), value)).into()
}

/// How much load there is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Clients at once.
    pub clients: u64,
    /// About how long each client waits between two creates.
    pub pause: Duration,
    /// Workers at the start.
    pub workers: u32,
    /// One run in this many is cancelled.
    pub cancels: u64,
    /// The plays that must occur before the load may end.
    pub plays: &'static [Play],
}

impl Default for Size {
    /// As much as a small, busy machine can take in addition.
    fn default() -> Self {
        Self { clients: 10, pause: Duration::from_millis(15), workers: 3, cancels: 30, plays: &Play::ALL }
    }
}

/// Where the load is sent.
#[derive(Debug, Clone)]
pub struct Target {
    /// The engine's URL.
    pub url: String,
    /// A token of a tenant that is used for nothing else.
    pub token: String,
    /// The database itself, not through a proxy.
    pub database: String,
}

/// A load and what is known about it.
pub struct Rig {
    /// The facts.
    pub ledger: Ledger,
    /// The workers, which can be told to misbehave.
    pub workers: Vec<LoadWorker>,
    target: Target,
    http: Http,
    load: Load,
    hired: u32,
    plays: &'static [Play],
    supervisor: Supervisor,
}

impl Rig {
    /// Starts workers and clients, and waits until work is done.
    ///
    /// # Errors
    /// `Internal` if the engine does not respond.
    pub async fn start(target: Target, supervisor: &Supervisor) -> Result<Self> {
        let rig = Self::launch(target, &Size::default(), supervisor).await?;
        rig.progress(50).await?;
        Ok(rig)
    }

    /// Starts workers and clients, and waits for nothing.
    ///
    /// # Errors
    /// `Internal` if the engine refuses the load's workflow.
    pub async fn launch(target: Target, size: &Size, supervisor: &Supervisor) -> Result<Self> {
        let http = Http::new(&target.url, Some(&target.token))?;
        register(&http).await?;
        let ledger = Ledger::new();
        let load = Load::start(&http, &ledger, size, supervisor);
        let supervisor = supervisor.clone();
        let mut rig = Self { ledger, workers: Vec::new(), target, http, load, hired: 0, plays: size.plays, supervisor };
        for _ in 0..size.workers {
            rig.hire();
        }
        Ok(rig)
    }

    /// Starts one more worker.
    pub fn hire(&mut self) {
        self.hired += 1;
        self.workers.push(LoadWorker::start(&self.target, &self.ledger, self.hired, SLOTS, &self.supervisor));
    }

    /// Waits until this many more results were confirmed, which shows progress.
    ///
    /// # Errors
    /// `Internal` if there is no progress.
    pub async fn progress(&self, results: usize) -> Result<()> {
        let confirmed = || self.ledger.facts().stored.len();
        let goal = confirmed() + results;
        let there = || std::future::ready((confirmed() >= goal).then_some(()));
        until(&format!("{results} more results"), STILL, there).await
    }

    /// Waits until every required play has occurred, ends the load, waits until everything has ended, fills every slot
    /// once, and lets the workers go. Plays that do not occur, runs that do not end, and slots that are not filled are
    /// left for the verdict.
    ///
    /// # Errors
    /// `Internal` if the ledger is incomplete.
    pub async fn end(self) -> Result<End> {
        let Self { ledger, workers, target, http, load, plays, supervisor, .. } = self;
        let there = || {
            let played = ledger.facts().played();
            std::future::ready(plays.iter().all(|play| played.get(play).is_some_and(|n| *n > 0)).then_some(()))
        };
        // The verdict says what is missing.
        let _ = until("everything was played", STILL, there).await;
        load.finish().await?;
        let slots = workers.iter().map(|_| SLOTS).sum();
        let end = End { ledger, database: target.database, plays, supervisor };
        end.quiet().await?;
        if let Err(err) = probe(&end.ledger, &http, slots).await {
            end.ledger.surprise(format!("after the load, {slots} tasks for {slots} slots: {err}"));
        }
        end.quiet().await?;
        for worker in &workers {
            worker.order(Order::Leave).await;
        }
        for worker in workers {
            worker.ended().await?;
        }
        Ok(end)
    }
}

/// What remains of a load.
pub struct End {
    /// The facts.
    pub ledger: Ledger,
    /// Where the store is.
    pub database: String,
    plays: &'static [Play],
    supervisor: Supervisor,
}

impl End {
    /// Runs that are neither ended nor parked, with their states.
    ///
    /// # Errors
    /// `Internal` when the store cannot be read.
    pub async fn open(&self) -> Result<Vec<String>> {
        store::open(&self.database, &self.supervisor).await
    }

    /// Compares the facts with the store; each kind of fault must have happened this often, and every required play
    /// must have occurred.
    ///
    /// # Errors
    /// `Internal` when the store cannot be read.
    pub async fn judge(&self, faults: &[(&'static str, u32)]) -> Result<Report> {
        let terms = Terms { repair: REPAIR, faults: faults.to_vec(), plays: self.plays };
        let stored = store::read(&self.database, &self.supervisor).await?;
        Ok(judge(&self.ledger.facts(), &stored, &terms))
    }

    /// Waits until no run is open; what remains open is left for the oracle to report.
    async fn quiet(&self) -> Result<()> {
        let wait = async {
            while !self.open().await?.is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        };
        tokio::time::timeout(QUIET, wait).await.unwrap_or(Ok(()))
    }
}

/// The duration of each of the last tasks.
const WORK: Duration = Duration::from_secs(3);

/// Checks that no slot was lost: as many tasks as there are slots run at once.
async fn probe(ledger: &Ledger, http: &Http, slots: u32) -> Result<()> {
    let nonces: Vec<_> = (0..slots).map(|_| ledger.intend(Kind::Plain, Plan::SucceedAfter(0))).collect();
    let items: Vec<_> =
        nonces.iter().map(|n| json!({"workflow": ACTION, "input": {"n": n, "work_ms": WORK.as_millis()}})).collect();
    let response = http.post("/v1/runs/bulk", json!({"runs": items}).to_string()).await?;
    let answer = super::json(&response.body);
    let results = answer["results"].as_array().map_or(&[][..], Vec::as_slice);
    let runs: Vec<_> = results.iter().filter_map(|r| r["run"]["id"].as_str()).collect();
    for (nonce, run) in nonces.iter().zip(&runs) {
        ledger.accepted(*nonce, run);
    }
    if response.status != StatusCode::OK || runs.len() != nonces.len() {
        return Err(failure(format!("{}: {answer}", response.status)));
    }
    let idle = || {
        let facts = ledger.facts();
        let is_busy = |run: &&&str| {
            let attempts = facts.executions.range(((**run).to_owned(), 0)..=((**run).to_owned(), i64::MAX));
            attempts.flat_map(|(_, all)| all).any(|e| e.until.is_none())
        };
        runs.iter().filter(|run| !is_busy(run)).map(|run| (*run).to_owned()).collect::<Vec<_>>()
    };
    let at_once = || std::future::ready(idle().is_empty().then_some(()));
    // While the tasks that have started are still running, the others can be asked why they wait.
    let soon = until("every slot of every worker is filled", WORK.mul_f64(0.9), at_once).await;
    let Err(err) = soon else { return Ok(()) };
    // With the runs that hold the slots: one that is none of these is what went wrong.
    let mut why = Vec::new();
    for run in idle() {
        let response = http.get(&format!("/v1/runs/{run}/why")).await?;
        let answer = super::json(&response.body);
        for held in answer["details"]["workers"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|w| w["runs"].as_array().into_iter().flatten())
        {
            let run = held.as_str().unwrap_or_default();
            if !runs.contains(&run) {
                let response = http.get(&format!("/v1/runs/{run}")).await?;
                why.push(format!("held by {run}: {}", super::json(&response.body)));
            }
        }
        why.push(format!("{run}: {answer}"));
    }
    let workers = http.get("/v1/workers").await?;
    let workers = String::from_utf8_lossy(&workers.body).into_owned();
    Err(failure(format!("{err}\n{}\n{workers}", why.join("\n"))))
}
