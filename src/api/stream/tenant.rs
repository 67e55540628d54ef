//! `GET /v1/events/stream`: everything that happens in a tenant.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use helve_domain::clock::Timestamp;
use helve_domain::error::{Code, Error, Result};
use helve_domain::limits::Limits;
use helve_domain::live::ChangeFilter;
use helve_domain::name;
use helve_domain::status::RunStatus;
use serde::Serialize;

use super::{Farewell, Moment, Out, RunChange, Source, Tap, answer, is_here, last_event_id, wrong_id};
use crate::api::ApiState;
use crate::api::auth::Reader;
use crate::api::problem::ApiError;
use crate::api::query::Query;
use crate::api::runs::list::statuses;
use crate::db;
use crate::live::Notice;
use crate::sched::LATEST_COMMIT;

/// What is read from the rows for a reader who missed something: so much of what was made since its last id, and of what
/// was made shortly before that.
const MISSED: usize = 1_000;
/// Workflows of one filter.
const WORKFLOWS: usize = 100;

/// Where a stream begins.
#[derive(Debug, Serialize)]
pub struct StreamOpen {
    /// From now on everything is told.
    at: Timestamp,
}

/// Some changes are not known any more.
#[derive(Debug, Serialize)]
pub struct StreamGap {
    /// Since when: some time before the reader's last id, since what was made before another change may be committed
    /// after it. What was made since then follows, runs as they stand now. Changes of older runs are missing: list them.
    since: Timestamp,
    /// True: even of what was made since then only a part follows.
    truncated: bool,
}

/// A place in the changes of a tenant: a number of one process, and a time for when that process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    number: u64,
    epoch: u32,
    at: Timestamp,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (number, epoch, at) = (parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        if parts.next().is_some() || ![number, epoch, at].into_iter().all(is_hex) {
            return None;
        }
        let at = Timestamp::from_micros(at.parse().ok()?);
        Some(Self { number: number.parse().ok()?, epoch: u32::from_str_radix(epoch, 16).ok()?, at })
    }

    fn id(self) -> String {
        format!("{}-{:x}-{}", self.number, self.epoch, self.at.micros())
    }
}

struct TenantStream {
    tap: Tap,
    epoch: u32,
    out: Out,
}

/// Watch everything
///
/// Server-sent events of the tenant: `run` for every state that a run comes to, `event` for every event that is taken in.
/// It begins now, with `open`. With `Last-Event-ID` it goes on behind it: nothing is lost as long as this engine lives,
/// of the last 4,096 changes, for 2 minutes. Beyond that `gap` says since when, and what was made since then follows.
#[utoipa::path(
    get,
    path = "/v1/events/stream",
    operation_id = "watchTenant",
    tag = "events",
    params(
        ("kind" = Option<String>, Query, description = "`run` or `event`: only these", pattern = "^(run|event)$",
            nullable = false),
        ("workflow" = Option<Vec<String>>, Query, description = "Runs of this workflow; repeated for more",
            nullable = false),
        ("status" = Option<Vec<RunStatus>>, Query, description = "Runs that come to one of these states; repeated, or \
            separated by commas", nullable = false),
        ("Last-Event-ID" = Option<String>, Header, description = "The last `id` that was read", nullable = false),
    ),
    responses(
        (status = 200, description = "The stream; `run` carries a change, `event` an event, `open` and `gap` say where \
            it begins", body = RunChange, content_type = "text/event-stream"),
    )
)]
pub async fn watch(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filter = filter(&mut query, &state.limits)?;
    query.finish()?;
    let cursor = last_event_id(&headers)?.map(|text| Cursor::parse(text).ok_or_else(wrong_id)).transpose()?;
    is_here(&state, scope.tenant())?;
    let (tenant, live) = (scope.tenant(), state.scheduler.live());
    let seen = cursor.filter(|cursor| cursor.epoch == live.epoch()).map(|cursor| cursor.number);
    let begin = Cursor { number: live.last(), epoch: live.epoch(), at: state.clock.now() };
    let (watch, known) = live.watch_tenant(tenant, filter.clone(), seen, state.streams)?;
    let mut stream = TenantStream { tap: Tap::new(&state, &scope, watch), epoch: live.epoch(), out: Out::default() };
    if let Some(cursor) = cursor.filter(|_| !known) {
        let since = cursor.at.minus(LATEST_COMMIT);
        let late = db::missed::late(&state.reads.of(tenant), tenant, since, cursor.at, MISSED + 1).await?;
        let missed = db::missed::since(&state.reads.of(tenant), tenant, cursor.at, MISSED + 1).await?;
        let truncated = missed.len() > MISSED || late.len() > MISSED;
        stream.out.json(None, "gap", &StreamGap { since, truncated });
        // Of those that may have been told before, the last: the others are as good as certain.
        let late = late[late.len().saturating_sub(MISSED)..].iter();
        for change in late.chain(missed.iter().take(MISSED)).filter(|change| filter.admits(&change.what)) {
            // One who leaves here begins again at this time, and never before where it began now.
            let id = Cursor { number: 0, epoch: 0, at: change.at.max(cursor.at) }.id();
            stream.out.change(Some(&id), change);
        }
    }
    if !known {
        stream.out.json(Some(&begin.id()), "open", &StreamOpen { at: begin.at });
    }
    Ok(answer(stream))
}

fn filter(query: &mut Query, limits: &Limits) -> Result<ChangeFilter> {
    let kind = query.parsed("kind", "`run` or `event`", |text| match text {
        "run" => Some((false, true)),
        "event" => Some((true, false)),
        _ => None,
    })?;
    let (no_runs, no_events) = kind.unwrap_or_default();
    let workflows = query.all("workflow");
    let wrong = |message: String| {
        Error::parameter(Code::InvalidField, "workflow", format!("query parameter `workflow`: {message}"))
    };
    if workflows.len() > WORKFLOWS {
        return Err(wrong(format!("at most {WORKFLOWS} may be given")));
    }
    for workflow in &workflows {
        name::check("", workflow, limits).map_err(|e| wrong(e.client_text()))?;
    }
    Ok(ChangeFilter { workflows, statuses: statuses(query)?, no_runs, no_events })
}

impl TenantStream {
    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Change(change) => {
                let id = Cursor { number: change.number, epoch: self.epoch, at: change.change.at }.id();
                self.out.change(Some(&id), &change.change);
            }
            Notice::Lagged => self.out.close(Farewell::TooSlow),
            Notice::Closed => self.out.close(Farewell::Moved),
            // Only who watches one run gets these.
            Notice::Lines | Notice::Progress(_) => {}
        }
    }
}

impl Source for TenantStream {
    fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    async fn fill(&mut self) -> Result<()> {
        match self.tap.next().await {
            Moment::Notice(notice) => self.notice(notice),
            Moment::Quiet => self.out.quiet(),
            Moment::End(farewell) => self.out.close(farewell),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = Cursor { number: 12, epoch: 0xdead_beef, at: Timestamp::from_micros(1_800_000_000_000_000) };
        assert_eq!(Cursor::parse(&cursor.id()), Some(cursor));
        for text in ["", "1", "1-a", "1-a-", "1-a-b", "1-g-2", "1-a-2-3", "-1-a-2", "1-fffffffff-2"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
