//! Spans of runs whose trace is recorded. For every other run this is a look at a flag.

use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::id::RunId;
use helve_domain::run::RunError;
use helve_domain::span::{Span, SpanOf, SpanRun};
use helve_domain::status::RunStatus;
use helve_domain::trace::{Part, RunTrace, span_of};

use crate::state::flight::Step;
use crate::state::task::Task;
use crate::turn::Turn;
use crate::types::{Body, Effect};

/// An id says to the millisecond when it was made.
const RESOLUTION: Duration = Duration::from_millis(1);

impl Task {
    /// The context that its worker gets: that of the attempt's span, or, if the trace is not recorded, what came along.
    pub(crate) fn traceparent(&self, run: RunId, body: &Body) -> Option<String> {
        match self.extra.trace() {
            Some(trace) => Some(trace.context(run, Part::Attempt(self.attempt)).to_string()),
            None => body.traceparent.clone(),
        }
    }

    /// The first assignment is pushed.
    pub(crate) fn wait_over(&self, run: RunId, optimistic: bool, now: Timestamp) -> Option<Effect> {
        let trace = self.extra.trace()?;
        let of = SpanOf::Wait { run: self.span_run(run), optimistic };
        Some(child(trace, run, Part::Wait, (self.ready_at(), now), of))
    }

    /// The code of an error, for the span of the attempt that it ends.
    pub(crate) fn code_for_trace(&self, error: Option<&RunError>) -> Option<Box<str>> {
        self.extra.trace()?;
        error?.code.as_deref().map(Box::from)
    }

    fn span_run(&self, id: RunId) -> SpanRun {
        let (tenant, spec) = (self.tenant, Arc::clone(&self.spec));
        SpanRun { id, tenant, spec, event: self.extra.event(), replay_of: self.extra.replay_of() }
    }

    /// The attempt that it holds is over.
    fn attempt_over(
        &self,
        (run, trace): (RunId, RunTrace),
        (outcome, failed, code): (&'static str, bool, Option<Box<str>>),
        end: Timestamp,
    ) -> Option<Effect> {
        let held = self.held()?;
        let (number, worker, times) = (self.attempt, held.worker, (held.pushed_at, end));
        let of = SpanOf::Attempt { run: self.span_run(run), number, worker, outcome, code, failed };
        Some(child(trace, run, Part::Attempt(number), times, of))
    }

    /// When it was created. Its place in the queue knows that better than its id, unless it was delayed.
    fn created_at(&self, run: RunId) -> Timestamp {
        let (created, ready) = (run.created_at(), self.ready_at());
        if ready.since(created) < RESOLUTION { ready.max(created) } else { created }
    }
}

impl Turn<'_> {
    /// A step is committed and not yet applied: what it ends is told.
    pub(crate) fn spans_over(&mut self, step: &Step) {
        let (Step::Place { run, .. } | Step::End { run, .. }) = step else { return };
        let run = *run;
        let Some((task, trace)) = self.shard.tasks.get(&run).and_then(|task| Some((task, task.extra.trace()?))) else {
            return;
        };
        match step {
            Step::Place { reason: Some(reason), code, .. } => {
                let how = match *reason {
                    // Whether there is another attempt is the run's affair.
                    "retry" | "parked" => ("failed", true, code.clone()),
                    "released" => ("released", false, None),
                    other => (other, true, code.clone().or_else(|| Some(Box::from(other)))),
                };
                self.out.extend(task.attempt_over((run, trace), how, self.now));
            }
            Step::End { row, .. } => {
                let code: Option<Box<str>> = row.error.as_ref().and_then(|e| e.code.as_deref()).map(Box::from);
                let how = (row.reason.unwrap_or(row.state.as_str()), row.state == RunStatus::Failed, code.clone());
                self.out.extend(task.attempt_over((run, trace), how, row.finished_at));
                let (status, attempts, retries) = (row.state, task.attempt, task.retries);
                let of = SpanOf::Run { run: task.span_run(run), status, attempts, retries, code };
                let context = trace.context(run, Part::Whole);
                let (parent, start, end) = (trace.parent, task.created_at(run), row.finished_at);
                self.out.push(Effect::Span(Box::new(Span { context, parent, start, end, of })));
            }
            _ => {}
        }
    }
}

/// A span below that of the whole run.
fn child(trace: RunTrace, run: RunId, part: Part, (start, end): (Timestamp, Timestamp), of: SpanOf) -> Effect {
    let (context, parent) = (trace.context(run, part), Some(span_of(run, Part::Whole)));
    Effect::Span(Box::new(Span { context, parent, start, end, of }))
}
