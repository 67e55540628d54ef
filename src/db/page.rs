//! Keyset pages whose statement depends on the filters that were given.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{Text, Timestamptz, Untyped, Uuid as SqlUuid};
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use uuid::Uuid;

use super::Pool;
use super::failure::{is_statement_timeout, map_error};

/// Payload bytes after which a page ends early: its size stays bounded whatever the rows hold.
pub(in crate::db) const PAGE_BYTES: usize = 8 << 20;

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// Whether there is a next one.
    pub more: bool,
}

impl<T> Page<T> {
    /// The `items` of a page of which `total` were found.
    pub(in crate::db) fn of(items: Vec<T>, total: i64) -> Self {
        let more = usize::try_from(total).unwrap_or(0) > items.len();
        Self { items, more }
    }

    /// A page cut from `items`, which were asked for with one more than `limit`.
    pub fn cut(mut items: Vec<T>, limit: usize) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}

/// Values of a statement, in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub(in crate::db) struct Binds(Vec<Bind>);

#[derive(Debug, Clone)]
enum Bind {
    Uuid(Uuid),
    Time(DateTime<Utc>),
    Text(String),
}

impl Binds {
    fn push(&mut self, bind: Bind) -> String {
        self.0.push(bind);
        format!("${}", self.0.len())
    }

    /// Binds an id; returns its place in the text.
    pub(in crate::db) fn uuid(&mut self, id: Uuid) -> String {
        self.push(Bind::Uuid(id))
    }

    /// Binds a time; returns its place in the text.
    pub(in crate::db) fn time(&mut self, time: Timestamp) -> String {
        self.push(Bind::Time(time.to_utc()))
    }

    /// Binds a text; returns its place in the text.
    pub(in crate::db) fn text(&mut self, text: &str) -> String {
        self.push(Bind::Text(text.to_owned()))
    }

    /// The condition that the row's metadata hold all of these.
    pub(in crate::db) fn metadata(&mut self, wanted: &[(String, String)]) -> String {
        let object: serde_json::Map<_, _> = wanted.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        let wanted = self.text(&serde_json::Value::Object(object).to_string());
        format!("convert_from(metadata, 'UTF8')::jsonb @> {wanted}::jsonb")
    }
}

/// Runs the statement of a page. Its text depends on the filters, and so should its plan: it is planned anew.
pub(in crate::db) async fn load_page<R>(pool: &Pool, sql: String, binds: Binds) -> Result<Vec<R>>
where
    R: QueryableByName<Pg> + Send + 'static,
{
    match pool.long().try_load::<R, _>(Dynamic { sql, binds }).await? {
        Err(e) if is_statement_timeout(&e) => Err(Error::unavailable(
            "the list took too long: narrow it by status, workflow, event or a later created_after",
        )),
        other => other.map_err(map_error),
    }
}

/// A statement that was put together. Not kept prepared: there are too many of them.
#[derive(Debug, Clone)]
struct Dynamic {
    sql: String,
    binds: Binds,
}

impl QueryId for Dynamic {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Dynamic {
    type SqlType = Untyped;
}

impl QueryFragment<Pg> for Dynamic {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql(&self.sql);
        for bind in &self.binds.0 {
            match bind {
                Bind::Uuid(id) => out.push_bind_param_value_only::<SqlUuid, _>(id)?,
                Bind::Time(time) => out.push_bind_param_value_only::<Timestamptz, _>(time)?,
                Bind::Text(text) => out.push_bind_param_value_only::<Text, _>(text)?,
            }
        }
        Ok(())
    }
}
