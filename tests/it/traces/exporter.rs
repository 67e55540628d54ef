//! A collector that is slow, gone or lying: runs go on as ever, and what is lost is counted.

use std::time::Duration;

use bytes::Bytes;
use helve_domain::secret::Secret;
use serde_json::json;

use super::{SENT, TRACE, to, trigger};
use crate::support::collector::{Answer, Collector};
use crate::support::{Builder, Engine, until, until_within, worker};

/// The counter of spans with this outcome. The page is made once a second.
async fn counted(engine: &Engine, outcome: &str) -> u64 {
    let page = engine.request("GET", "/metrics", &[], "").await;
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    let name = format!("helve_spans_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect("the family is on the page")
}

/// So many runs from trigger to end, with a limit on the whole.
async fn work(engine: &Engine, runs: usize) {
    engine.workflow("w").await;
    let mut worker = worker(engine, &["w"], 1).await;
    let all = async {
        for n in 0..runs {
            trigger(engine, SENT, json!({"workflow": "w", "input": n})).await;
            let task = worker.task().await;
            assert_eq!(worker.finish(&task, json!(n)).await["status"], "succeeded");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("runs do not wait for a collector");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_does_nothing_or_lies_harms_no_run() {
    for answer in [
        Answer::Silence,
        Answer::Endless,
        Answer::With(400, Vec::new(), Bytes::from_static(b"no")),
        Answer::With(307, vec![("location", "http://127.0.0.1:1/")], Bytes::new()),
        Answer::With(503, vec![("retry-after", "999999999999999999999")], Bytes::new()),
    ] {
        let collector = Collector::start().await;
        collector.answer(answer.clone());
        let builder = Builder::new().traces(to(&collector));
        let engine = builder
            .traces(|traces| {
                traces.timeout = Duration::from_millis(100);
                (traces.queue, traces.batch) = (8, 4);
            })
            .start()
            .await;
        work(&engine, 10).await;
        until("it is asked", || async { (!collector.requests().is_empty()).then_some(()) }).await;
        // 42 spans: what is refused at once is gone as failed, what is to be tried again keeps others out.
        until(&format!("{answer:?} is counted"), || async {
            let lost = counted(&engine, "dropped").await + counted(&engine, "failed").await;
            (lost > 0).then_some(())
        })
        .await;
        assert_eq!(counted(&engine, "exported").await, 0, "{answer:?}");
        let stop = tokio::time::timeout(Duration::from_secs(10), engine.stop()).await;
        assert!(stop.is_ok(), "{answer:?}: the stop waits for no collector");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_collector_at_all_harms_no_run() {
    let gone = Collector::start().await;
    let engine = Builder::new().traces(to(&gone)).traces(|t| (t.queue, t.batch) = (8, 4)).start().await;
    drop(gone);
    work(&engine, 10).await;
    until("drops are counted", || async { (counted(&engine, "dropped").await > 0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_overloaded_collector_did_not_take_comes_again() {
    let collector = Collector::start().await;
    collector.answer(Answer::With(429, vec![("retry-after", "1")], Bytes::new()));
    let engine = Builder::new().traces(to(&collector)).start().await;
    work(&engine, 1).await;
    until("it is asked", || async { (!collector.requests().is_empty()).then_some(()) }).await;
    collector.answer(Answer::ok());
    collector.trace(TRACE, 4).await;
    until("they are counted", || async { (counted(&engine, "exported").await >= 5).then_some(()) }).await;
    assert_eq!((counted(&engine, "dropped").await, counted(&engine, "failed").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_that_a_collector_rejects_are_counted_and_not_sent_again() {
    let collector = Collector::start().await;
    // A partial success: two spans were rejected.
    collector.answer(Answer::With(200, Vec::new(), Bytes::from_static(b"\x0a\x02\x08\x02")));
    let engine = Builder::new().traces(to(&collector)).traces(|t| t.delay = Duration::from_millis(300)).start().await;
    work(&engine, 1).await;
    collector.trace(TRACE, 4).await;
    until("they are counted", || async { (counted(&engine, "failed").await >= 2).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_sends_what_is_left() {
    let collector = Collector::start().await;
    let engine = Builder::new().traces(to(&collector)).traces(|t| t.delay = Duration::from_secs(3_600)).start().await;
    work(&engine, 3).await;
    assert_eq!(collector.spans().len(), 0, "they wait for others");
    engine.stop().await;
    // PUT of the workflow, and four of each run.
    assert_eq!(collector.spans().len(), 13);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_names_are_those_of_the_settings() {
    let collector = Collector::start().await;
    let engine = Builder::new()
        .traces(to(&collector))
        .traces(|traces| {
            traces.headers = vec![("api-key".to_owned(), Secret::new("secret-of-the-collector"))];
            traces.service_name = "orders".to_owned();
            traces.resource = vec![("deployment.environment.name".to_owned(), "prod".to_owned())];
        })
        .start()
        .await;
    work(&engine, 1).await;
    let spans = collector.trace(TRACE, 4).await;
    assert!(spans.iter().all(|span| span.resource["service.name"] == "orders"));
    assert!(spans.iter().all(|span| span.resource["deployment.environment.name"] == "prod"));
    assert!(collector.requests().iter().all(|(_, headers)| headers["api-key"] == "secret-of-the-collector"));
}

/// A thousand runs' worth of spans at once: the channel has room for few, and every one is accounted for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_span_is_counted_once() {
    let collector = Collector::start().await;
    let engine = Builder::new().traces(to(&collector)).traces(|t| (t.queue, t.batch) = (32, 16)).start().await;
    engine.workflow("w").await;
    let mut worker = worker(&engine, &["w"], 200).await;
    let runs: Vec<_> = (0..200).map(|n| json!({"workflow": "w", "input": n})).collect();
    let (status, answer) = engine.post_with("/v1/runs/bulk", &[("traceparent", SENT)], json!({"runs": runs})).await;
    assert!(status < 300, "{answer}");
    let mut left = 200;
    while left > 0 {
        let tasks = worker.find_tasks().await;
        left -= tasks.len();
        worker.succeed(&tasks).await;
    }
    // PUT, POST, and three of each run.
    until_within("all are accounted for", Duration::from_secs(15), || async {
        let (exported, dropped) = (counted(&engine, "exported").await, counted(&engine, "dropped").await);
        (exported + dropped == 602 && exported == collector.spans().len() as u64).then_some(())
    })
    .await;
    assert_eq!(counted(&engine, "failed").await, 0);
}
