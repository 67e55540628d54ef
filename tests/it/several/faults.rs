//! Engines die or stand still while they own, or pass on, what clients and workers are busy with.

use std::time::Duration;

use helve::db::Pool;
use helve_domain::clock::Clock;
use helve_postgres::Database;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::process::EngineProcess;
use crate::support::{Http, Incoming, NoResponse, Worker, fresh_database, hello, provision, sql, until_within};

/// G9: after the death of an engine work goes on within this time, and a busy machine needs some more.
pub const GOES_ON: Duration = Duration::from_secs(10);
const FAILPOINTS: &str = "HELVE_FAILPOINTS";

/// Two processes, one of which owns the tenant's shard.
pub struct Processes {
    pub owner: EngineProcess,
    pub other: EngineProcess,
    pub token: String,
}

impl Processes {
    /// `points` are failpoints; those of passing on concern only the one that is not the owner.
    async fn start(points: &str) -> Self {
        Self::with(&[(FAILPOINTS, points)]).await
    }

    /// As [`Processes::start`], with any settings.
    pub async fn with(env: &[(&str, &str)]) -> Self {
        let database = fresh_database().await;
        let pool = Pool::new(&Database { pool_size: 1, ..Database::at(&database) }).unwrap();
        let (tenant, token) = provision(&pool, "test").await;
        let first = EngineProcess::start(&database, env).await;
        let second = first.twin().await;
        let client = sql(&database).await;
        let address = until_within("the shards are spread", Duration::from_secs(30), || async {
            let even = "select count(*) from (select 1 from shard where owner is not null group by owner \
                having count(*) = 32) as even";
            if client.query_one(even, &[]).await.unwrap().get::<_, i64>(0) != 2 {
                return None;
            }
            let owner = "select n.address from shard s join node n on n.id = s.owner where s.id = $1";
            client.query_opt(owner, &[&tenant.shard()]).await.unwrap().map(|row| row.get::<_, String>(0))
        })
        .await;
        let first_owns = first.url.ends_with(&address);
        let (owner, other) = if first_owns { (first, second) } else { (second, first) };
        let processes = Self { owner, other, token };
        until_within("the owner takes requests", Duration::from_secs(20), || async {
            let near = processes.owner().try_request("GET", "/v1/workers", &[], "").await.ok()?;
            (near.status == 200).then_some(())
        })
        .await;
        let task = json!({"tasks": [{"name": "a"}]});
        assert_eq!(processes.owner().put("/v1/workflows/a", task).await.0, 200);
        processes
    }

    pub fn owner(&self) -> Http {
        Http::new(&self.owner.url, Some(&self.token))
    }

    pub fn other(&self) -> Http {
        Http::new(&self.other.url, Some(&self.token))
    }

    /// The runs that there are.
    async fn runs(&self) -> usize {
        self.owner().get("/v1/runs").await.1["items"].as_array().unwrap().len()
    }
}

/// Opens a worker's socket as a worker does: again and again until an engine takes it.
pub async fn reconnect(url: &str, token: &str, hello: &Value) -> Worker {
    until_within("an engine takes the worker", GOES_ON, || async {
        let mut worker = Worker::open(url, Some(token)).await.ok()?;
        worker.send(hello.clone()).await;
        match worker.incoming(Duration::from_secs(5)).await {
            Incoming::Frame(frame) if frame["type"] == "welcome" => {
                worker.welcome = frame;
                Some(worker)
            }
            _ => None,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_dies_under_a_worker_that_came_by_another_engine() {
    let (mut processes, clock) = (Processes::start("").await, Clock::system());
    let other = processes.other();
    let mut worker = Worker::connect(&processes.other.url, &processes.token, hello("w", &["a"], 1)).await;
    let run = other.post("/v1/runs", json!({"workflow": "a"})).await.1;
    let task = worker.task().await;
    processes.owner.kill9();
    let died = clock.instant();
    assert!(matches!(worker.incoming(Duration::from_secs(5)).await, Incoming::Broken(_)));
    // Reads go on, and nothing hangs: a refusal says that nothing was done, or that nobody knows.
    let path = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    assert_eq!(other.get(&path).await.1["status"], "running");
    until_within("triggers are taken again", GOES_ON, || async {
        let asked = clock.instant();
        let (status, answer) = other.post("/v1/runs", json!({"workflow": "a"})).await;
        assert!(status == 201 || status == 503, "{status} {answer}");
        assert!(
            clock.instant().duration_since(asked) < Duration::from_secs(8),
            "{:?}",
            clock.instant().duration_since(asked)
        );
        (status == 201).then_some(())
    })
    .await;
    let mut greeting = hello("w", &["a"], 1);
    greeting["resume"] = worker.resume(&[&task]);
    let mut again = reconnect(&processes.other.url, &processes.token, &greeting).await;
    assert!(clock.instant().duration_since(died) < GOES_ON, "{:?}", clock.instant().duration_since(died));
    assert_eq!(again.welcome["resumed"], true);
    again.report(&task, json!({"outcome": "succeeded", "output": 1})).await;
    again.stored(&task).await;
    let ended = other.get(&path).await.1;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("succeeded"), &json!(1)), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_on_the_way_dies_under_a_worker() {
    let mut processes = Processes::start("").await;
    let owner = processes.owner();
    let mut worker = Worker::connect(&processes.other.url, &processes.token, hello("w", &["a"], 1)).await;
    let run = owner.post("/v1/runs", json!({"workflow": "a"})).await.1;
    let task = worker.task().await;
    processes.other.kill9();
    assert!(matches!(worker.incoming(Duration::from_secs(5)).await, Incoming::Broken(_)));
    let mut greeting = hello("w", &["a"], 1);
    greeting["resume"] = worker.resume(&[&task]);
    let mut again = reconnect(&processes.owner.url, &processes.token, &greeting).await;
    assert_eq!(again.welcome["resumed"], true);
    again.finish(&task, json!(1)).await;
    let ended = owner.get(&format!("/v1/runs/{}", run["id"].as_str().unwrap())).await.1;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("succeeded"), &json!(1)), "{ended}");
}

/// The owner stands still for longer than its lease: the next one serves what comes by any engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_stands_still_is_replaced() {
    let processes = Processes::start("").await;
    let other = processes.other();
    processes.owner.signal(Signal::SIGSTOP);
    until_within("triggers are taken again", Duration::from_secs(30), || async {
        // Those that were sent to the one that stands still must not be taken for refused.
        let body = json!({"workflow": "a"}).to_string();
        let impatient = Http { limit: Duration::from_secs(2), ..other.clone() };
        let answer = impatient.try_request("POST", "/v1/runs", &[("idempotency-key", "k")], body).await.ok()?;
        (answer.status == 201 || answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(other.get("/v1/runs").await.1["items"].as_array().unwrap().len(), 1, "one key, one run");
    processes.owner.signal(Signal::SIGCONT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_sent_is_not_done() {
    let mut processes = Processes::start("forward.before_send=exit@1").await;
    let body = json!({"workflow": "a"}).to_string();
    let answer = processes.other().try_request("POST", "/v1/runs", &[], body).await;
    assert!(matches!(answer, Err(NoResponse::Unknown(_))), "{answer:?}");
    assert_eq!(processes.other.ended().await.code(), Some(137));
    assert_eq!(processes.runs().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_done_once_though_the_answer_is_lost_with_its_engine() {
    let mut processes = Processes::start("forward.after_answer=exit@1").await;
    let body = json!({"workflow": "a"}).to_string();
    let key = [("idempotency-key", "k")];
    let answer = processes.other().try_request("POST", "/v1/runs", &key, body.clone()).await;
    assert!(matches!(answer, Err(NoResponse::Unknown(_))), "{answer:?}");
    assert_eq!(processes.other.ended().await.code(), Some(137));
    assert_eq!(processes.runs().await, 1);
    assert_eq!(processes.owner().request("POST", "/v1/runs", &key, body).await.status, 200);
    assert_eq!(processes.runs().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again_only_where_that_is_safe() {
    let processes = Processes::start("forward.after_answer=error@1;forward.after_answer=error@2").await;
    let other = processes.other();
    let (status, problem) = other.post("/v1/runs", json!({"workflow": "a"})).await;
    assert_eq!((status, &problem["code"]), (503, &json!("outcome_unknown")));
    assert_eq!(processes.runs().await, 1, "it was done, and the answer says that nobody knows");
    let key = [("idempotency-key", "k")];
    let (status, run) = other.post_with("/v1/runs", &key, json!({"workflow": "a"})).await;
    assert_eq!((status, run["workflow"].as_str()), (200, Some("a")), "found again under its key");
    assert_eq!(processes.runs().await, 2);
}
