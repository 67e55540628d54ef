//! `GET /v1/runs/{id}/events`: one run from its beginning to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use helve_domain::id::{RunId, TenantId};
use helve_domain::live::{Changed, LogLevel, Stage};
use helve_domain::run::Run;
use helve_domain::status::RunStatus;

use super::{Farewell, Moment, Out, RunChange, Source, Tap, answer, is_here, last_event_id, wrong_id};
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::path::Id;
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::api::runs::logs::LogLineView;
use crate::api::runs::view::RunView;
use crate::db::live::Transition;
use crate::db::{self, Pool};
use crate::live::{Live, Notice};

/// Log lines that one read brings.
const PAGE: usize = 200;
/// How long the end waits for log lines that are on their way to the database.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Where a reader is: the state that it has seen last, and the next log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    seen: Option<(RunStatus, i32)>,
    line: i64,
}

impl Cursor {
    const START: Self = Self { seen: None, line: 0 };

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (attempt, status, line) = (parts.next()?, parts.next()?, parts.next()?);
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if parts.next().is_some() || !is_number(attempt) || !is_number(line) {
            return None;
        }
        let status = RunStatus::ALL.into_iter().find(|s| s.as_str() == status)?;
        Some(Self { seen: Some((status, attempt.parse().ok()?)), line: line.parse().ok()? })
    }

    fn stage(self) -> Stage {
        self.seen.map_or(Stage::NONE, |(status, attempt)| Stage::of(status, attempt))
    }

    fn id(self) -> Option<String> {
        self.seen.map(|(status, attempt)| format!("{attempt}-{}-{}", status.as_str(), self.line))
    }
}

struct RunStream {
    pool: Pool,
    live: Live,
    tenant: TenantId,
    id: RunId,
    tap: Tap,
    cursor: Cursor,
    /// The rows of the run, or of its log, are to be read.
    read_run: bool,
    read_lines: bool,
    /// It is over: what is left of its log is to be read, then its end told.
    ended: bool,
    flushed: bool,
    out: Out,
}

/// Watch a run
///
/// Server-sent events: `state` for every change, `log` for every line, `progress`, and `end` with the finished run, after
/// which the stream closes. It begins with what has happened so far. With `Last-Event-ID` it goes on behind it, and
/// nothing is lost between; 204 says that the end was seen. `close` says why a stream ends before that.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/events",
    operation_id = "watchRun",
    tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last `id` that was read", nullable = false),
    ),
    responses(
        (status = 200, description = "The stream; `state` carries a change", body = RunChange,
            content_type = "text/event-stream"),
        (status = 204, description = "The end was seen: do not connect again"),
        (status = 404, description = "No such run"),
    )
)]
pub async fn watch(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Id(id): Id<RunId>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    query.finish()?;
    let cursor = match last_event_id(&headers)? {
        Some(text) => Cursor::parse(text).ok_or_else(wrong_id)?,
        None => Cursor::START,
    };
    is_here(&state, scope.tenant())?;
    let tenant = scope.tenant();
    let live = state.scheduler.live().clone();
    // First the place among those who watch, then the rows: what happens between is seen twice and told once.
    let watch = live.watch_run(tenant, id, state.streams)?;
    let run = db::runs::get(&state.reads.of(tenant), tenant, id).await?.ok_or_else(|| Error::not_found("run", id))?;
    if cursor.stage().is_end() {
        return if run.status.is_final() { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(wrong_id().into()) };
    }
    let tap = Tap::new(&state, &scope, watch);
    let (read_run, read_lines, ended, flushed) = (false, false, false, false);
    let out = Out::default();
    let pool = state.reads.of(tenant);
    let mut stream = RunStream { pool, live, tenant, id, tap, cursor, read_run, read_lines, ended, flushed, out };
    stream.tell_rows(&run).await?;
    let latest = stream.live.latest_progress(id).map(|progress| progress.to_payload());
    if let Some(progress) = latest.or(run.progress) {
        stream.out.event(None, "progress", progress.bytes());
    }
    Ok(answer(stream))
}

impl RunStream {
    /// What the rows tell of the run's life behind the cursor.
    async fn tell_rows(&mut self, run: &Run) -> Result<()> {
        let transitions = db::live::transitions(&self.pool, self.tenant, self.id).await?;
        for state in life(run, &transitions) {
            if Stage::of(state.status, state.attempt) > self.cursor.stage() {
                self.cursor.seen = Some((state.status, state.attempt));
                self.out.json(self.cursor.id().as_deref(), "state", &state);
            }
        }
        self.read_lines = true;
        self.ended = run.status.is_final();
        Ok(())
    }

    /// A page of lines behind the cursor; whether there may be more.
    async fn tell_lines(&mut self) -> Result<bool> {
        let lines = db::live::log(&self.pool, self.tenant, self.id, self.cursor.line, LogLevel::Debug, PAGE).await?;
        for line in &lines {
            self.cursor.line = line.place + 1;
            self.out.json(self.cursor.id().as_deref(), "log", &LogLineView::of(line));
        }
        Ok(lines.len() == PAGE)
    }

    async fn tell_end(&mut self) -> Result<()> {
        let run = db::runs::get(&self.pool, self.tenant, self.id).await?;
        let run = run.filter(|run| run.status.is_final()).ok_or_else(|| Error::not_found("run", self.id))?;
        self.cursor.seen = Some((run.status, run.attempt));
        self.out.json(self.cursor.id().as_deref(), "end", &RunView::of(&run, false));
        self.out.over = true;
        Ok(())
    }

    fn changed(&mut self, what: &Changed, at: Timestamp) {
        let Changed::Run { workflow, status, attempt, reason, .. } = what else { return };
        let (run, status, attempt, reason, at) = (self.id, *status, *attempt, *reason, Some(at));
        if Stage::of(status, attempt) <= self.cursor.stage() {
            return;
        }
        if status.is_final() {
            self.ended = true;
            return;
        }
        self.cursor.seen = Some((status, attempt));
        let state = RunChange { run, workflow, status, attempt, reason, at };
        self.out.json(self.cursor.id().as_deref(), "state", &state);
    }
}

impl Source for RunStream {
    fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    async fn fill(&mut self) -> Result<()> {
        if std::mem::take(&mut self.read_run) {
            let run = db::runs::get(&self.pool, self.tenant, self.id).await?;
            return self.tell_rows(&run.ok_or_else(|| Error::not_found("run", self.id))?).await;
        }
        if self.ended && !std::mem::replace(&mut self.flushed, true) {
            self.live.flush(LAST_LINES).await;
            self.read_lines = true;
        }
        if self.read_lines {
            self.read_lines = self.tell_lines().await?;
            return Ok(());
        }
        if self.ended {
            return self.tell_end().await;
        }
        match self.tap.next().await {
            Moment::Notice(Notice::Change(change)) => self.changed(&change.change.what, change.change.at),
            Moment::Notice(Notice::Lines) => self.read_lines = true,
            Moment::Notice(Notice::Progress(progress)) => {
                self.out.event(None, "progress", progress.to_payload().bytes());
            }
            // What was missed stands in the rows.
            Moment::Notice(Notice::Lagged) => self.read_run = true,
            Moment::Notice(Notice::Closed) => self.out.close(Farewell::Moved),
            Moment::Quiet => self.out.quiet(),
            Moment::End(farewell) => self.out.close(farewell),
        }
        Ok(())
    }
}

/// The states before the end that the rows tell, in their order. Those that a run passes in the ordinary course, as
/// queued before its first attempt, leave no row behind.
fn life<'a>(run: &'a Run, transitions: &'a [Transition]) -> Vec<RunChange<'a>> {
    let mut states = BTreeMap::new();
    let mut add = |status: RunStatus, attempt: i32, reason: Option<&'a str>, at: Option<Timestamp>| {
        let state = RunChange { run: run.id, workflow: &run.workflow, status, attempt, reason, at };
        states.entry(Stage::of(status, attempt)).or_insert(state);
    };
    if run.attempt > 0 {
        add(RunStatus::Running, run.attempt, None, run.started_at);
    }
    for t in transitions {
        if t.attempt > 0 {
            add(RunStatus::Running, t.attempt, None, None);
        }
        if let Some(status) = t.status.filter(|status| !status.is_final()) {
            add(status, t.attempt, Some(&t.reason), Some(t.at));
        }
    }
    if !run.status.is_final() {
        add(run.status, run.attempt, None, (run.attempt == 0).then(|| run.id.created_at()));
    }
    states.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for text in ["0-queued-0", "1-running-57", "3-succeeded-10000"] {
            assert_eq!(Cursor::parse(text).unwrap().id().as_deref(), Some(text));
        }
        for text in [
            "",
            "1",
            "1-running",
            "1-running-",
            "1-running-x",
            "1-running-1-1",
            "-1-running-1",
            "1-ran-1",
            "+1-running-1",
        ] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
        assert_eq!(Cursor::START.id(), None);
    }
}
