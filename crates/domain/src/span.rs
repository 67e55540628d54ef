//! Finished spans: what the engine tells a collector of traces. Names, ids and times; never what clients send.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::definition::Spec;
use crate::id::{EventId, RunId, TenantId, WorkerId};
use crate::status::RunStatus;
use crate::trace::{SpanContext, SpanId};

/// Something that took its time and is over.
#[derive(Debug)]
pub struct Span {
    /// Its own name in the trace.
    pub context: SpanContext,
    /// The span below which it hangs.
    pub parent: Option<SpanId>,
    /// From.
    pub start: Timestamp,
    /// To.
    pub end: Timestamp,
    /// What it was.
    pub of: SpanOf,
}

/// What a span is about.
#[derive(Debug)]
pub enum SpanOf {
    /// A request that was answered.
    Request(RequestSpan),
    /// A run, from its creation to its end.
    Run {
        /// Which.
        run: SpanRun,
        /// How it ended.
        status: RunStatus,
        /// Attempts.
        attempts: i32,
        /// Retries spent.
        retries: i32,
        /// Why, if it did not succeed.
        code: Option<Box<str>>,
    },
    /// The wait of a run for its first assignment.
    Wait {
        /// Which.
        run: SpanRun,
        /// It was created assigned: what it waited for was the commit.
        optimistic: bool,
    },
    /// An attempt, from its push to the commit of its end.
    Attempt {
        /// Which.
        run: SpanRun,
        /// Its number.
        number: i32,
        /// Who held it.
        worker: WorkerId,
        /// How it ended.
        outcome: &'static str,
        /// The code of its error, if it had one.
        code: Option<Box<str>>,
        /// Whether something went wrong.
        failed: bool,
    },
}

/// A request, as far as a trace may know it.
#[derive(Debug)]
pub struct RequestSpan {
    /// Its method.
    pub method: Box<str>,
    /// The pattern of its path.
    pub route: Box<str>,
    /// The status of the answer.
    pub status: u16,
    /// Whose token it had.
    pub tenant: Option<TenantId>,
    /// As in the logs.
    pub request: Box<str>,
}

/// The run of a span.
#[derive(Debug)]
pub struct SpanRun {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it runs.
    pub spec: Arc<Spec>,
    /// The event that started it.
    pub event: Option<EventId>,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
}
