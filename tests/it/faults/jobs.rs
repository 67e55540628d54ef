//! An engine dies in the middle of a bulk job: nothing is done twice, nothing is left out.

use std::collections::BTreeSet;
use std::time::Duration;

use helve::db::Pool;
use helve_postgres::Database;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::process::EngineProcess;
use crate::support::{Http, Worker, fresh_database, hello, provision, sql, until_within};

const VARIABLE: &str = "HELVE_FAILPOINTS";
const LIMIT: Duration = Duration::from_secs(30);
/// More than two pieces of a job.
const RUNS: usize = 200;

struct Rig {
    database: String,
    engine: EngineProcess,
    token: String,
}

impl Rig {
    async fn start(optimistic: bool) -> Self {
        let database = fresh_database().await;
        let pool = Pool::new(&Database::at(&database)).unwrap();
        let (_, token) = provision(&pool, "jobs").await;
        let optimistic = if optimistic { "on" } else { "off" };
        let engine = EngineProcess::start(&database, &[("HELVE_SCHEDULING_OPTIMISTIC", optimistic)]).await;
        let rig = Self { database, engine, token };
        let definition = json!({"tasks": [{"name": "work"}]});
        assert_eq!(rig.http().put("/v1/workflows/work", definition).await.0, 200);
        rig
    }

    fn http(&self) -> Http {
        Http::new(&self.engine.url, Some(&self.token))
    }

    async fn trigger(&self) {
        let runs: Vec<Value> = (0..RUNS).map(|i| json!({"workflow": "work", "input": i})).collect();
        assert_eq!(self.http().post("/v1/runs/bulk", json!({"runs": runs})).await.0, 200);
    }

    /// The next engine dies, or stands still, at this failpoint.
    async fn arm(&mut self, failpoint: &str) {
        self.engine.stop().await;
        self.engine.set(VARIABLE, failpoint);
        self.engine.restart().await;
    }

    async fn job(&self, body: Value) -> String {
        let (status, job) = self.http().post("/v1/jobs", body).await;
        assert_eq!(status, 201, "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    async fn died(&mut self) {
        let ended = self.engine.ended().await;
        assert_eq!(ended.code(), Some(137), "{ended}");
        self.engine.set(VARIABLE, "");
        self.engine.restart().await;
    }

    async fn finished(&self, job: &str) -> Value {
        let path = format!("/v1/jobs/{job}");
        let http = self.http();
        until_within(&format!("{job} has finished"), LIMIT, || async {
            let (_, job) = http.get(&path).await;
            (job["status"] == "finished").then_some(job)
        })
        .await
    }
}

/// Every run of the table as text, with how it stands.
async fn count(database: &str, query: &str) -> i64 {
    sql(database).await.query_one(query, &[]).await.unwrap().get(0)
}

async fn replays(failpoint: &str, optimistic: bool) {
    let mut rig = Rig::start(optimistic).await;
    rig.trigger().await;
    let cancel = rig.job(json!({"kind": "cancel", "filter": {"workflow": "work"}})).await;
    rig.finished(&cancel).await;
    rig.arm(failpoint).await;
    let job = rig.job(json!({"kind": "replay", "filter": {"status": ["cancelled"]}})).await;
    rig.died().await;
    let job_after = rig.finished(&job).await;
    let runs = i64::try_from(RUNS).unwrap();
    assert_eq!((&job_after["total"], &job_after["done"]), (&json!(runs), &json!(runs)), "{failpoint}: {job_after}");
    // Each run has exactly one replay, and it is the one that the job names.
    let db = &rig.database;
    let of = "select count(distinct replay_of) from open_run where replay_of is not null";
    assert_eq!(count(db, of).await, runs, "{failpoint}: left out");
    assert_eq!(
        count(db, "select count(*) from open_run where replay_of is not null").await,
        runs,
        "{failpoint}: twice"
    );
    let named = "select count(*) from job_item i join open_run r on r.id = i.replay and r.replay_of = i.run";
    assert_eq!(count(db, named).await, runs, "{failpoint}: not named");
}

async fn cancels(failpoint: &str, optimistic: bool) {
    let mut rig = Rig::start(optimistic).await;
    rig.trigger().await;
    rig.arm(failpoint).await;
    // Some are in a worker's hands.
    let worker = Worker::connect(&rig.engine.url, &rig.token, hello("w", &["work"], 3)).await;
    let job = rig.job(json!({"kind": "cancel", "filter": {"workflow": "work"}})).await;
    rig.died().await;
    drop(worker);
    let job = rig.finished(&job).await;
    let runs = i64::try_from(RUNS).unwrap();
    assert_eq!(
        (&job["total"], &job["done"], &job["skipped"]),
        (&json!(runs), &json!(runs), &json!(0)),
        "{failpoint}: {job}"
    );
    let db = &rig.database;
    assert_eq!(count(db, "select count(*) from open_run").await, 0, "{failpoint}");
    assert_eq!(count(db, "select count(*) from run_history where state = 12").await, runs, "{failpoint}");
    assert_eq!(count(db, "select count(*) from job_item where outcome = 0").await, runs, "{failpoint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn a_replay_job_survives_its_engine() {
    replays("job.picked=exit@2", true).await;
    replays("job.acted=exit@2", false).await;
    // Between two commits of one piece: some of it is done, some is not.
    replays("lane.create.after_send=exit@3", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn a_cancel_job_survives_its_engine() {
    cancels("job.picked=exit@1", false).await;
    cancels("job.acted=exit@2", true).await;
    cancels("lane.finish.after_send=exit@5", true).await;
}

/// An engine stands still in the middle of a piece, another takes its shards and the job; the first comes back with
/// what it had in its hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_with_the_next_engine() {
    let mut rig = Rig::start(true).await;
    rig.trigger().await;
    let cancel = rig.job(json!({"kind": "cancel", "filter": {"workflow": "work"}})).await;
    rig.finished(&cancel).await;
    let job = rig.job(json!({"kind": "replay", "filter": {"status": ["cancelled"]}})).await;
    let http = rig.http();
    until_within("it has begun", LIMIT, || async {
        (http.get(&format!("/v1/jobs/{job}")).await.1["done"].as_i64() > Some(0)).then_some(())
    })
    .await;
    rig.engine.signal(Signal::SIGSTOP);
    let mut other = rig.engine.twin().await;
    rig.engine.signal(Signal::SIGCONT);
    let next = Http::new(&other.url, Some(&rig.token));
    let ended = until_within("the next engine finishes it", LIMIT, || async {
        let (_, job) = next.get(&format!("/v1/jobs/{job}")).await;
        (job["status"] == "finished").then_some(job)
    })
    .await;
    let runs = i64::try_from(RUNS).unwrap();
    assert_eq!((&ended["total"], &ended["done"]), (&json!(runs), &json!(runs)), "{ended}");
    let rows = sql(&rig.database).await;
    let rows = rows.query("select replay_of::text from open_run where replay_of is not null", &[]).await.unwrap();
    let each: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!((rows.len(), each.len()), (RUNS, RUNS));
    other.stop().await;
    rig.engine.revive().await;
}
