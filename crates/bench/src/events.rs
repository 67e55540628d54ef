//! Events at a fixed rate, alone and in bulk: how long until each one's task is at the worker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helve_client::Response;
use helve_domain::error::{Error, Result};
use helve_domain::id::RunId;
use serde::Deserialize;
use serde_json::json;

use super::fleet::Sent;
use super::load::{Latencies, Request};
use super::open_loop::{self, Measured, REACHED};
use super::probe::PAYLOAD;
use super::report::{Figure, Must, number};
use super::{Bench, failure, progress, throughput};

/// The required rate.
const RATE: u32 = 1_000;

/// Requests with events that all match one workflow. Each event has an id from its source, as with a real source, which
/// sends an event again if the answer was lost.
pub(super) struct Events {
    key: String,
    source: String,
    /// Events in a request; a single one is pushed alone.
    bulk: u32,
}

#[derive(Deserialize)]
struct Pushed {
    runs: Vec<RunId>,
}

#[derive(Deserialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    event: Option<Pushed>,
}

impl Events {
    pub(super) const fn path(&self) -> &'static str {
        if self.bulk == 1 { "/v1/events" } else { "/v1/events/bulk" }
    }

    pub(super) fn body(&self, n: u64) -> Bytes {
        let event = |number: u64| {
            // {"data":".."} is 11 bytes around the data.
            json!({"key": self.key, "payload": {"data": "x".repeat(PAYLOAD - 11)},
                   "source": self.source, "source_id": number.to_string()})
        };
        let first = n * u64::from(self.bulk);
        if self.bulk == 1 {
            return event(first).to_string().into();
        }
        let all: Vec<_> = (first..first + u64::from(self.bulk)).map(event).collect();
        json!({"events": all}).to_string().into()
    }

    /// Records the run of each accepted event. This row cannot vouch for an event that started none, or several.
    pub(super) fn note(&self, sent: &mut Sent, answer: Result<Response>) -> Result<usize> {
        let events = match answer {
            Ok(response) if response.status.is_success() && self.bulk == 1 => vec![Some(response.json::<Pushed>()?)],
            Ok(response) if response.status.is_success() => {
                response.json::<Outcomes>()?.results.into_iter().map(|outcome| outcome.event).collect()
            }
            Ok(_) => Vec::new(),
            Err(Error::OutcomeUnknown) => {
                sent.unanswered += u64::from(self.bulk);
                return Ok(0);
            }
            Err(err) => return Err(err),
        };
        let mut accepted = 0;
        for Pushed { runs } in events.into_iter().flatten() {
            let [run] = runs[..] else {
                return Err(failure(format!("an event was accepted and has {} runs: it starts one", runs.len())));
            };
            sent.accepted.push(run);
            accepted += 1;
        }
        sent.refused += u64::from(self.bulk).saturating_sub(u64::try_from(accepted).unwrap_or(u64::MAX));
        Ok(accepted)
    }
}

/// The rate, in requests of each size.
pub(super) async fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let key = format!("bench-{}", bench.nonce);
    let workflow = bench.workflow_on("events", &[format!("{key}.*")]).await?;
    let mut floor = Latencies::new()?;
    throughput::floor_for(bench, &mut floor, Duration::from_millis(500)).await?;
    let floor = (floor.len() > 0).then(|| floor.percentile(50.0));
    let mut figures = Vec::new();
    let rate = bench.sizes.event_rate;
    for bulk in bench.sizes.event_bulks.clone() {
        progress(&format!("optimistic {}: {rate} events/s, {}", bench.mode, way(bulk)));
        let events = Events { key: format!("{key}.tick"), source: format!("{key}-{bulk}"), bulk };
        let requests = rate.div_ceil(bulk);
        let measured = open_loop::measure(bench, &workflow, requests, &Request::Events(Arc::new(events))).await?;
        figures.extend(show(bench, bulk, requests * bulk, &measured, floor));
    }
    bench.forget(&workflow).await?;
    Ok(figures)
}

fn way(bulk: u32) -> String {
    if bulk == 1 { "alone".to_owned() } else { format!("in bulks of {}", number(f64::from(bulk))) }
}

fn show(bench: &Bench, bulk: u32, rate: u32, measured: &Measured, floor: Option<f64>) -> Vec<Figure> {
    let Measured { started, answered, rate: came, refused, unsent, generator } = measured;
    let unsent = unsent * u64::from(bulk);
    let reached = unsent == 0 && *refused == 0 && *came >= f64::from(rate) * REACHED;
    let name = |what: &str| format!("{} events/s {}: {what}", number(f64::from(rate)), way(bulk));
    let mut figures = Vec::new();
    for (label, p) in [("p50", 50.0), ("p99", 99.0)] {
        let value = started.percentile(p);
        let mut figure = bench.figure(name(&format!("start latency {label}")), value, "ms").generator(generator);
        if let Some(floor) = floor {
            figure = figure.ratio(value / floor);
        }
        if p < 99.0 {
            let (half, most) = (answered.percentile(50.0), answered.percentile(99.0));
            let detail = format!("{} samples, answered after {half:.2} ms, p99 {most:.2} ms", started.len());
            figure = figure.detail(detail).distribution(started.distribution());
        }
        figures.push(figure);
    }
    let mut figure = bench.figure(name("came to workers"), *came, "runs/s");
    if !reached {
        let (came, rate) = (number(*came), number(f64::from(rate)));
        let missed = format!("NOT REACHED: {came} of {rate}/s, {unsent} were never sent, {refused} refused");
        figure = figure.detail(missed);
    }
    let must = Must::AtLeast(f64::from(RATE) * REACHED);
    figures.push(if rate == RATE { bench.judge(figure, must) } else { figure });
    figures
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Clock;
    use hyper::{HeaderMap, StatusCode};
    use serde_json::Value;

    use super::*;

    fn events(bulk: u32) -> Events {
        Events { key: "bench.tick".to_owned(), source: "bench".to_owned(), bulk }
    }

    fn answered(status: u16, body: &Value) -> Result<Response> {
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Response { status, headers: HeaderMap::new(), body: body.to_string().into() })
    }

    #[test]
    fn each_event_has_an_id_of_its_own_and_200_bytes() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..3 {
            let body: Value = serde_json::from_slice(&events(100).body(n)).unwrap();
            let all = body["events"].as_array().unwrap();
            assert_eq!(all.len(), 100);
            for event in all {
                assert_eq!(event["payload"].to_string().len(), PAYLOAD);
                assert!(seen.insert(event["source_id"].as_str().unwrap().to_owned()));
            }
        }
        let body: Value = serde_json::from_slice(&events(1).body(7)).unwrap();
        assert_eq!(body["source_id"], "7");
    }

    #[test]
    fn accepted_refused_and_lost_ones_are_told_apart() {
        let clock = Clock::system();
        let [a, b] = [(); 2].map(|()| RunId::generate(clock.now()));
        let mut sent = Sent::default();
        let pushed = |run: RunId| json!({"event": {"id": "evt_1", "runs": [run.to_string()]}});
        let some = json!({"results": [pushed(a), {"problem": {}}, pushed(b)]});
        assert_eq!(events(3).note(&mut sent, answered(200, &some)).unwrap(), 2);
        assert_eq!((&sent.accepted, sent.refused), (&vec![a, b], 1));
        assert_eq!(events(3).note(&mut sent, answered(503, &json!({}))).unwrap(), 0);
        assert_eq!(events(3).note(&mut sent, Err(Error::OutcomeUnknown)).unwrap(), 0);
        assert_eq!((sent.refused, sent.unanswered), (4, 3));
        assert_eq!(events(1).note(&mut sent, answered(201, &json!({"runs": [a.to_string()]}))).unwrap(), 1);
        // The engine accepted an event and forgot its run: that is not a success.
        for runs in [json!([]), json!([a.to_string(), b.to_string()])] {
            assert!(events(1).note(&mut sent, answered(201, &json!({"runs": runs}))).is_err());
        }
    }
}
