//! The schema's changes, carried in the binary and applied one process at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::sql_types::Text;
use diesel_async::{AsyncMigrationHarness, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::connect::{self, Pool};
use crate::config::Database;
use crate::error::{Error, Result};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The advisory lock under which one process migrates: "helve" in ASCII.
const LOCK: i64 = 0x68_65_6c_76_65;

/// Applies what is missing; the names of what was applied. Others that migrate at the same time wait up
/// to a minute.
///
/// # Errors
/// `Internal` with the text of the database when a change fails: that change has no effect, those before
/// it stay.
pub async fn migrate(database: &Database) -> Result<Vec<String>> {
    // A change of a large table may take longer than any read.
    let patient = Database { statement_timeout: Duration::ZERO, ..database.clone() };
    let mut conn = connect::connect_verbosely(&patient, "migrate").await?;
    let lock = format!("set lock_timeout = '60s'; select pg_advisory_lock({LOCK}); reset lock_timeout");
    conn.batch_execute(&lock)
        .await
        .map_err(|e| Error::Internal(format!("another process migrates this database: {e}")))?;
    // Diesel's migrations are blocking code that drives the asynchronous connection.
    tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(conn);
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| Error::Internal(format!("migration failed: {e}"));
        let pending = harness.pending_migrations(MIGRATIONS).map_err(failed)?;
        let mut applied = Vec::with_capacity(pending.len());
        for migration in pending {
            harness.run_migration(&migration).map_err(failed)?;
            applied.push(migration.name().to_string());
        }
        Ok(applied)
    })
    .await
    .map_err(|e| Error::Internal(format!("migration did not end: {e}")))?
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
    let applied: BTreeSet<String> = applied.into_iter().map(|v| v.version).collect();
    let all: Vec<Box<dyn Migration<Pg>>> =
        MIGRATIONS.migrations().map_err(|e| Error::Internal(format!("embedded migrations: {e}")))?;
    let missing = all.iter().filter(|m| !applied.contains(&m.name().version().to_string()));
    Ok(missing.map(|m| m.name().to_string()).collect())
}
