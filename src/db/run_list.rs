//! Pages of runs: open and final ones in one order, newest first.

use std::fmt::Write as _;

use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::id::{EventId, RunId, TenantId};
use helve_domain::run::Run;
use helve_domain::status::RunStatus;

use super::Pool;
use super::page::{Binds, PAGE_BYTES, Page, load_page};
use super::runs::Row;

/// Which runs a list shows. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// In one of these states; empty: in any.
    pub statuses: Vec<RunStatus>,
    /// Of this workflow.
    pub workflow: Option<String>,
    /// Created at this time or later.
    pub created_after: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
    /// Final ones only if they ended before this time.
    pub finished_before: Option<Timestamp>,
    /// With these metadata.
    pub metadata: Vec<(String, String)>,
    /// Started by this event.
    pub event: Option<EventId>,
    /// Replays of this run.
    pub replay_of: Option<RunId>,
    /// Older than this run: the last one of the page before.
    pub after: Option<RunId>,
}

#[derive(QueryableByName)]
struct PageRow {
    #[diesel(embed)]
    run: Row,
    #[diesel(sql_type = BigInt)]
    total: i64,
}

const OPEN: &str = "select id, created_at, tenant, state, version, attempt, retries, priority, worker, event, workflow, \
    traceparent, replay_of, input, metadata, null::bytea as output, error, case when state = 0 then due end as due, started_at, \
    null::timestamptz as finished_at from open_run";

const FINAL: &str = "select id, created_at, tenant, state, version, attempt, retries, priority, worker, event, workflow, \
    traceparent, replay_of, input, metadata, output, error, null::timestamptz as due, started_at, finished_at from run_history";

/// At most `limit` runs, newest first; fewer when they hold many bytes.
///
/// # Errors
/// `Unavailable` when the database cannot be reached, or needs longer than the statement timeout.
pub async fn list(pool: &Pool, tenant: TenantId, filter: &RunFilter, limit: usize) -> Result<Page<Run>> {
    let mut binds = Binds::default();
    let conditions = conditions(&mut binds, tenant, filter);
    let sql = statement(&branches(filter, &conditions, limit + 1), limit + 1);
    let rows: Vec<PageRow> = load_page(pool, sql, binds).await?;
    let total = rows.iter().map(|row| row.total).next().unwrap_or(0);
    let runs: Vec<Run> = rows.into_iter().take(limit).map(|row| Run::try_from(row.run)).collect::<Result<_>>()?;
    Ok(Page::of(runs, total))
}

pub(in crate::db) struct Conditions {
    both: String,
    /// What else leaves weeks of the history out.
    history: String,
}

impl Conditions {
    /// For both tables, and what comes on top for the history.
    pub(in crate::db) fn parts(self) -> (String, String) {
        (self.both, self.history)
    }
}

/// What must hold of a run. The first bind is its tenant.
pub(in crate::db) fn conditions(binds: &mut Binds, tenant: TenantId, filter: &RunFilter) -> Conditions {
    let mut both = format!("tenant = {}", binds.uuid(tenant.uuid()));
    let mut history = String::new();
    if let Some(after) = filter.after {
        let (time, id) = (binds.time(after.created_at()), binds.uuid(after.uuid()));
        let _ = write!(both, " and (created_at, id) < ({time}, {id})");
    }
    if let Some(time) = filter.created_after {
        let time = binds.time(time);
        let _ = write!(both, " and created_at >= {time}");
        let _ = write!(history, " and finished_at >= {time}");
    }
    if let Some(time) = filter.created_before {
        let _ = write!(both, " and created_at < {}", binds.time(time));
    }
    if let Some(time) = filter.finished_before {
        let _ = write!(history, " and finished_at < {}", binds.time(time));
    }
    if let Some(workflow) = &filter.workflow {
        let _ = write!(both, " and workflow = {}", binds.text(workflow));
    }
    if !filter.metadata.is_empty() {
        let _ = write!(both, " and {}", binds.metadata(&filter.metadata));
    }
    if let Some(event) = filter.event {
        // The event knows its runs: their ids are indexed, the column `event` is not.
        let (id, time) = (binds.uuid(event.uuid()), binds.time(event.created_at()));
        let _ = write!(
            both,
            " and id = any(array(select unnest(e.runs) from event e where e.id = {id} and e.tenant = $1))"
        );
        let _ = write!(history, " and finished_at >= {time}");
    }
    if let Some(of) = filter.replay_of {
        let (id, time) = (binds.uuid(of.uuid()), binds.time(of.created_at()));
        let _ = write!(both, " and replay_of = {id}");
        let _ = write!(history, " and finished_at >= {time}");
    }
    Conditions { both, history }
}

/// One ordered branch for each wanted state, so that each can follow an index and stop at the limit.
fn branches(filter: &RunFilter, conditions: &Conditions, limit: usize) -> Vec<String> {
    let Conditions { both, history } = conditions;
    let branch = |select: &str, more: &str| {
        format!("({select} where {both}{more} order by created_at desc, id desc limit {limit})")
    };
    if filter.statuses.is_empty() {
        return vec![branch(OPEN, ""), branch(FINAL, history)];
    }
    let wanted = RunStatus::ALL.into_iter().filter(|status| filter.statuses.contains(status));
    wanted
        .map(|status| match status.is_final() {
            false => branch(OPEN, &format!(" and state = {}", status.number())),
            true => branch(FINAL, &format!("{history} and state = {}", status.number())),
        })
        .collect()
}

fn statement(branches: &[String], limit: usize) -> String {
    format!(
        "with page as (
            select * from (
            {branches}
            ) branch
            order by created_at desc, id desc
            limit {limit}
        ),
        -- a large input or output stands apart, the input of an event's run with the event
        filled as materialized (
            select id, created_at, tenant, state, version, attempt, retries, priority, worker, event, workflow,
                traceparent, replay_of, metadata, error, due, started_at, finished_at,
                coalesce(p.input, case
                    when p.event is null then (select b.bytes from payload b where b.id = p.id and b.kind = 0)
                    else (select e.payload from event e where e.id = p.event)
                end) as input,
                coalesce(p.output, case
                    when p.state = 10 then (select b.bytes from payload b where b.id = p.id and b.kind = 1)
                end) as output,
                (select l.progress from run_live l where l.run = p.id) as progress
            from page p
        ),
        -- a page ends early when what stands before holds too many bytes
        sized as (
            select f.*, count(*) over () as total,
                sum(coalesce(octet_length(f.input), 0) + coalesce(octet_length(f.output), 0)
                        + coalesce(octet_length(f.error), 0) + coalesce(octet_length(f.metadata), 0))
                    over (order by f.created_at desc, f.id desc rows between unbounded preceding and 1 preceding)
                    as before
            from filled f
        )
        select * from sized
        where before is null or before < {PAGE_BYTES}
        order by created_at desc, id desc",
        branches = branches.join("\n            union all\n            ")
    )
}
