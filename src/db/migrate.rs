//! The schema's changes, carried in the binary and applied one process at a time.

use std::time::Duration;

use diesel::connection::Connection;
use diesel::migration::{Migration, MigrationMetadata, MigrationName, MigrationSource};
use diesel::pg::Pg;
use diesel::sql_types::Text;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use helve_domain::error::{Error, Result};
use helve_postgres::Database;
use tracing::{info, warn};

use super::Pool;
use super::connect;
use super::home::{AUDIT_SCHEMA, Home, Neighbours};
use super::session;
use super::statement::statement;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
/// Changes whose text names the schema of the audit views, which is another one in a database that has them already.
const NAMES_AUDIT: [(&str, &str, &str); 2] = [
    (
        "20261124000021",
        include_str!("../../migrations/2026-11-24-000021_audit/up.sql"),
        include_str!("../../migrations/2026-11-24-000021_audit/down.sql"),
    ),
    (
        "20261130000024",
        include_str!("../../migrations/2026-11-30-000024_attempt_started/up.sql"),
        include_str!("../../migrations/2026-11-30-000024_attempt_started/down.sql"),
    ),
];

/// The advisory lock under which one process migrates: "helve" in ASCII.
const LOCK: i64 = 0x68_65_6c_76_65;
/// A change must not queue up in front of the lanes: it waits that long for a table, and then lets all others go on
/// for [`REST`].
const PATIENCE: &str = "50ms";
const REST: Duration = Duration::from_millis(500);
/// How often it tries: two minutes in all.
const TRIES: u32 = 220;
/// Every so many tries it says what it waits for, and once before that.
const WORD: u32 = 20;
const FIRST_WORD: u32 = 4;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Change = Box<dyn Migration<Pg>>;

statement! {
    /// Sessions that have used Helve's tables for a while.
    Users("sql/home/users.sql") {
        "1" => longer: f64 as diesel::sql_types::Double,
    }
}

/// Applies what is missing; the names of what was applied. A new Helve gets a schema without tables of others. Others
/// that migrate at the same time wait up to a minute.
///
/// # Errors
/// `Internal` with a text for the operator: why nothing may be changed here, who holds a table for longer than two
/// minutes, or the words of the database when a change fails. A new Helve is then not there at all; of an upgrade
/// the changes before the failed one stay.
pub async fn migrate(database: &Database) -> Result<Vec<String>> {
    migrate_beside(database, Neighbours::Refused).await
}

/// As [`migrate`]; says whether a new Helve may be put beside tables of others.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_beside(database: &Database, neighbours: Neighbours) -> Result<Vec<String>> {
    // A change of a large table may take longer than any read.
    let patient = Database { statement_timeout: Duration::ZERO, ..database.clone() };
    let mut conn = connect::connect_unpinned(&patient, "migrate").await?;
    let lock = format!("set lock_timeout = '60s'; select pg_advisory_lock({LOCK}); set lock_timeout = '{PATIENCE}'");
    conn.batch_execute(&lock)
        .await
        .map_err(|e| Error::Internal(format!("another process migrates this database: {e}")))?;
    let home = Home::look(&mut conn).await.map_err(|e| Error::Internal(format!("the database cannot be read: {e}")))?;
    if let Some(refusal) = home.refusal(neighbours) {
        return Err(Error::Internal(format!("nothing was changed: {refusal}")));
    }
    let schema = home.schema().unwrap_or_default().to_owned();
    // What others put in front of it while the changes are made is not met.
    conn.batch_execute(&session::pin(&schema)).await.map_err(|e| Error::Internal(format!("migration failed: {e}")))?;
    let changes = Changes { audit: home.audit_schema().to_owned() };
    if !home.is_new() {
        return upgrade(conn, changes).await;
    }
    if changes.audit != AUDIT_SCHEMA {
        info!(schema = changes.audit, "the audit views of this Helve have a schema of another name");
    }
    let (_, installed) = blocking(conn, move |conn| install(conn, &changes)).await?;
    installed.map_err(|e| Error::Internal(format!("migration failed, and nothing was changed: {e}")))
}

/// Every change in one transaction: all of Helve, or nothing.
fn install(conn: &mut Blocking, changes: &Changes) -> std::result::Result<Vec<String>, Failure> {
    conn.transaction(|conn| {
        let all = conn.pending_migrations(changes)?;
        all.iter().map(|change| conn.run_migration(change).map(|_| change.name().to_string())).collect()
    })
}

/// One change after the other, each when it gets its tables.
async fn upgrade(mut conn: AsyncPgConnection, changes: Changes) -> Result<Vec<String>> {
    let mut applied = Vec::new();
    for attempt in 1..=TRIES {
        let changes = changes.clone();
        let (back, outcome) = blocking(conn, move |conn| {
            let mut done = Vec::new();
            let outcome = next_changes(conn, &changes, &mut done);
            (done, outcome)
        })
        .await?;
        conn = back;
        let (done, outcome) = outcome;
        applied.extend(done);
        match outcome {
            Ok(()) => return Ok(applied),
            Err(e) if e.to_string().contains("lock timeout") => {
                if attempt % WORD == 0 || attempt == FIRST_WORD {
                    warn!("a change waits for {}", users(&mut conn).await);
                }
                tokio::time::sleep(REST).await;
            }
            Err(e) => return Err(Error::Internal(format!("migration failed: {e}"))),
        }
    }
    Err(Error::Internal(format!(
        "a change did not get its tables within two minutes: {} uses them; applied until then: {}",
        users(&mut conn).await,
        if applied.is_empty() { "nothing".to_owned() } else { applied.join(", ") }
    )))
}

fn next_changes(conn: &mut Blocking, changes: &Changes, done: &mut Vec<String>) -> std::result::Result<(), Failure> {
    for change in conn.pending_migrations(changes)? {
        conn.run_migration(&change)?;
        done.push(change.name().to_string());
    }
    Ok(())
}

#[derive(diesel::QueryableByName)]
struct Session {
    #[diesel(sql_type = Text)]
    session: String,
}

/// Who keeps a change waiting, for a person.
async fn users(conn: &mut AsyncPgConnection) -> String {
    let rows: diesel::QueryResult<Vec<Session>> = Users { longer: 1.0 }.load(conn).await;
    let sessions: Vec<String> = rows.unwrap_or_default().into_iter().map(|row| row.session).collect();
    if sessions.is_empty() { "another session".to_owned() } else { sessions.join(", ") }
}

/// A connection for Diesel's migrations, which are blocking code.
type Blocking = AsyncConnectionWrapper<AsyncPgConnection>;

async fn blocking<T: Send + 'static>(
    conn: AsyncPgConnection,
    work: impl FnOnce(&mut Blocking) -> T + Send + 'static,
) -> Result<(AsyncPgConnection, T)> {
    tokio::task::spawn_blocking(move || {
        let mut conn = Blocking::from(conn);
        let done = work(&mut conn);
        (conn.into_inner(), done)
    })
    .await
    .map_err(|e| Error::Internal(format!("migration did not end: {e}")))
}

/// All changes, with the audit views in the schema that they have or get.
#[derive(Debug, Clone)]
struct Changes {
    audit: String,
}

impl MigrationSource<Pg> for &Changes {
    fn migrations(&self) -> std::result::Result<Vec<Change>, Failure> {
        let named = |change: Change| -> Change {
            let version = change.name().version().to_string();
            match NAMES_AUDIT.iter().find(|(of, ..)| *of == version) {
                Some((_, up, down)) if self.audit != AUDIT_SCHEMA => {
                    Box::new(Renamed::new(change, up, down, &self.audit))
                }
                _ => change,
            }
        };
        Ok(MIGRATIONS.migrations()?.into_iter().map(named).collect())
    }
}

/// A change whose audit views are in a schema of another name.
struct Renamed {
    change: Change,
    up: String,
    down: String,
}

impl Renamed {
    fn new(change: Change, up: &str, down: &str, schema: &str) -> Self {
        let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
        Self { change, up: up.replace(AUDIT_SCHEMA, &quoted), down: down.replace(AUDIT_SCHEMA, &quoted) }
    }
}

impl Migration<Pg> for Renamed {
    fn run(&self, conn: &mut dyn diesel::connection::BoxableConnection<Pg>) -> std::result::Result<(), Failure> {
        Ok(conn.batch_execute(&self.up)?)
    }

    fn revert(&self, conn: &mut dyn diesel::connection::BoxableConnection<Pg>) -> std::result::Result<(), Failure> {
        Ok(conn.batch_execute(&self.down)?)
    }

    fn metadata(&self) -> &dyn MigrationMetadata {
        self.change.metadata()
    }

    fn name(&self) -> &dyn MigrationName {
        self.change.name()
    }
}

#[derive(diesel::QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[derive(diesel::QueryableByName)]
struct Known {
    #[diesel(sql_type = diesel::sql_types::Bool)]
    known: bool,
}

/// The name of the last change of the schema that this program has.
///
/// # Errors
/// `Internal` when the embedded changes cannot be read.
pub fn latest() -> Result<String> {
    Ok(all()?.iter().map(|change| change.name().to_string()).max().unwrap_or_default())
}

fn all() -> Result<Vec<Change>> {
    MIGRATIONS.migrations().map_err(|e| Error::Internal(format!("embedded migrations: {e}")))
}

/// The names of changes that this program has and the database has not. Writes nothing.
pub async fn pending(pool: &Pool) -> Result<Vec<String>> {
    let applied = pool
        .run(async |conn| {
            // A database that was never migrated has no such table.
            let table = "select to_regclass('__diesel_schema_migrations') is not null as known";
            let known: Known = diesel::sql_query(table).get_result(conn).await?;
            if !known.known {
                return Ok(Vec::new());
            }
            diesel::sql_query("select version from __diesel_schema_migrations").load::<Version>(conn).await
        })
        .await?;
    let applied: std::collections::BTreeSet<String> = applied.into_iter().map(|v| v.version).collect();
    let all = all()?;
    let missing = all.iter().filter(|m| !applied.contains(&m.name().version().to_string()));
    Ok(missing.map(|m| m.name().to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_that_names_the_schema_of_the_audit_views_can_name_another_one() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut naming = Vec::new();
        for change in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let texts = ["up.sql", "down.sql"].map(|file| std::fs::read_to_string(change.join(file)).unwrap());
            if texts.iter().any(|text| text.contains(AUDIT_SCHEMA)) {
                let name = change.file_name().unwrap().to_string_lossy().replace('-', "");
                naming.push(name.split('_').next().unwrap().to_owned());
            }
        }
        naming.sort();
        assert_eq!(naming, NAMES_AUDIT.map(|(version, ..)| version));
    }
}
