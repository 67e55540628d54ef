//! A tenant's share of memory and of connections: past it the tenant is refused, and nobody else; what was held is
//! given back.
#![expect(clippy::disallowed_methods, reason = "a flood is many requests at once")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::both_ways;
use crate::support::{Builder, Engine, Http, Worker, attempt, hello, until, worker};

const MIB: usize = 1 << 20;
/// The share in these tests: four of the largest inputs.
const SHARE: usize = 4 * MIB + 64 * 1_024;

fn small_share() -> Builder {
    Builder::new().limits(|l| (l.body_bytes, l.tenant_bytes) = (2 * MIB, SHARE))
}

fn large(bytes: usize) -> Value {
    json!({"workflow": "work", "input": "x".repeat(bytes)})
}

/// Nothing is held any more, by nobody.
async fn all_given_back(engine: &Engine) {
    until("all memory is given back", || async { (engine.held() == (0, 0)).then_some(()) }).await;
}

/// A request whose body does not come to its end.
async fn half_a_request(http: &Http, path: &str, bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(&http.authority).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
        content-length: {bytes}\r\n\r\n{{",
        http.token.as_ref().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

both_ways! {
    with small_share();
    async fn a_tenant_over_its_share_is_refused_and_another_is_not(engine) {
        engine.workflow("work").await;
        let other = engine.second_tenant().await;
        let task = json!({"tasks": [{"name": "work", "action": "work"}]});
        assert_eq!(other.put("/v1/workflows/work", task).await.0, 200);
        let mut halves = Vec::new();
        for (n, path) in ["/v1/runs", "/v1/runs/bulk", "/v1/events", "/v1/runs"].into_iter().enumerate() {
            halves.push(half_a_request(&engine, path, MIB).await);
            until("it is counted", || async { (engine.held().0 >= (n + 1) * MIB).then_some(()) }).await;
        }
        for (path, body) in [
            ("/v1/runs", large(MIB / 2)),
            ("/v1/runs/bulk", json!({"runs": vec![json!({"workflow": "work"}); 1_000]})),
            ("/v1/events", json!({"key": "k", "payload": "x".repeat(MIB / 2)})),
        ] {
            let refused = engine.request("POST", path, &[], body.to_string()).await;
            assert_eq!((refused.status, refused.header("retry-after")), (429, "1"), "{path}");
            let problem = refused.json();
            assert_eq!(problem["code"], "too_many_requests");
            assert!(problem["detail"].as_str().unwrap().contains(&SHARE.to_string()), "{problem}");
        }
        // Looking is not refused, and to another tenant nothing happened.
        assert_eq!(engine.get("/v1/runs").await.0, 200);
        for bytes in [1, MIB - 100] {
            assert_eq!(other.post("/v1/runs", large(bytes)).await.0, 201);
        }
        drop(halves);
        all_given_back(&engine).await;
        assert_eq!(engine.post("/v1/runs", large(MIB - 100)).await.0, 201);
        all_given_back(&engine).await;
    }
}

/// Sends requests until they are all answered; gives how many were accepted and how many were refused.
async fn flood(http: Http, path: &'static str, body: String, times: usize) -> (usize, usize) {
    let requests = (0..times).map(|_| {
        let (http, body) = (http.clone(), body.clone());
        tokio::spawn(async move { http.request("POST", path, &[], body).await.status })
    });
    let (mut accepted, mut refused) = (0, 0);
    for status in futures_util::future::join_all(requests).await {
        match status.unwrap() {
            200 | 201 => accepted += 1,
            429 => refused += 1,
            other => panic!("{path}: {other}"),
        }
    }
    (accepted, refused)
}

both_ways! {
    with small_share();
    async fn a_flood_of_large_inputs_and_bulks_is_bounded_and_leaves_nothing_behind(engine) {
        engine.workflow("work").await;
        let other = engine.second_tenant().await;
        let task = json!({"tasks": [{"name": "work", "action": "work"}]});
        assert_eq!(other.put("/v1/workflows/work", task).await.0, 200);
        let item = json!({"workflow": "work", "input": "y".repeat(900)});
        let bulk = json!({"runs": vec![item; 1_000]}).to_string();
        let singles = tokio::spawn(flood(engine.client(), "/v1/runs", large(MIB - 100).to_string(), 30));
        let bulks = tokio::spawn(flood(engine.client(), "/v1/runs/bulk", bulk, 10));
        for n in 0..20 {
            let (status, run) = other.post("/v1/runs", json!({"workflow": "work", "input": n})).await;
            assert_eq!(status, 201, "another tenant is not refused: {run}");
        }
        let (singles, bulks) = (singles.await.unwrap(), bulks.await.unwrap());
        println!("large inputs: {} accepted, {} refused; bulks: {} accepted, {} refused", singles.0, singles.1, bulks.0, bulks.1);
        // Which of the two floods gets the share is a matter of who comes first.
        assert!(singles.0 + bulks.0 > 0 && singles.1 + bulks.1 > 0, "{singles:?} {bulks:?}");
        all_given_back(&engine).await;
        assert_eq!(engine.post("/v1/runs", large(MIB - 100)).await.0, 201, "when the flood is over there is room");
        let sql = engine.sql().await;
        let stored: i64 = sql.query_one("select count(*) from open_run", &[]).await.unwrap().get(0);
        assert_eq!(usize::try_from(stored).unwrap(), 21 + singles.0 + bulks.0 * 1_000, "accepted is stored, refused is not");
    }
}

both_ways! {
    with small_share().scheduling(|s| s.grace = Duration::from_millis(200));
    async fn a_large_input_is_held_until_the_worker_has_it_and_a_large_output_until_it_is_stored(engine) {
        engine.workflow("work").await;
        let mut first = Worker::connect(&engine.url, &engine.token, hello("first", &["work"], 1)).await;
        let input = "x".repeat(MIB / 2);
        let run = engine.trigger("work", json!(input)).await;
        let assigned = first.expect("assign").await;
        let task = assigned["tasks"][0].clone();
        if engine.config.scheduling.optimistic {
            assert!(engine.held().0 > MIB / 2, "it may have to be sent again");
        }
        first.send(json!({"type": "received", "tasks": [attempt(&task)]})).await;
        all_given_back(&engine).await;

        // It is lost with its worker: the next one gets the same input, from the rows.
        drop(first);
        let mut second = worker(&engine, &["work"], 1).await;
        let again = second.task().await;
        assert_eq!((&again["run"], &again["attempt"], &again["input"]), (&run["id"], &json!(2), &json!(input)));
        second.finish(&again, json!("y".repeat(MIB / 2))).await;
        all_given_back(&engine).await;

        // Whoever waits for the end gets all of it, though memory had let the input go.
        let waiting = engine.client();
        let body = large(MIB / 2);
        let waiting = tokio::spawn(async move { waiting.post("/v1/runs?wait=30s", body).await });
        let task = second.find_tasks().await.remove(0);
        second.finish(&task, json!("done")).await;
        let (status, ended) = waiting.await.unwrap();
        assert_eq!((status, &ended["status"], &ended["output"]), (200, &json!("succeeded"), &json!("done")));
        assert_eq!(ended["input"].as_str().unwrap().len(), MIB / 2);
        all_given_back(&engine).await;
    }
}

both_ways! {
    with small_share();
    async fn a_worker_of_a_tenant_over_its_share_still_brings_its_results(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 8).await;
        let mut tasks = Vec::new();
        for n in 0..8 {
            engine.trigger("work", json!(n)).await;
            tasks.extend(worker.find_tasks().await);
        }
        let halves = [half_a_request(&engine, "/v1/runs", 2 * MIB).await, half_a_request(&engine, "/v1/runs", 2 * MIB).await];
        until("the share is used up", || async { (engine.held().0 >= 4 * MIB).then_some(()) }).await;
        for task in &tasks {
            worker.finish(task, json!("z".repeat(MIB / 2))).await;
        }
        for task in &tasks {
            assert_eq!(engine.run_is(&task["run"], "succeeded").await["output"].as_str().unwrap().len(), MIB / 2);
        }
        drop(halves);
        all_given_back(&engine).await;
    }
}

/// Ten runs of the tenant whose metadata take the database long to look at, with so many numbers each, and one run that is
/// like any other.
async fn runs_that_are_slow_to_list(engine: &Engine, numbers: i32) -> Value {
    engine.workflow("work").await;
    let usual = engine.trigger("work", json!(1)).await;
    let large = "update open_run set metadata = convert_to('{\"a\":[' || repeat('1,', $2) || '1]}', 'UTF8') \
        where id <> $1::text::uuid";
    for _ in 0..10 {
        engine.trigger("work", json!(2)).await;
    }
    let id = usual["id"].as_str().unwrap().trim_start_matches("run_").to_owned();
    assert_eq!(engine.sql().await.execute(large, &[&id, &numbers]).await.unwrap(), 10);
    usual["id"].clone()
}

const SLOW_LIST: &str = "/v1/runs?metadata=zz=1&limit=1";
/// A read that waits for no list: the machine may be busy with those that run.
const SOON: Duration = Duration::from_secs(2);

/// While one tenant's lists take as long as they may: its own small reads, those of another tenant, and the load
/// balancer's question are answered as ever.
async fn everybody_else_is_served(engine: &Engine, (own, small): (&Value, &Value), other: &Http) {
    let quick = |http: &Http| Http { limit: SOON, ..http.clone() };
    for _ in 0..2 {
        for (http, path) in [
            (quick(other), format!("/v1/runs/{}", small.as_str().unwrap())),
            (quick(other), "/v1/runs".to_owned()),
            (quick(engine), "/readyz".to_owned()),
            (quick(engine), format!("/v1/runs/{}", own.as_str().unwrap())),
        ] {
            let answer = http.request("GET", &path, &[], "").await;
            assert_eq!(answer.status, 200, "{path}: {:?}", answer.json());
        }
        // Longer than an answer of the database counts.
        tokio::time::sleep(Duration::from_millis(1_050)).await;
    }
}

/// Statements of lists that the server is busy with.
async fn lists_underway(client: &tokio_postgres::Client) -> i64 {
    let active = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' \
        and query like 'with page as%'";
    client.query_one(active, &[]).await.unwrap().get(0)
}

/// A list whose client is gone before it is answered; the engine finds out when it looks after the client.
async fn ask_and_leave(http: &Http) {
    let mut stream = TcpStream::connect(&http.authority).await.unwrap();
    let token = http.token.as_ref().unwrap();
    let head = format!("GET {SLOW_LIST} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// A list whose client waits.
async fn ask(http: &Http) {
    let answer = http.request("GET", SLOW_LIST, &[], "").await;
    match answer.status {
        200 => {}
        // Its turn did not come, and it is told so.
        429 => assert_eq!(answer.header("retry-after"), "1"),
        other => panic!("{other}: {:?}", answer.json()),
    }
}

/// Sixty lists at once of one tenant, over and over, by clients that wait for them or do not.
async fn slow_lists_harm_nobody_else(numbers: i32, patient: bool) {
    let engine = Builder::new().start().await;
    let own = runs_that_are_slow_to_list(&engine, numbers).await;
    let other = engine.second_tenant().await;
    let task = json!({"tasks": [{"name": "work", "action": "work"}]});
    assert_eq!(other.put("/v1/workflows/work", task).await.0, 200);
    let (status, small) = other.post("/v1/runs", json!({"workflow": "work"})).await;
    assert_eq!(status, 201, "{small}");
    let client = engine.sql().await;
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let http = Http { limit: Duration::from_secs(20), ..engine.client() };
        floods.spawn(async move {
            loop {
                if patient { ask(&http).await } else { ask_and_leave(&http).await }
            }
        });
    }
    until("the lists run", || async { (lists_underway(&client).await > 0).then_some(()) }).await;
    for _ in 0..4 {
        everybody_else_is_served(&engine, (&own, &small["id"]), &other).await;
        let underway = lists_underway(&client).await;
        assert!(underway <= 2, "{underway} connections of 8 are one tenant's");
    }
    if let Some(ended) = floods.try_join_next() {
        ended.unwrap();
    }
    floods.shutdown().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_lists_of_one_tenant_leave_room_for_everybody_else() {
    slow_lists_harm_nobody_else(1_000_000, true).await;
}

/// The server goes on with a statement when its client is gone: it counts to its end, which comes some seconds later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_lists_that_nobody_waits_for_any_more_are_still_their_tenants() {
    slow_lists_harm_nobody_else(5_000_000, false).await;
}
