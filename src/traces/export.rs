//! The exporter: gathers spans into batches and posts each of them, with patience that has an end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use helve_client::{Http, Response};
use helve_domain::backoff::{self, Backoff};
use helve_domain::clock::Clock;
use helve_domain::error::Result;
use helve_domain::span::Span;
use hyper::Method;
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::otlp;
use super::target::Target;
use crate::config::Traces;
use crate::metrics::Metrics;

/// The first wait after a failure; each further one is twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// How long a batch is tried. Meanwhile the channel fills up, and what finds it full is dropped.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the spans that are left when the engine stops may take, all together.
const FAREWELL: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read: a collector has little to say.
const ANSWER: usize = 64 << 10;

/// What a collector made of a batch.
enum Verdict {
    /// It took it, except for so many spans.
    Taken(u64),
    /// Not now; perhaps it says when.
    Later(&'static str, Option<Duration>),
    /// It will never take it.
    Refused(StatusCode),
}

/// Sends what is finished.
pub struct Exporter {
    http: Http,
    target: Target,
    resource: Resource,
    batch: usize,
    delay: Duration,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// The last batch was not taken: said once.
    failing: bool,
}

impl Exporter {
    pub fn new(target: Target, settings: &Traces, resource: Resource, of: (Clock, Arc<Metrics>)) -> Result<Self> {
        let http = Http::new(&target.base, None)?.limited(settings.timeout, ANSWER);
        let (clock, metrics) = of;
        let (batch, delay) = (settings.batch, settings.delay);
        Ok(Self { http, target, resource, batch, delay, clock, metrics, failing: false })
    }

    /// Sends until the engine stops, and then what is left.
    pub async fn run(mut self, mut finished: mpsc::Receiver<Span>, stopping: CancellationToken) {
        let mut batch = Vec::with_capacity(self.batch);
        while self.gather(&mut batch, &mut finished, &stopping).await {
            self.send(&mut batch, &stopping).await;
        }
        let rest = async {
            loop {
                while batch.len() < self.batch
                    && let Ok(span) = finished.try_recv()
                {
                    batch.push(span);
                }
                if batch.is_empty() {
                    return;
                }
                self.send(&mut batch, &stopping).await;
            }
        };
        let in_time = tokio::time::timeout(FAREWELL, rest).await.is_ok();
        if !in_time {
            let left = batch.len() + finished.len();
            self.metrics.spans.failed.add(left as u64);
            warn!(spans = left, "the collector of traces is too slow for what is left at the stop");
        }
    }

    /// A full batch, or what has come when the first of it has waited long enough. False: the engine stops.
    async fn gather(
        &self,
        batch: &mut Vec<Span>,
        finished: &mut mpsc::Receiver<Span>,
        stopping: &CancellationToken,
    ) -> bool {
        tokio::select! {
            () = stopping.cancelled() => return false,
            n = finished.recv_many(batch, self.batch) => if n == 0 { return false },
        }
        let due = tokio::time::sleep(self.delay);
        tokio::pin!(due);
        while batch.len() < self.batch {
            let room = self.batch - batch.len();
            tokio::select! {
                () = stopping.cancelled() => return false,
                () = &mut due => return true,
                n = finished.recv_many(batch, room) => if n == 0 { return false },
            }
        }
        true
    }

    /// Posts a batch until it is taken, refused, or has been tried for long enough; then it is empty. While the engine
    /// stops there is one try.
    async fn send(&mut self, batch: &mut Vec<Span>, stopping: &CancellationToken) {
        let body = Bytes::from(otlp::request(&self.resource, batch));
        let (since, mut backoff) = (self.clock.instant(), Backoff::new(FIRST_WAIT, LONGEST_WAIT));
        let taken = loop {
            match self.post(body.clone(), stopping).await {
                Verdict::Taken(rejected) => break Ok(rejected.min(batch.len() as u64)),
                Verdict::Refused(status) => break Err(status.canonical_reason().unwrap_or("an unknown status")),
                Verdict::Later(why, after) => {
                    let wait = backoff.next_wait();
                    // Engines that were refused in one instant do not come back in one.
                    let pause = after.unwrap_or_else(|| backoff::jittered(wait, 0.5)).min(LONGEST_WAIT);
                    if self.is_over(since, pause) || stopping.is_cancelled() {
                        break Err(why);
                    }
                    self.say(Err(why));
                    tokio::select! {
                        () = stopping.cancelled() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        };
        let (all, spans) = (batch.len() as u64, &self.metrics.spans);
        let rejected = taken.unwrap_or(all);
        spans.exported.add(all - rejected);
        spans.failed.add(rejected);
        batch.clear();
        self.say(if rejected > 0 { taken.and(Err("spans rejected")) } else { Ok(()) }.map(drop));
    }

    fn is_over(&self, since: Instant, pause: Duration) -> bool {
        self.clock.instant().duration_since(since) + pause > PATIENCE
    }

    async fn post(&self, body: Bytes, stopping: &CancellationToken) -> Verdict {
        let mut headers: Vec<(&str, &str)> =
            self.target.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        headers.push(("content-type", "application/x-protobuf"));
        headers.push(("user-agent", concat!("helve/", env!("CARGO_PKG_VERSION"))));
        let request = self.http.request(Method::POST, &self.target.path, &headers, Some(body));
        // A request that is on its way when the stop begins has the time of the farewell and no more.
        let cut = async {
            stopping.cancelled().await;
            tokio::time::sleep(FAREWELL / 2).await;
        };
        tokio::select! {
            answered = request => match answered {
                Ok(response) => judge(&response),
                Err(_) => Verdict::Later("no answer", None),
            },
            () = cut => Verdict::Later("no answer before the stop", None),
        }
    }

    /// Says when it begins to fail, and when it is well again: not for each batch, and nothing that the collector sent.
    fn say(&mut self, went: Result<(), &str>) {
        let failing = went.is_err();
        if let (Err(why), false) = (went, self.failing) {
            warn!(collector = self.target.base, why, "the collector of traces does not take spans");
        } else if self.failing && !failing {
            info!(collector = self.target.base, "the collector of traces takes spans again");
        }
        self.failing = failing;
    }
}

fn judge(response: &Response) -> Verdict {
    match response.status.as_u16() {
        200..=299 => Verdict::Taken(otlp::rejected(&response.body)),
        429 | 502 | 503 | 504 => {
            let seconds = response.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
            Verdict::Later("it is overloaded", seconds.map(Duration::from_secs))
        }
        _ => Verdict::Refused(response.status),
    }
}
