//! Runs that a job finds: counted for its preview, and picked piece by piece.

use std::fmt::Write as _;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use helve_domain::error::Result;
use helve_domain::id::{NodeId, RunId, TenantId};
use helve_domain::status::RunStatus;
use uuid::Uuid;

use super::Pool;
use super::jobs::Job;
use super::page::{Binds, load_page};
use super::run_list::{RunFilter, conditions};

/// In which order a job takes its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A replay keeps the order of the first time.
    OldestFirst,
    /// A cancel ends what waits before what would start meanwhile.
    NewestFirst,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Picked {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// One branch for each state that is wanted, so that each can follow an index.
fn branches(filter: &RunFilter, both: &str, history: &str, tail: &str) -> String {
    let branch = |status: &RunStatus| {
        let (table, more) = if status.is_final() { ("run_history", history) } else { ("open_run", "") };
        let state = status.number();
        format!("(select id, created_at from {table} where {both}{more} and state = {state}{tail})")
    };
    filter.statuses.iter().map(branch).collect::<Vec<_>>().join(" union all ")
}

/// How many runs the filter finds. It must name its states.
///
/// # Errors
/// `Unavailable` when the database cannot be reached, or needs longer than the statement timeout.
pub async fn count(pool: &Pool, tenant: TenantId, filter: &RunFilter) -> Result<i64> {
    let mut binds = Binds::default();
    let (both, history) = conditions(&mut binds, tenant, filter).parts();
    let sql = format!("select count(*) as n from ({}) found", branches(filter, &both, &history, ""));
    let rows: Vec<Count> = load_page(pool, sql, binds).await?;
    Ok(rows.first().map_or(0, |row| row.n))
}

/// Picks the next runs of a job that this node holds: at most `limit` behind the last ones that were picked. They
/// are written down before anything is done to them.
///
/// # Errors
/// `Unavailable`. Safe to repeat: what was picked already stands in [`super::jobs::pending`].
pub async fn pick(
    pool: &Pool,
    node: NodeId,
    job: &Job,
    filter: &RunFilter,
    order: Order,
    limit: usize,
) -> Result<Vec<RunId>> {
    let mut binds = Binds::default();
    let (mut both, history) = conditions(&mut binds, job.tenant, filter).parts();
    let (id, node) = (binds.uuid(job.id.uuid()), binds.uuid(node.uuid()));
    let (compare, direction, last) = match order {
        Order::OldestFirst => (">", "asc", "desc"),
        Order::NewestFirst => ("<", "desc", "asc"),
    };
    // Only behind the place that the caller knows: a pick that is sent again picks nothing.
    let place = match job.place {
        None => "place is null".to_owned(),
        Some(place) => {
            let (time, run) = (binds.time(place.created_at()), binds.uuid(place.uuid()));
            let _ = write!(both, " and (created_at, id) {compare} ({time}, {run})");
            format!("place = {run}")
        }
    };
    let tail = format!(" order by created_at {direction}, id {direction} limit {limit}");
    let branches = branches(filter, &both, &history, &tail);
    let sql = format!(
        "with held as materialized (
            select id from job where id = {id} and node = {node} and state = 1 and not picked and {place} for update
        ),
        page as materialized (
            select f.id, f.created_at from ({branches}) f
            where exists (select from held)
            order by f.created_at {direction}, f.id {direction}
            limit {limit}
        ),
        put as (
            insert into job_item (job, run) select held.id, page.id from held, page on conflict do nothing
        ),
        moved as (
            update job set
                place = coalesce((select p.id from page p order by p.created_at {last}, p.id {last} limit 1), place),
                picked = (select count(*) from page) < {limit}
            from held where job.id = held.id
        )
        select id from page"
    );
    let rows: Vec<Picked> = load_page(pool, sql, binds).await?;
    Ok(rows.into_iter().map(|row| RunId::from_uuid(row.id)).collect())
}
