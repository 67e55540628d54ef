//! An engine process under load, with its ledger: what every fault test has in common.

use std::time::Duration;

use super::ledger::{Kind, Ledger, Plan};
use super::load::{ACTION, Load, register};
use super::oracle::{Report, Terms, judge};
use super::store;
use super::worker::{LoadWorker, Order};
use crate::support::process::EngineProcess;
use crate::support::{Http, provision, until_within};
use helve::config::Database;
use helve::db::Pool;
use serde_json::json;

/// The grace of a lost worker, in the engine of these tests.
pub const GRACE: Duration = Duration::from_secs(3);
/// The silence after which a worker counts as lost.
pub const SILENCE: Duration = Duration::from_secs(4);
/// How long the repair of a fault may touch further runs: a confirmation that does not come (6 s), or silence
/// and grace, and a slow machine.
pub const REPAIR: Duration = Duration::from_secs(10);
/// How long the work may take to come to its end after the last fault.
const QUIET: Duration = Duration::from_secs(60);
/// Slots of each worker.
const SLOTS: u32 = 8;

/// An engine, its load and what is known of both.
pub struct Rig {
    /// The engine.
    pub engine: EngineProcess,
    /// The facts.
    pub ledger: Ledger,
    /// The workers, to be told to misbehave.
    pub workers: Vec<LoadWorker>,
    http: Http,
    token: String,
    /// The database itself, not through a proxy.
    database: String,
    load: Load,
    hired: u32,
}

impl Rig {
    /// Starts an engine on the migrated database at `database`, which it reaches by `through`; workers and clients.
    pub async fn start(optimistic: bool, database: &str, through: &str) -> Self {
        let millis = |d: Duration| format!("{}ms", d.as_millis());
        let env = [
            ("HELVE_SCHEDULING_OPTIMISTIC", if optimistic { "on" } else { "off" }),
            ("HELVE_SCHEDULING_GRACE", &millis(GRACE)),
            ("HELVE_SCHEDULING_SILENCE", &millis(SILENCE)),
            ("HELVE_SCHEDULING_HEARTBEAT", "1s"),
            ("HELVE_HTTP_DRAIN", "2s"),
        ];
        let pool = Pool::new(&Database { pool_size: 1, ..Database::at(database) }).unwrap();
        let (_, token) = provision(&pool, "load").await;
        let engine = EngineProcess::start(through, &env).await;
        let http = Http::new(&engine.url, Some(&token));
        register(&http).await;
        let ledger = Ledger::new();
        let load = Load::start(&http, &ledger, 10, Duration::from_millis(15));
        let database = database.to_owned();
        let mut rig = Self { engine, ledger, workers: Vec::new(), http, token, database, load, hired: 0 };
        for _ in 0..3 {
            rig.hire();
        }
        rig.progress(50).await;
        rig
    }

    /// Starts one more worker.
    pub fn hire(&mut self) {
        self.hired += 1;
        let name = format!("w{}", self.hired);
        self.workers.push(LoadWorker::start(&self.engine.url, &self.token, &self.ledger, &name, SLOTS));
    }

    /// Waits until so many more results were confirmed: the work goes on.
    pub async fn progress(&self, results: usize) {
        let confirmed = || self.ledger.facts().stored.len();
        let goal = confirmed() + results;
        until_within(&format!("{results} more results"), Duration::from_secs(40), || {
            std::future::ready((confirmed() >= goal).then_some(()))
        })
        .await;
    }

    /// Ends everything and judges it: nothing may be found, and each fault must have happened so often.
    pub async fn finish(self, faults: &[(&'static str, u32)]) -> Report {
        let report = self.end().await.judge(faults).await;
        report.assert_clean();
        report
    }

    /// Ends the load, waits until everything has ended, fills every slot once, and stops workers and engine.
    pub async fn end(mut self) -> End {
        self.load.finish().await;
        let slots = u32::try_from(self.workers.len()).unwrap() * SLOTS;
        quiet(&self.database, &self.engine).await;
        probe(&self.ledger, &self.http, slots).await;
        quiet(&self.database, &self.engine).await;
        for worker in &self.workers {
            worker.order(Order::Leave).await;
        }
        for worker in self.workers {
            worker.ended().await;
        }
        self.engine.stop().await;
        self.engine.check_log();
        End { ledger: self.ledger, database: self.database }
    }
}

/// What is left of a load.
pub struct End {
    /// The facts.
    pub ledger: Ledger,
    /// Where the store is.
    pub database: String,
}

impl End {
    /// Compares the facts with the store.
    pub async fn judge(&self, faults: &[(&'static str, u32)]) -> Report {
        let terms = Terms { repair: REPAIR, faults: faults.to_vec() };
        let rows = store::rows(&self.database).await;
        judge(&self.ledger.facts(), &rows, &terms)
    }
}

/// Waits until no run is open; what stays is left for the oracle to name.
async fn quiet(database: &str, engine: &EngineProcess) {
    let wait = async {
        loop {
            let open = store::open(database).await;
            if open.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(QUIET, wait).await.is_err() {
        let open = store::open(database).await;
        println!("{} runs do not end:", open.len());
        open.iter().take(20).for_each(|run| println!("    {run}"));
        let log = engine.log();
        let lines: Vec<_> = log.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }
}

/// No slot was lost on the way: as many tasks as there are slots run at once.
async fn probe(ledger: &Ledger, http: &Http, slots: u32) {
    let nonces: Vec<_> = (0..slots).map(|_| ledger.intend(Kind::Plain, Plan::SucceedAfter(0))).collect();
    let items: Vec<_> =
        nonces.iter().map(|n| json!({"workflow": ACTION, "input": {"n": n, "work_ms": 3_000}})).collect();
    let (status, answer) = http.post("/v1/runs/bulk", json!({"runs": items})).await;
    assert_eq!(status, 200, "{answer}");
    let runs: Vec<_> = answer["results"].as_array().unwrap().iter().map(|r| r["run"]["id"].as_str().unwrap()).collect();
    for (nonce, run) in nonces.iter().zip(&runs) {
        ledger.accepted(*nonce, run);
    }
    until_within("every slot of every worker is filled at once", Duration::from_secs(10), || {
        let facts = ledger.facts();
        let busy = runs.iter().filter(|run| {
            let attempts = facts.executions.range(((**run).to_owned(), 0)..=((**run).to_owned(), i64::MAX));
            attempts.flat_map(|(_, all)| all).any(|e| e.until.is_none())
        });
        std::future::ready((busy.count() == runs.len()).then_some(()))
    })
    .await;
}
