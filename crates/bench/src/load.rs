//! The clients: what they send and how they take turns.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use helve_client::{Http, Response};
use helve_domain::clock::Clock;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::RunId;
use helve_domain::status::RunStatus;
use helve_supervisor::Supervisor;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::fleet::{Log, Sent};
use super::probe::PAYLOAD;
use super::{Bench, failure};

/// The time before anything is counted: connections are opened, plans and caches made.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

/// Latencies in microseconds, to three digits, up to a minute.
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Result<Self> {
        Histogram::new_with_bounds(1, 60_000_000, 3).map(Self).map_err(|err| failure(err.to_string()))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Milliseconds.
    pub(super) fn percentile(&self, p: f64) -> f64 {
        super::real(self.0.value_at_percentile(p)) / 1_000.0
    }

    /// A summary in a few numbers.
    pub(super) fn distribution(&self) -> Distribution {
        Distribution {
            samples: self.len(),
            p50: self.percentile(50.0),
            p90: self.percentile(90.0),
            p99: self.percentile(99.0),
            p99_9: self.percentile(99.9),
            max: self.percentile(100.0),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn merge(&mut self, other: &Self) -> Result<()> {
        self.0.add(&other.0).map_err(|err| failure(err.to_string()))
    }
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Distribution {
    pub(super) samples: u64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

/// The parts of a run's document that are read.
#[derive(Deserialize)]
struct Accepted {
    id: RunId,
    status: RunStatus,
    attempt: i32,
}

impl Accepted {
    fn is_assigned(&self) -> bool {
        self.status == RunStatus::Running && self.attempt == 1
    }
}

/// A trigger with an input of 200 bytes.
fn trigger(workflow: &str) -> serde_json::Value {
    // {"data":".."} is 11 bytes around the data.
    json!({"workflow": workflow, "input": {"data": "x".repeat(PAYLOAD - 11)}})
}

/// The body of a single trigger.
pub(super) fn single(workflow: &str) -> Bytes {
    trigger(workflow).to_string().into()
}

/// The body of a trigger of `n` runs.
pub(super) fn bulk(workflow: &str, n: usize) -> Bytes {
    json!({"runs": vec![trigger(workflow); n]}).to_string().into()
}

/// The body of an event with this key and a payload of 200 bytes.
pub(super) fn event(key: &str) -> Bytes {
    json!({"key": key, "payload": trigger(key)["input"]}).to_string().into()
}

/// Records the answer to an event: its runs are accepted as those of a trigger are.
pub(super) fn note_event(sent: &mut Sent, answer: Result<Response>) -> Result<()> {
    #[derive(Deserialize)]
    struct Event {
        runs: Vec<RunId>,
    }
    let answer = answer?;
    if !answer.status.is_success() {
        return Err(failure(format!("an event was refused: {}", answer.status)));
    }
    sent.accepted.extend(answer.json::<Event>()?.runs);
    Ok(())
}

/// What is sent at a fixed rate.
#[derive(Clone)]
pub(super) enum Request {
    /// A trigger of one run.
    Trigger(Bytes),
    /// Events, each of which starts one run.
    Events(Arc<Events>),
}

impl Request {
    /// A single trigger of a workflow.
    pub(super) fn trigger(workflow: &str) -> Self {
        Self::Trigger(single(workflow))
    }

    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Trigger(_) => "/v1/runs",
            Self::Events(events) => events.path(),
        }
    }

    /// The body of the request with this number.
    pub(super) fn body(&self, n: u64) -> Bytes {
        match self {
            Self::Trigger(body) => body.clone(),
            Self::Events(events) => events.body(n),
        }
    }

    /// Records an answer; returns how many runs were accepted.
    pub(super) fn note(&self, sent: &mut Sent, answer: Result<Response>) -> Result<usize> {
        match self {
            Self::Trigger(_) => note(sent, answer).map(|run| usize::from(run.is_some())),
            Self::Events(events) => events.note(sent, answer),
        }
    }
}

/// Records the answer to a single trigger; returns the run's id if it was accepted.
pub(super) fn note(sent: &mut Sent, answer: Result<Response>) -> Result<Option<RunId>> {
    match answer {
        Ok(response) if response.status.is_success() => {
            let run: Accepted = response.json()?;
            sent.assigned += u64::from(run.is_assigned());
            sent.accepted.push(run.id);
            Ok(Some(run.id))
        }
        Ok(response) if response.status == StatusCode::UNAUTHORIZED => {
            Err(Error::Unauthenticated("the engine does not know the token"))
        }
        Ok(response) if !is_unknown(&response) => {
            sent.refused += 1;
            Ok(None)
        }
        Ok(_) | Err(Error::OutcomeUnknown) => {
            sent.unanswered += 1;
            Ok(None)
        }
        Err(err) => Err(err),
    }
}

/// Whether the engine itself does not know the outcome of the request.
fn is_unknown(response: &Response) -> bool {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    response.status == StatusCode::SERVICE_UNAVAILABLE
        && response.json::<Problem>().is_ok_and(|problem| problem.code == Code::OutcomeUnknown.as_str())
}

/// Records the answer to a bulk trigger of `n` runs; returns how many were accepted.
pub(super) fn note_bulk(sent: &mut Sent, answer: Result<Response>, n: usize) -> Result<usize> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        run: Option<Accepted>,
    }
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    match answer {
        Ok(response) if response.status.is_success() => {
            let before = sent.accepted.len();
            for run in response.json::<Answer>()?.results.into_iter().filter_map(|item| item.run) {
                sent.assigned += u64::from(run.is_assigned());
                sent.accepted.push(run.id);
            }
            let accepted = sent.accepted.len() - before;
            sent.refused += count(n.saturating_sub(accepted));
            Ok(accepted)
        }
        Ok(response) if !is_unknown(&response) => {
            sent.refused += count(n);
            Ok(0)
        }
        Ok(_) | Err(Error::OutcomeUnknown) => {
            sent.unanswered += count(n);
            Ok(0)
        }
        Err(err) => Err(err),
    }
}

/// Runs all jobs at once, on all threads, and waits for them to end.
pub(super) async fn together<T, J>(supervisor: &Supervisor, jobs: impl IntoIterator<Item = J>) -> Result<Vec<T>>
where
    T: Send + 'static,
    J: Future<Output = Result<T>> + Send + 'static,
{
    let started: Vec<_> = jobs
        .into_iter()
        .map(|job| {
            let (end, ended) = oneshot::channel();
            // After another job has failed, nobody listens.
            supervisor.spawn("bench-client", async move { drop(end.send(job.await)) });
            ended
        })
        .collect();
    let mut out = Vec::new();
    for ended in started {
        out.push(ended.await.map_err(|_| failure("a client died"))??);
    }
    Ok(out)
}

/// The result of a closed loop.
pub(super) struct Loop {
    pub(super) sent: Sent,
    /// Of requests answered within the window.
    pub(super) latencies: Latencies,
}

/// `clients` that each send a trigger with `wait`, and the next one when its run has ended.
pub(super) async fn closed_loop(bench: &Bench, workflow: &str, clients: usize) -> Result<Loop> {
    let from = bench.clock.instant() + WARM_UP;
    let until = from + bench.window;
    let jobs = (0..clients).map(|_| client(bench.http.clone(), bench.clock.clone(), single(workflow), from, until));
    let mut all = Loop { sent: Sent::default(), latencies: Latencies::new()? };
    for one in together(&bench.supervisor, jobs).await? {
        all.sent.merge(one.sent);
        all.latencies.merge(&one.latencies)?;
    }
    Ok(all)
}

/// One client of a closed loop.
pub(super) async fn client(http: Http, clock: Clock, body: Bytes, from: Instant, until: Instant) -> Result<Loop> {
    let mut own = Loop { sent: Sent::default(), latencies: Latencies::new()? };
    let mut start = clock.instant();
    while start < until {
        let answer = http.post("/v1/runs?wait=30s", body.clone()).await;
        let finished = matches!(&answer, Ok(response) if response.status == StatusCode::OK);
        let end = clock.instant();
        if note(&mut own.sent, answer)?.is_none() {
            // Refused: a client that retried at once would measure refusals.
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else if finished && end >= from && end <= until {
            own.latencies.record(end - start);
        }
        start = clock.instant();
    }
    Ok(own)
}

/// Creates `total` runs with bulk triggers of 1,000.
pub(super) async fn fill(bench: &Bench, workflow: &str, total: usize) -> Result<Sent> {
    let sizes: Vec<usize> = (0..total.div_ceil(1_000)).map(|n| (total - n * 1_000).min(1_000)).collect();
    let lanes = 4;
    let jobs = (0..lanes).map(|lane| {
        let sizes = sizes.iter().copied().skip(lane).step_by(lanes).collect();
        batches(bench.http.clone(), workflow.to_owned(), sizes)
    });
    let mut all = Sent::default();
    together(&bench.supervisor, jobs).await?.into_iter().for_each(|sent| all.merge(sent));
    Ok(all)
}

/// Creates `total` runs that start later, one bulk trigger after the other: `when` is a field of a trigger and its
/// value.
pub(super) async fn fill_later(http: &Http, workflow: &str, total: usize, when: (&str, &str)) -> Result<Sent> {
    let mut sent = Sent::default();
    let mut later = trigger(workflow);
    later[when.0] = when.1.into();
    while sent.accepted.len() < total {
        let size = (total - sent.accepted.len()).min(1_000);
        let body = json!({"runs": vec![&later; size]}).to_string();
        if note_bulk(&mut sent, http.post("/v1/runs/bulk", body).await, size)? < size {
            return Err(failure("runs for later were refused"));
        }
    }
    Ok(sent)
}

/// One client's bulk triggers of the given sizes, one after the other.
pub(super) async fn batches(http: Http, workflow: String, sizes: Vec<usize>) -> Result<Sent> {
    let mut sent = Sent::default();
    for size in sizes {
        note_bulk(&mut sent, http.post("/v1/runs/bulk", bulk(&workflow, size)).await, size)?;
    }
    Ok(sent)
}

/// A client that sends bulk triggers of `size` as long as the log has credit for them.
pub(super) async fn flood(
    http: Http,
    workflow: String,
    size: usize,
    log: Arc<Log>,
    stop: CancellationToken,
) -> Result<Sent> {
    let (body, mut sent) = (bulk(&workflow, size), Sent::default());
    loop {
        tokio::select! {
            taken = log.take(size) => taken?,
            () = stop.cancelled() => return Ok(sent),
        }
        if stop.is_cancelled() {
            log.give_back(size);
            return Ok(sent);
        }
        let accepted = note_bulk(&mut sent, http.post("/v1/runs/bulk", body.clone()).await, size)?;
        if accepted < size {
            log.give_back(size - accepted);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_has_200_bytes() {
        let body: serde_json::Value = serde_json::from_slice(&single("w")).unwrap();
        assert_eq!(body["input"].to_string().len(), PAYLOAD);
        let body: serde_json::Value = serde_json::from_slice(&bulk("w", 3)).unwrap();
        assert_eq!(body["runs"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn percentiles_are_milliseconds() {
        let mut latencies = Latencies::new().unwrap();
        (1..=100).for_each(|n| latencies.record(Duration::from_millis(n)));
        assert!((latencies.percentile(50.0) - 50.0).abs() < 0.1, "{}", latencies.percentile(50.0));
        assert!((latencies.percentile(99.0) - 99.0).abs() < 0.1);
        let all = latencies.distribution();
        assert!(all.samples == 100 && all.p90 < all.p99 && all.p99 <= all.p99_9 && all.p99_9 <= all.max, "{all:?}");
    }
}
