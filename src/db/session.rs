//! What a session of Helve is, whoever opens it: what roles, databases and URLs may say otherwise is said here, once for
//! each connection and before its first statement. See docs/decisions/0030.

use std::fmt::Write as _;

use diesel::ConnectionError;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use helve_postgres::Database;
use tracing::warn;

use super::home::Find;

/// Settings that every session has, each with what breaks without it. What a role may not set is in [`IF_ALLOWED`].
const SETTINGS: [(&str, &str); 9] = [
    // A transaction that its process has left would keep its locks for ever.
    ("idle_in_transaction_session_timeout", "'60s'"),
    // Lanes and the lease rest as long as there is no work; an engine without them is taken for dead.
    ("idle_session_timeout", "0"),
    // What waits for a lock has a bound of its own, or `statement_timeout`. With a short one of the role a write fails
    // wherever two engines meet.
    ("lock_timeout", "0"),
    // The fence reads a lane's row again after it has waited for it, which only this isolation does.
    ("default_transaction_isolation", "'read committed'"),
    // With `off` a backslash in a statement's literal means something else.
    ("standard_conforming_strings", "on"),
    // With `on` a `null` that a statement compares with is another condition.
    ("transform_null_equals", "off"),
    // The bounds of weeks are read from the text that the server makes of them.
    ("DateStyle", "'ISO, YMD'"),
    ("IntervalStyle", "'postgres'"),
    // With policies on a table of Helve, a role that they bind would not see some of its rows, and lose runs in silence.
    // Now its statements are refused, which says so.
    ("row_security", "off"),
];

/// Settings that some servers do not have or some roles may not set.
const IF_ALLOWED: [(&str, &str); 2] = [
    // Some errors are told apart by their words. Only a superuser may set it, and others have it from their database;
    // the check at the start warns where that is not English.
    ("lc_messages", "C"),
    // A drop of a week or a change of the schema may take long. New in PostgreSQL 17.
    ("transaction_timeout", "0"),
];

/// Which schemas a session looks for its tables in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::db) enum Path {
    /// Helve's home and no other.
    Home,
    /// As the URL, the role and the database say: for who is to find out where Helve is, or make it.
    AsItComes,
}

/// Makes a session of a connection: one round trip, but for the first connection of a process, which looks for the home.
pub(in crate::db) async fn set_up(
    conn: &mut AsyncPgConnection,
    database: &Database,
    path: Path,
) -> Result<(), ConnectionError> {
    let failed = ConnectionError::CouldntSetupConfiguration;
    let mut text = settings(database);
    let known = database.home.get().filter(|_| path == Path::Home);
    if let Some(schema) = known {
        text.push_str(&pin(schema));
    }
    conn.batch_execute(&text).await.map_err(failed)?;
    if known.is_some() || path == Path::AsItComes {
        return Ok(());
    }
    let found = Find::new().get_result::<super::home::Found>(conn).await.map_err(failed)?;
    let schema = match found.homes.split_first() {
        Some((first, others)) => {
            if !others.is_empty() {
                warn!(schema = first, "the search_path has Helve in other schemas, too: {}", others.join(", "));
            }
            Some(database.home.decide(first.clone()).to_owned())
        }
        // Where it would be put. Not decided: it may still come.
        None => found.otherwise,
    };
    match schema {
        Some(schema) => conn.batch_execute(&pin(&schema)).await.map_err(failed),
        None => Ok(()),
    }
}

/// What makes a session look for names in one schema. `pg_catalog` comes before it unless it is named, and temporary
/// tables come before both unless they are.
pub(in crate::db) fn pin(schema: &str) -> String {
    format!("set search_path = \"{}\", pg_temp; ", schema.replace('"', "\"\""))
}

fn settings(database: &Database) -> String {
    let mut text = format!("set statement_timeout = {}; ", database.statement_timeout.as_millis());
    for (name, value) in SETTINGS {
        let _ = write!(text, "set {name} = {value}; ");
    }
    for (name, value) in IF_ALLOWED {
        let _ = write!(
            text,
            "do $$ begin perform pg_catalog.set_config('{name}', '{value}', false); exception when others then null; \
             end $$; "
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_of_any_name_is_pinned_as_one_name() {
        assert_eq!(pin("helve"), "set search_path = \"helve\", pg_temp; ");
        assert_eq!(pin("a\"; drop"), "set search_path = \"a\"\"; drop\", pg_temp; ");
    }
}
