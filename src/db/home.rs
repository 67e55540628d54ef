//! Helve's home: the schema of its database that has its tables, or is to have them. What else is in the database belongs
//! to others.

use std::collections::BTreeSet;

use diesel::QueryableByName;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use helve_domain::error::{Error, Result};
use tracing::warn;

use super::Pool;
use super::failure::map_error;
use super::statement::statement;

/// Every table of Helve. The first ones tell that a schema has Helve.
const TABLES: [&str; 20] = [
    "open_run",
    "run_history",
    "lane",
    "shard",
    "event",
    "idempotency",
    "job",
    "job_item",
    "node",
    "pause",
    "payload",
    "run_live",
    "run_log",
    "run_transition",
    "tenant",
    "ticket",
    "token",
    "worker",
    "workflow",
    "workflow_version",
];
/// How many of [`TABLES`] tell that Helve is there: all that the first change made and no other program has together.
const TELLING: usize = 4;
/// The list of applied changes, under the name that Diesel gives it.
const LIST: &str = "__diesel_schema_migrations";
/// What `helve bench` measures with, and removes.
const BENCH: &str = "helve_bench_floor";
/// The change with which Helve begins.
const FIRST: &str = "20261124000000";
/// The change that makes the audit views, in a schema of their own.
const AUDIT: &str = "20261124000021";
/// What that schema is called where the name is free.
pub(in crate::db) const AUDIT_SCHEMA: &str = "helve_audit";

statement! {
    /// Where the search_path leads.
    Look("sql/home/look.sql") {
        "1" => telling: i64 as BigInt,
        "2" => names: Vec<String> as Array<Text>,
    }
}

statement! {
    /// What is not Helve's.
    Strangers("sql/home/strangers.sql") {
        "1" => own: Vec<String> as Array<Text>,
    }
}

statement! {
    /// Which schemas of the search_path are homes.
    Find("sql/home/find.sql") {
        "1" => telling: Vec<String> as Array<Text>,
    }
}

impl Find {
    /// Looks for what no schema without Helve has.
    pub fn new() -> Self {
        Self { telling: TABLES[..TELLING].iter().chain([&LIST]).map(|&name| name.to_owned()).collect() }
    }
}

/// What [`Find`] has found.
#[derive(Debug, QueryableByName)]
pub(in crate::db) struct Found {
    /// Schemas with Helve, in the order of the search_path.
    #[diesel(sql_type = Array<Text>)]
    pub homes: Vec<String>,
    /// Where Helve would be put.
    #[diesel(sql_type = Nullable<Text>)]
    pub otherwise: Option<String>,
}

#[derive(Debug, Clone, QueryableByName)]
struct Place {
    #[diesel(sql_type = Nullable<Text>)]
    schema: Option<String>,
    #[diesel(sql_type = Text)]
    search_path: String,
    #[diesel(sql_type = Text)]
    database: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Bool)]
    listed: bool,
    #[diesel(sql_type = Nullable<Text>)]
    elsewhere: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    audit: Option<String>,
    #[diesel(sql_type = Bool)]
    makes_tables: bool,
    #[diesel(sql_type = Bool)]
    makes_schemas: bool,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Whether Helve may be installed in a schema that has tables of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// It gets a schema of its own.
    Refused,
    /// Somebody said that it may.
    Accepted,
}

/// What is known of the home before anything is changed.
#[derive(Debug, Clone)]
pub(in crate::db) struct Home {
    place: Place,
    /// Versions of the changes that were applied.
    applied: BTreeSet<String>,
    /// Tables and views of others, where Helve is not installed.
    strangers: Vec<String>,
}

impl Home {
    /// Looks; changes nothing.
    pub async fn look(conn: &mut AsyncPgConnection) -> QueryResult<Self> {
        let names = TABLES[..TELLING].iter().map(|&name| name.to_owned()).collect();
        let look = Look { telling: i64::try_from(TELLING).unwrap_or(i64::MAX), names };
        let place: Place = look.get_result(conn).await?;
        let applied = if place.listed {
            // In the first schema of the path, so this is the one that is meant.
            let rows = diesel::sql_query(format!("select version::text as name from {LIST}"));
            rows.load::<Name>(conn).await?.into_iter().map(|row| row.name).collect()
        } else {
            BTreeSet::new()
        };
        let mut home = Self { place, applied, strangers: Vec::new() };
        if home.is_new() {
            // An empty list is what is left of a first change that failed.
            let own = if home.applied.is_empty() { vec![LIST, BENCH] } else { vec![BENCH] };
            home.strangers = strangers(conn, &own).await?;
        }
        Ok(home)
    }

    /// Helve is not installed here.
    pub fn is_new(&self) -> bool {
        !self.applied.contains(FIRST)
    }

    /// The schema that Helve is in, or would be put into.
    pub fn schema(&self) -> Option<&str> {
        self.place.schema.as_deref()
    }

    /// The schema that the audit views get, where they are still to be made.
    pub fn audit_schema(&self) -> &str {
        self.place.audit.as_deref().unwrap_or(AUDIT_SCHEMA)
    }

    /// Why nothing may be installed or changed here, for a person; nothing was done yet.
    pub fn refusal(&self, neighbours: Neighbours) -> Option<String> {
        let Place { search_path, database, role, .. } = &self.place;
        let Some(schema) = &self.place.schema else {
            return Some(format!(
                "the search_path of this connection ({search_path}) names no schema that exists: \
                 `create schema helve`, or another search_path"
            ));
        };
        if self.is_new() {
            if let Some(elsewhere) = &self.place.elsewhere {
                return Some(format!(
                    "the search_path ({search_path}) names the schema {elsewhere}, which has Helve, after {schema}, \
                     which has not: name one of them alone, {elsewhere} to use that Helve ({}) or {schema} for \
                     another one",
                    in_url(elsewhere)
                ));
            }
            if neighbours == Neighbours::Refused
                && let Some(refusal) = self.crowded()
            {
                return Some(refusal);
            }
        }
        if !self.place.makes_tables {
            return Some(format!(
                "the role {role} may not make tables in the schema {schema}: grant create on schema {schema} to {role}"
            ));
        }
        if self.applied.contains(AUDIT) {
            return None;
        }
        let Some(audit) = &self.place.audit else {
            return Some(format!(
                "there are schemas called {AUDIT_SCHEMA} and {AUDIT_SCHEMA}_{schema} already, and the audit views need \
                 one of their own: rename one of them"
            ));
        };
        (!self.place.makes_schemas).then(|| {
            format!(
                "the role {role} may not make the schema {audit}, in which the audit views are: \
                 grant create on database {database} to {role}"
            )
        })
    }

    /// The schema has tables of others and Helve is not among them.
    fn crowded(&self) -> Option<String> {
        let schema = self.place.schema.as_deref()?;
        let names = some(&self.strangers)?;
        Some(format!(
            "the schema {schema} has tables that are not Helve's ({names}): give Helve one of its own, \
             `create schema helve` and {} in the URL, or put it beside them with `--into-existing`",
            in_url("helve")
        ))
    }
}

/// What a URL says to name one schema.
fn in_url(schema: &str) -> String {
    format!("`?options=-csearch_path%3D{schema}`")
}

/// The first few of these names, if there are any.
fn some(names: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let shown = names.get(..names.len().min(SHOWN)).filter(|shown| !shown.is_empty())?.join(", ");
    Some(match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    })
}

async fn strangers(conn: &mut AsyncPgConnection, own: &[&str]) -> QueryResult<Vec<String>> {
    let own = own.iter().map(|&name| name.to_owned()).collect();
    Ok(Strangers { own }.load::<Name>(conn).await?.into_iter().map(|row| row.name).collect())
}

/// Whether Helve is there. Tables of others in its schema are only told: who made them later must not keep an engine from
/// its start.
///
/// # Errors
/// `Internal` with a text for the operator; `Unavailable`.
pub async fn check(pool: &Pool) -> Result<()> {
    let home = {
        let mut conn = pool.get().await?;
        Home::look(&mut conn).await.map_err(map_error)?
    };
    if home.is_new() {
        return home.crowded().map_or(Ok(()), |refusal| Err(Error::Internal(refusal)));
    }
    if let Some(names) = some(&neighbours(pool).await?) {
        let schema = home.place.schema.as_deref().unwrap_or_default();
        warn!(schema, "the schema has tables that are not Helve's ({names}): Helve leaves them alone");
    }
    Ok(())
}

/// Tables and views that are in Helve's schema and not Helve's.
///
/// # Errors
/// `Unavailable`.
pub async fn neighbours(pool: &Pool) -> Result<Vec<String>> {
    let own: Vec<&str> = TABLES.into_iter().chain([LIST, BENCH]).collect();
    let mut conn = pool.get().await?;
    strangers(&mut conn, &own).await.map_err(map_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        let place = Place {
            schema: Some("helve".to_owned()),
            search_path: "helve, public".to_owned(),
            database: "shop".to_owned(),
            role: "app".to_owned(),
            listed: false,
            elsewhere: None,
            audit: Some(AUDIT_SCHEMA.to_owned()),
            makes_tables: true,
            makes_schemas: true,
        };
        Home { place, applied: BTreeSet::new(), strangers: Vec::new() }
    }

    #[test]
    fn an_empty_schema_is_taken_and_every_refusal_has_its_remedy() {
        assert_eq!(home().refusal(Neighbours::Refused), None);
        let changed = |change: fn(&mut Place)| {
            let mut home = home();
            change(&mut home.place);
            home.refusal(Neighbours::Refused).unwrap()
        };
        for (refusal, words) in [
            (changed(|p| p.schema = None), ["helve, public", "create schema"]),
            (changed(|p| p.elsewhere = Some("public".to_owned())), ["search_path%3Dpublic", "another one"]),
            (changed(|p| p.makes_tables = false), ["app", "grant create on schema helve"]),
            (changed(|p| p.makes_schemas = false), ["helve_audit", "grant create on database shop"]),
            (changed(|p| p.audit = None), ["helve_audit_helve", "rename"]),
        ] {
            assert!(words.iter().all(|word| refusal.contains(word)), "{words:?}: {refusal}");
        }
    }

    #[test]
    fn tables_of_others_are_named_and_may_be_accepted() {
        let mut home = home();
        home.strangers = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let refusal = home.refusal(Neighbours::Refused).unwrap();
        assert!(refusal.contains("a, b, c and 2 more") && refusal.contains("--into-existing"), "{refusal}");
        assert_eq!(home.refusal(Neighbours::Accepted), None);
        // Who has Helve there has decided.
        home.applied = [FIRST, AUDIT].map(str::to_owned).into();
        assert_eq!(home.refusal(Neighbours::Refused), None);
    }
}
