//! A whole engine in this process, with its database; clients and the worker are another process, so that only the
//! engine's allocations are counted.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use helve::app::App;
use helve::config::{Config, Http as HttpConfig, Retention, Scheduling, Traces};
use helve::db::{Pool, migrate};
use helve::ops::tokens::NewToken;
use helve::ops::{tenants, tokens};
use helve_client::frames::Task;
use helve_client::{Handler, Http, Options, worker};
use helve_domain::clock::Clock;
use helve_domain::delivery::Outcome;
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::scope::Scopes;
use helve_postgres::Database;
use helve_postgres::cluster::{Cluster, Options as ClusterOptions};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{allocations, each, play};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
/// Runs of a load: twice, so that connections are not in the difference.
const RUNS: (usize, usize) = (512, 4_608);
/// Clients at once.
const CLIENTS: [usize; 2] = [1, 64];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Heap allocations of a run: request, decision, both commits, both frames and the answer.
pub fn measure() -> Vec<(String, f64)> {
    let runtime = runtime();
    let (cluster, app, token) = runtime.block_on(start());
    let url = format!("http://{}", app.address);
    let load = |clients: usize, runs: usize| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["load", &url, &token, &clients.to_string(), &runs.to_string()])
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success(), "the load failed");
    };
    // The first reads definitions and prepares statements.
    load(1, 10);
    let figure = |clients| {
        let plural = if clients == 1 { "" } else { "s" };
        let made = each(RUNS, |runs| allocations(|| load(clients, runs)));
        (format!("engine: a run, {clients} client{plural}"), made)
    };
    let figures = CLIENTS.map(figure).to_vec();
    runtime.block_on(async {
        app.stop().await;
        cluster.stop().await;
    });
    figures
}

async fn start() -> (Cluster, App, String) {
    let options =
        ClusterOptions { durable: false, guard: Some(env!("CARGO_BIN_EXE_helve").into()), ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.unwrap();
    cluster.create_database("counts", None).await.unwrap();
    let database = Database::at(cluster.url("counts"));
    migrate::migrate(&database).await.unwrap();
    let (clock, pool) = (Clock::system(), Pool::new(&Database { pool_size: 2, ..database.clone() }).unwrap());
    let tenant = tenants::ensure(&pool, &clock, "counts").await.unwrap().id;
    let scopes = Scopes::parse("admin").unwrap();
    let new = NewToken { name: "counts".to_owned(), scopes, expires_in: Some(Duration::from_secs(3_600)) };
    let (_, secret) = tokens::create(&pool, &clock, tenant, new).await.unwrap();
    let config = Config {
        database,
        http: HttpConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..HttpConfig::default() },
        limits: Limits::default(),
        scheduling: Scheduling::default(),
        retention: Retention::default(),
        takeover: true,
        traces: Traces::default(),
    };
    let app = App::start(config, clock).await.unwrap();
    let ready = async {
        while !app.is_ready() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("the engine is ready");
    (cluster, app, secret.reveal().to_owned())
}

/// Succeeds with everything at once.
struct Worker<'a>(&'a Notify);

impl Handler for Worker<'_> {
    type Work = Ready<Outcome>;

    fn start(&self, _task: Task) -> Self::Work {
        ready(Outcome::Succeeded(Payload::null()))
    }

    fn connected(&self) {
        self.0.notify_one();
    }
}

/// One worker, and clients that wait for each of their runs.
pub fn load(url: &str, token: &str, clients: usize, runs: usize) {
    runtime().block_on(async { tokio::time::timeout(LIMIT, work(url, token, clients, runs)).await.unwrap() });
}

async fn work(url: &str, token: &str, clients: usize, runs: usize) {
    let http = Http::new(url, Some(token)).unwrap();
    let answer = http.put("/v1/workflows/counts", r#"{"tasks":[{"name":"counts"}]}"#).await.unwrap();
    assert!(answer.status.is_success(), "{}", answer.status);
    let options = Options {
        url: url.to_owned(),
        token: token.to_owned(),
        name: "counts".to_owned(),
        actions: vec!["counts".to_owned()],
        slots: BTreeMap::from([("default".to_owned(), 256)]),
        workflows: Vec::new(),
    };
    let (connected, stop) = (Notify::new(), CancellationToken::new());
    let input = String::from_utf8(play::input().bytes().to_vec()).unwrap();
    let body = format!(r#"{{"workflow":"counts","input":{input}}}"#);
    let client = || async {
        for _ in 0..runs / clients {
            let answer = http.post("/v1/runs?wait=30s", body.clone()).await.unwrap();
            assert!(answer.status.is_success(), "{}", answer.status);
        }
    };
    let all = async {
        connected.notified().await;
        futures_util::future::join_all((0..clients).map(|_| client())).await;
        stop.cancel();
    };
    let (worked, ()) = tokio::join!(worker::run(options, Clock::system(), stop.clone(), Worker(&connected)), all);
    worked.unwrap();
}
