//! Traces for OpenTelemetry: finished spans go through a bounded channel to a task that sends them to a collector.
//!
//! Nobody waits for it. A span that finds the channel full is dropped and counted, and so is a batch that the collector
//! does not take in time.

mod export;
mod otlp;
mod target;

use std::sync::Arc;

use helve_domain::clock::Clock;
use helve_domain::error::Result;
use helve_domain::id::NodeId;
use helve_domain::span::Span;
use helve_domain::trace::Sampler;
use helve_supervisor::Supervisor;
use tokio::sync::mpsc;

use crate::config::Traces;
use crate::metrics::Metrics;
use export::Exporter;

pub use target::{Target, Wrong};

/// Takes finished spans. Clones share one exporter; the default takes nothing.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

struct Recorder {
    sampler: Sampler,
    spans: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

/// What an exporter is made of.
pub struct Parts<'a> {
    /// Where to, and how much.
    pub settings: &'a Traces,
    /// Which engine this is.
    pub node: NodeId,
    /// Time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Owns the exporter.
    pub supervisor: &'a Supervisor,
}

impl Tracer {
    /// Starts the exporter, if there is somewhere to send to.
    ///
    /// # Errors
    /// A text for the operator, when the endpoint or a header cannot be used.
    pub fn start(parts: Parts<'_>) -> Result<Self> {
        let Parts { settings, node, clock, metrics, supervisor } = parts;
        let Some(target) = Target::of(settings).map_err(Wrong::into_error)? else { return Ok(Self::default()) };
        let (spans, finished) = mpsc::channel(settings.queue);
        let resource = otlp::resource(settings, node);
        let exporter = Exporter::new(target, settings, resource, (clock, Arc::clone(&metrics)))?;
        supervisor.spawn("traces", exporter.run(finished, supervisor.stopping()));
        Ok(Self(Some(Arc::new(Recorder { sampler: settings.sampler, spans, metrics }))))
    }

    /// Which traces are recorded; `None`: none at all.
    pub fn sampler(&self) -> Option<Sampler> {
        self.0.as_ref().map(|recorder| recorder.sampler)
    }

    /// Hands a span over. Never waits.
    pub fn record(&self, span: Span) {
        if let Some(recorder) = &self.0
            && recorder.spans.try_send(span).is_err()
        {
            recorder.metrics.spans.dropped.inc();
        }
    }
}
