//! Reading events. The lane writes them.

use std::fmt::Write as _;

use bytes::Bytes;
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text, Uuid as SqlUuid};
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::id::{EventId, RunId, TenantId};
use helve_domain::json::Payload;
use uuid::Uuid;

use super::Pool;
use super::page::{Binds, PAGE_BYTES, Page, load_page};
use super::statement::statement;

/// An event as it was stored.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id, which is also its creation time.
    pub id: EventId,
    /// Its key.
    pub key: String,
    /// Where it comes from, with its id there.
    pub source: Option<(String, String)>,
    /// As given: a flat object of strings.
    pub metadata: Payload,
    /// As given.
    pub payload: Payload,
    /// The event that it repeats.
    pub replay_of: Option<EventId>,
    /// The matching workflows that it did not start: a JSON list.
    pub skipped: Option<Payload>,
    /// The runs that it started.
    pub runs: Vec<RunId>,
}

/// Which events a list shows. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// With this key, or one that this pattern matches.
    pub key: Option<String>,
    /// From this source.
    pub source: Option<String>,
    /// Created at this time or later.
    pub created_after: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
    /// With these metadata.
    pub metadata: Vec<(String, String)>,
    /// Only what was pushed, no replays.
    pub originals: bool,
    /// Behind this event in the order of the list: the last one of the page before.
    pub after: Option<EventId>,
}

impl EventFilter {
    /// Whether it lets everything through.
    pub const fn is_open(&self) -> bool {
        let Self { key, source, created_after, created_before, metadata, .. } = self;
        key.is_none() && source.is_none() && created_after.is_none() && created_before.is_none() && metadata.is_empty()
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy)]
enum Order {
    Newest,
    Oldest,
}

statement! {
    /// One event.
    Get("sql/event_get.sql") {
        "1" => id: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Nullable<Text>)]
    source: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    source_id: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    metadata: Option<Vec<u8>>,
    #[diesel(sql_type = Binary)]
    payload: Vec<u8>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    replay_of: Option<Uuid>,
    #[diesel(sql_type = Nullable<Binary>)]
    skipped: Option<Vec<u8>>,
    #[diesel(sql_type = Array<SqlUuid>)]
    runs: Vec<Uuid>,
}

#[derive(QueryableByName)]
struct PageRow {
    #[diesel(embed)]
    event: Row,
    #[diesel(sql_type = BigInt)]
    total: i64,
}

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = BigInt)]
    last: i64,
}

impl From<Row> for Event {
    fn from(row: Row) -> Self {
        Self {
            id: EventId::from_uuid(row.id),
            key: row.key,
            source: row.source.zip(row.source_id),
            metadata: super::runs::metadata(row.metadata),
            payload: Payload::trusted(Bytes::from(row.payload)),
            replay_of: row.replay_of.map(EventId::from_uuid),
            skipped: row.skipped.map(|list| Payload::trusted(Bytes::from(list))),
            runs: row.runs.into_iter().map(RunId::from_uuid).collect(),
        }
    }
}

/// One event of the tenant.
///
/// # Errors
/// `Unavailable`.
pub async fn get(pool: &Pool, tenant: TenantId, id: EventId) -> Result<Option<Event>> {
    let get = Get { id: id.uuid(), tenant: tenant.uuid() };
    let row = pool.load::<Row, _>(get).await?.pop();
    Ok(row.map(Event::from))
}

/// At most `limit` events, newest first; fewer when they hold many bytes.
///
/// # Errors
/// `Unavailable` when the database cannot be reached, or needs longer than the statement timeout.
pub async fn list(pool: &Pool, tenant: TenantId, filter: &EventFilter, limit: usize) -> Result<Page<Event>> {
    page(pool, tenant, filter, Order::Newest, limit).await
}

/// At most `limit` events, oldest first; fewer when they hold many bytes.
///
/// # Errors
/// As [`list`].
pub async fn oldest(pool: &Pool, tenant: TenantId, filter: &EventFilter, limit: usize) -> Result<Page<Event>> {
    page(pool, tenant, filter, Order::Oldest, limit).await
}

/// The keys of at most `limit` events with how many have each; true: there are more events.
///
/// # Errors
/// As [`list`].
pub async fn keys(
    pool: &Pool,
    tenant: TenantId,
    filter: &EventFilter,
    limit: usize,
) -> Result<(Vec<(String, u64)>, bool)> {
    let mut binds = Binds::default();
    let conditions = conditions(&mut binds, tenant, filter, Order::Oldest);
    let sql = format!(
        "with found as (
            select key, row_number() over () as place
            from (select key from event where {conditions} limit {more}) e
        )
        select key, count(*) filter (where place <= {limit}) as events, max(place) as last
        from found
        group by key",
        more = limit + 1
    );
    let rows: Vec<KeyRow> = load_page(pool, sql, binds).await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let more = rows.iter().any(|row| row.last > limit);
    let keys = rows.into_iter().map(|row| (row.key, u64::try_from(row.events).unwrap_or(0)));
    Ok((keys.collect(), more))
}

async fn page(pool: &Pool, tenant: TenantId, filter: &EventFilter, order: Order, limit: usize) -> Result<Page<Event>> {
    let mut binds = Binds::default();
    let conditions = conditions(&mut binds, tenant, filter, order);
    let more = limit + 1;
    let way = match order {
        Order::Newest => "desc",
        Order::Oldest => "asc",
    };
    let sql = format!(
        "with page as (
            select id, created_at, key, source, source_id, metadata, payload, replay_of, skipped, runs
            from event
            where {conditions}
            order by created_at {way}, id {way}
            limit {more}
        ),
        -- a page ends early when what stands before holds too many bytes
        sized as (
            select p.*, count(*) over () as total,
                sum(octet_length(p.payload) + coalesce(octet_length(p.metadata), 0)
                    + coalesce(octet_length(p.skipped), 0) + 40 * cardinality(p.runs))
                    over (order by p.created_at {way}, p.id {way} rows between unbounded preceding and 1 preceding)
                    as before
            from page p
        )
        select * from sized
        where before is null or before < {PAGE_BYTES}
        order by created_at {way}, id {way}"
    );
    let rows: Vec<PageRow> = load_page(pool, sql, binds).await?;
    let total = rows.iter().map(|row| row.total).next().unwrap_or(0);
    Ok(Page::of(rows.into_iter().take(limit).map(|row| row.event.into()).collect(), total))
}

fn conditions(binds: &mut Binds, tenant: TenantId, filter: &EventFilter, order: Order) -> String {
    let mut sql = format!("tenant = {}", binds.uuid(tenant.uuid()));
    if let Some(after) = filter.after {
        let (time, id) = (binds.time(after.created_at()), binds.uuid(after.uuid()));
        let than = match order {
            Order::Newest => "<",
            Order::Oldest => ">",
        };
        let _ = write!(sql, " and (created_at, id) {than} ({time}, {id})");
    }
    if let Some(time) = filter.created_after {
        let _ = write!(sql, " and created_at >= {}", binds.time(time));
    }
    if let Some(time) = filter.created_before {
        let _ = write!(sql, " and created_at < {}", binds.time(time));
    }
    if let Some(key) = &filter.key {
        let _ = match key.contains('*') {
            false => write!(sql, " and key = {}", binds.text(key)),
            true => write!(sql, " and key like {}", binds.text(&like(key))),
        };
    }
    if filter.originals {
        sql.push_str(" and replay_of is null");
    }
    if let Some(source) = &filter.source {
        let _ = write!(sql, " and source = {}", binds.text(source));
    }
    if !filter.metadata.is_empty() {
        let _ = write!(sql, " and {}", binds.metadata(&filter.metadata));
    }
    sql
}

/// A pattern over keys in the words of SQL. `_` is a letter of names.
fn like(pattern: &str) -> String {
    pattern.replace('_', "\\_").replace('*', "%")
}
