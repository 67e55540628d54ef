//! Tickets: what a page opens its one socket with.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use crate::both_ways;
use crate::support::{Builder, Engine, Http, Worker, hello, until, upgrade};

const PAGE: &str = "https://app.example";
const OTHER: &str = "https://other.example";

fn builder() -> Builder {
    Builder::new().http(|http| http.origins = vec![PAGE.to_owned(), OTHER.to_owned()])
}

fn wanted() -> Value {
    json!({"actions": ["work"], "slots": {"default": 2}, "labels": {"zone": "a"}, "origin": PAGE})
}

/// A fresh ticket of whoever the client is.
async fn ticket(http: &Http) -> String {
    let (status, made) = http.post("/v1/worker/tickets", wanted()).await;
    assert_eq!(status, 201, "{made}");
    made["ticket"].as_str().unwrap().to_owned()
}

/// What a browser sends for `new WebSocket(url, ["helve.v1", ticket])` on a page of `origin`.
fn page(engine: &Engine, ticket: Option<&str>, origin: Option<&str>) -> Request {
    let mut request = upgrade(&engine.url, None);
    let headers = request.headers_mut();
    let offer = ticket.map_or("helve.v1".to_owned(), |ticket| format!("helve.v1, {ticket}"));
    headers.insert("sec-websocket-protocol", offer.parse().unwrap());
    if let Some(origin) = origin {
        headers.insert("origin", origin.parse().unwrap());
    }
    request
}

async fn open(request: Request) -> Worker {
    let (socket, answer) = connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "helve.v1", "the ticket is never echoed");
    Worker { socket, welcome: Value::Null }
}

/// Status and code of a refused upgrade.
async fn refused(request: Request) -> (u16, String) {
    match connect_async(request).await {
        Err(Error::Http(answer)) => {
            let problem: Value = serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
            (answer.status().as_u16(), problem["code"].as_str().unwrap().to_owned())
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A worker of a page, greeted.
async fn worker(engine: &Engine) -> Worker {
    let ticket = ticket(&engine.client()).await;
    let mut worker = open(page(engine, Some(&ticket), Some(PAGE))).await;
    worker.send(hello("page", &["work"], 2)).await;
    worker.welcome = worker.expect("welcome").await;
    worker
}

fn with(mut frame: Value, changes: Value) -> Value {
    frame.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    frame
}

both_ways! {
    with builder();
    async fn a_page_works_and_comes_back_with_a_fresh_ticket(engine) {
        engine.workflow("work").await;
        let mut first = worker(&engine).await;
        let run = engine.trigger("work", json!(1)).await;
        let task = first.task().await;
        let resume = first.resume(&[&task]);
        drop(first);
        let ticket = ticket(&engine.client()).await;
        let mut again = open(page(&engine, Some(&ticket), Some(PAGE))).await;
        again.send(with(hello("page", &["work"], 2), json!({"resume": resume, "labels": {"zone": "a"}}))).await;
        let welcome = again.expect("welcome").await;
        assert_eq!((&welcome["resumed"], &welcome["superseded"]), (&json!(true), &json!([])));
        again.finish(&task, json!(2)).await;
        let run = engine.run_is(&run["id"], "succeeded").await;
        assert_eq!((&run["attempt"], &run["output"]), (&json!(1), &json!(2)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_one_socket_whoever_races_for_it() {
    let engine = builder().start().await;
    for _ in 0..5 {
        let ticket = ticket(&engine.client()).await;
        let tries = (0..8).map(|_| connect_async(page(&engine, Some(&ticket), Some(PAGE))));
        let opened = join_all(tries).await.into_iter().filter(|result| match result {
            Ok(_) => true,
            Err(Error::Http(answer)) => {
                assert_eq!(answer.status().as_u16(), 401);
                false
            }
            Err(other) => panic!("{other}"),
        });
        assert_eq!(opened.count(), 1);
        let used = (401, "unauthenticated".to_owned());
        assert_eq!(refused(page(&engine, Some(&ticket), Some(PAGE))).await, used);
    }
    assert_eq!(engine.sql().await.query("select from ticket", &[]).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_for_its_page_alone() {
    let engine = builder().start().await;
    let ticket = ticket(&engine.client()).await;
    let elsewhere = (403, "origin_not_allowed".to_owned());
    for origin in [None, Some(OTHER), Some("null"), Some("https://app.example.evil")] {
        assert_eq!(refused(page(&engine, Some(&ticket), origin)).await, elsewhere, "{origin:?}");
    }
    // A refusal has not used it up.
    open(page(&engine, Some(&ticket), Some(PAGE))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_ticket_opens_nothing() {
    let engine = builder().start().await;
    let unknown = helve::ops::secret::generate(helve::ops::tickets::PREFIX).unwrap();
    let good = ticket(&engine.client()).await;
    let mistyped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('a') { 'b' } else { 'a' });
    for text in [unknown.reveal(), &mistyped, "helve.ticket.", "helve.ticket.x", &format!("{good}0")] {
        let refusal = refused(page(&engine, Some(text), Some(PAGE))).await;
        assert_eq!(refusal, (401, "unauthenticated".to_owned()), "{text}");
    }
    let two = format!("{good}, {}", unknown.reveal());
    assert_eq!(refused(page(&engine, Some(&two), Some(PAGE))).await, (400, "malformed".to_owned()));
    let mut both = page(&engine, Some(&good), Some(PAGE));
    both.headers_mut().insert("authorization", format!("Bearer {}", engine.token).parse().unwrap());
    assert_eq!(refused(both).await, (400, "malformed".to_owned()));
    let mut alone = page(&engine, Some(&good), Some(PAGE));
    alone.headers_mut().insert("sec-websocket-protocol", good.parse().unwrap());
    assert_eq!(refused(alone).await, (400, "unsupported_protocol".to_owned()));
    // A ticket is no token, and a token no ticket.
    assert_eq!(engine.with_token(Some(&good)).get("/v1/runs").await.0, 401);
    assert_eq!(refused(upgrade(&engine.url, Some(&good))).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_ends_by_itself_and_with_its_token() {
    let engine = builder().start().await;
    let (sql, late) = (engine.sql().await, ticket(&engine.client()).await);
    sql.batch_execute("update ticket set expires_at = now() - interval '1 ms'").await.unwrap();
    let over = (401, "unauthenticated".to_owned());
    assert_eq!(refused(page(&engine, Some(&late), Some(PAGE))).await, over);
    // The next one takes its row away.
    let token = engine.token_with("worker").await;
    let (unused, used) =
        (ticket(&engine.with_token(Some(&token))).await, ticket(&engine.with_token(Some(&token))).await);
    assert_eq!(sql.query("select from ticket", &[]).await.unwrap().len(), 2);
    let mut worker = open(page(&engine, Some(&used), Some(PAGE))).await;
    worker.send(hello("page", &["work"], 1)).await;
    worker.expect("welcome").await;
    sql.batch_execute("update token set revoked_at = now() where id = (select token from ticket)").await.unwrap();
    assert_eq!(refused(page(&engine, Some(&unused), Some(PAGE))).await, over);
    let closed = tokio::time::timeout(Duration::from_secs(6), worker.closed()).await;
    assert_eq!(closed.expect("within 5 s"), 4401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_never_more_than_its_ticket_allows() {
    let engine = builder().start().await;
    let task = json!([{"name": "w", "tasks": [{"name": "work"}]}]);
    for (changes, pointer) in [
        (json!({"actions": ["work", "more"]}), "/actions"),
        (json!({"slots": {"default": 3}}), "/slots/default"),
        (json!({"slots": {"default": 1, "gpu": 1}}), "/slots/gpu"),
        (json!({"labels": {"zone": "b"}}), "/labels/zone"),
        (json!({"labels": {"other": "a"}}), "/labels/other"),
        (json!({ "workflows": task }), "/workflows"),
    ] {
        let ticket = ticket(&engine.client()).await;
        let mut worker = open(page(&engine, Some(&ticket), Some(PAGE))).await;
        worker.send(with(hello("page", &["work"], 2), changes.clone())).await;
        let error = worker.expect("error").await;
        assert_eq!((&error["code"], &error["pointer"]), (&json!("forbidden"), &json!(pointer)), "{changes}");
        assert_eq!(worker.closed().await, 4403);
    }
    assert_eq!(engine.get("/v1/workers").await.1["items"], json!([]));
    for (less, more, pointer) in [
        (json!({"type": "capacity", "slots": {"default": 1}}), json!({"slots": {"default": 3}}), "/slots/default"),
        (json!({"type": "labels", "labels": {"zone": "a"}}), json!({"labels": {"zone": "b"}}), "/labels/zone"),
    ] {
        let mut worker = worker(&engine).await;
        worker.send(less.clone()).await;
        worker.send(with(less, more)).await;
        assert_eq!(worker.expect("error").await["pointer"], pointer);
        assert_eq!(worker.closed().await, 4403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_gives_the_work_of_its_tenant_alone() {
    let engine = builder().start().await;
    engine.workflow("work").await;
    let other = engine.second_tenant().await;
    let first = ticket(&other).await;
    let mut worker = open(page(&engine, Some(&first), Some(PAGE))).await;
    worker.send(hello("page", &["work"], 2)).await;
    let welcome = worker.expect("welcome").await;
    let run = engine.trigger("work", json!(1)).await;
    assert_eq!(run["status"], "queued", "the only worker is another tenant's");
    assert_eq!(engine.get("/v1/workers").await.1["items"], json!([]));
    // Nor does its session become that of another tenant's ticket.
    let resume = json!({"session": welcome["session"], "secret": welcome["secret"], "holding": []});
    let mine = ticket(&engine.client()).await;
    let mut thief = open(page(&engine, Some(&mine), Some(PAGE))).await;
    thief.send(with(hello("page", &["work"], 2), json!({ "resume": resume }))).await;
    assert_eq!(thief.expect("welcome").await["resumed"], false);
    assert_eq!(thief.task().await["task_run"], run["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_frame_may_bring_the_ticket() {
    let engine = builder().start().await;
    let good = ticket(&engine.client()).await;
    let mut worker = open(page(&engine, None, Some(PAGE))).await;
    worker.send(with(hello("page", &["work"], 2), json!({ "ticket": good }))).await;
    worker.expect("welcome").await;
    worker.goodbye().await;
    for (origin, changes, code, close) in [
        (PAGE, json!({ "ticket": good }), "unauthenticated", 4401),
        (PAGE, json!({"ticket": "helve.ticket.x"}), "unauthenticated", 4401),
        (PAGE, json!({}), "unauthenticated", 4401),
        (PAGE, json!({"ticket": 1}), "bad_frame", 4400),
        (OTHER, json!({"ticket": ticket(&engine.client()).await}), "origin_not_allowed", 4403),
        (PAGE, json!({"ticket": ticket(&engine.client()).await, "actions": ["more"]}), "forbidden", 4403),
    ] {
        let mut worker = open(page(&engine, None, Some(origin))).await;
        worker.send(with(hello("page", &["work"], 2), changes.clone())).await;
        assert_eq!(worker.expect("error").await["code"], code, "{changes}");
        assert_eq!(worker.closed().await, close, "{changes}");
    }
    // One that came by a token needs none.
    let mut known = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
    known.send(with(hello("w", &["work"], 2), json!({"ticket": ticket(&engine.client()).await}))).await;
    assert_eq!(known.expect("error").await["pointer"], "/ticket");
    assert_eq!(known.closed().await, 4400);
    assert_eq!(refused(page(&engine, None, Some("https://evil.example"))).await.0, 403);
    assert_eq!(refused(page(&engine, None, None)).await.0, 401);
    let mut silent = open(page(&engine, None, Some(PAGE))).await;
    assert_eq!(silent.closed().await, 4408);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_tickets_are_counted_with_the_others() {
    let engine = builder().http(|http| http.sockets_per_tenant = 1).start().await;
    let first = worker(&engine).await;
    let ticketed = ticket(&engine.client()).await;
    assert_eq!(open(page(&engine, Some(&ticketed), Some(PAGE))).await.closed().await, 4429);
    let mut late = open(page(&engine, None, Some(PAGE))).await;
    late.send(with(hello("page", &["work"], 1), json!({"ticket": ticket(&engine.client()).await}))).await;
    assert_eq!(late.closed().await, 4429);
    first.goodbye().await;
    until("the place is free", || async {
        let ticket = ticket(&engine.client()).await;
        let mut next = open(page(&engine, Some(&ticket), Some(PAGE))).await;
        next.send(hello("page", &["work"], 1)).await;
        let incoming = next.incoming(crate::support::worker::FRAME).await;
        matches!(incoming, crate::support::Incoming::Frame(frame) if frame["type"] == "welcome").then_some(())
    })
    .await;
}
