//! Whether the database can keep the engine's promises, and whether it answers.

use std::time::Duration;

use diesel::sql_types::{Bool, Integer, Text};
use diesel_async::RunQueryDsl;
use helve_domain::error::{Error, Result};
use helve_postgres::Database;
use tracing::warn;

use super::Pool;
use super::connect;
use super::failure::map_error;

/// Major versions that are tested.
const TESTED: std::ops::RangeInclusive<i32> = 15..=18;
/// Connections beside the pool: two lanes, the lease, the scheduler's reads, and a new one beside a lost one that the
/// server still counts.
pub const BESIDE_POOL: u32 = 5;

/// What of the server's settings matters.
#[derive(Debug, Clone, diesel::QueryableByName)]
struct Settings {
    #[diesel(sql_type = Integer)]
    version_num: i32,
    #[diesel(sql_type = Text)]
    fsync: String,
    #[diesel(sql_type = Text)]
    full_page_writes: String,
    #[diesel(sql_type = Text)]
    synchronous_commit: String,
    #[diesel(sql_type = Text)]
    lc_messages: String,
    #[diesel(sql_type = Text)]
    encoding: String,
    /// Without those kept for superusers.
    #[diesel(sql_type = Integer)]
    connections: i32,
    /// The `CONNECTION LIMIT` of the role that logs in, and of the database. Negative: there is none.
    #[diesel(sql_type = Integer)]
    of_role: i32,
    #[diesel(sql_type = Integer)]
    of_database: i32,
    #[diesel(sql_type = Bool)]
    standby: bool,
    #[diesel(sql_type = Bool)]
    read_only: bool,
}

const SETTINGS: &str = "select current_setting('server_version_num')::int as version_num, \
    current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes, \
    current_setting('synchronous_commit') as synchronous_commit, current_setting('lc_messages') as lc_messages, \
    current_setting('server_encoding') as encoding, \
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
        - coalesce(current_setting('reserved_connections', true)::int, 0) as connections, \
    (select case when r.rolsuper then -1 else r.rolconnlimit end from pg_roles r where r.rolname = session_user) as of_role, \
    (select case when r.rolsuper then -1 else d.datconnlimit end from pg_roles r, pg_database d \
        where r.rolname = session_user and d.datname = current_database()) as of_database, \
    pg_is_in_recovery() as standby, current_setting('transaction_read_only')::bool as read_only";

#[derive(Debug, Default)]
struct Verdict {
    /// The engine cannot work.
    refused: Vec<String>,
    /// It works, but a crash of the database loses what was accepted.
    unsafe_settings: Vec<String>,
    /// An operator should know.
    warnings: Vec<String>,
}

fn judge(s: &Settings, pool_size: u32) -> Verdict {
    let mut v = Verdict::default();
    let (major, minor) = (s.version_num / 10_000, s.version_num % 10_000);
    if major < *TESTED.start() {
        v.refused.push(format!("PostgreSQL {major}.{minor} is too old: {} or newer is needed", TESTED.start()));
    } else if major > *TESTED.end() {
        v.warnings.push(format!("PostgreSQL {major} is newer than what was tested ({} to {})", 15, TESTED.end()));
    }
    if s.standby {
        v.refused.push("the server is a standby: the engine needs the primary".to_owned());
    } else if s.read_only {
        v.refused.push("transactions are read-only: see default_transaction_read_only".to_owned());
    }
    if s.encoding != "UTF8" {
        v.refused.push(format!("the database has the encoding {}: UTF8 is needed", s.encoding));
    }
    v.refused.extend(too_few(s, pool_size + BESIDE_POOL));
    for (name, value) in
        [("fsync", &s.fsync), ("full_page_writes", &s.full_page_writes), ("synchronous_commit", &s.synchronous_commit)]
    {
        if value == "off" {
            v.unsafe_settings.push(format!("{name} is off: a crash can lose runs that were accepted"));
        }
    }
    let english = ["C", "POSIX", ""].contains(&s.lc_messages.as_str()) || s.lc_messages.starts_with("en");
    if !english {
        v.warnings.push(format!(
            "lc_messages is {} and this role may not change it: grant SET on it, or deadlocks are not retried",
            s.lc_messages
        ));
    }
    v
}

/// Who allows fewer connections than the engine needs.
fn too_few(s: &Settings, needed: u32) -> Vec<String> {
    let limits = [
        (Some(s.connections), "the server", "raise max_connections"),
        (Some(s.of_role).filter(|n| *n >= 0), "the role", "`alter role .. connection limit`"),
        (Some(s.of_database).filter(|n| *n >= 0), "the database", "`alter database .. connection limit`"),
    ];
    let few = limits.into_iter().filter_map(|(limit, who, remedy)| Some((limit?, who, remedy)));
    few.filter(|(limit, ..)| u32::try_from(*limit).unwrap_or(0) < needed)
        .map(|(limit, who, remedy)| {
            format!(
                "{who} allows {limit} connections and the engine needs {needed}: {remedy}, or lower \
                 HELVE_DATABASE_POOL_SIZE"
            )
        })
        .collect()
}

/// Looks at the server's settings before anything is accepted; warnings are logged.
///
/// # Errors
/// `Internal` with a text for the operator: why the server cannot be reached, or every reason why it must
/// not be used. `allow_unsafe` turns settings that can lose accepted work into warnings.
pub async fn check(database: &Database, allow_unsafe: bool) -> Result<()> {
    let mut conn = connect::connect_verbosely(database, "check").await?;
    let settings: Settings = diesel::sql_query(SETTINGS).get_result(&mut conn).await.map_err(map_error)?;
    let mut verdict = judge(&settings, database.pool_size);
    if allow_unsafe {
        verdict.warnings.append(&mut verdict.unsafe_settings);
    }
    for warning in &verdict.warnings {
        warn!("database: {warning}");
    }
    let hint =
        if verdict.unsafe_settings.is_empty() { "" } else { " (--allow-unsafe-settings accepts the loss of data)" };
    let reasons = [verdict.refused, verdict.unsafe_settings].concat();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Error::Internal(format!("this database cannot be used: {}{hint}", reasons.join("; "))))
}

/// Whether the database answers a query within two seconds.
pub async fn ping(pool: &Pool) -> Result<()> {
    let asked = pool.run(async |conn| diesel::sql_query("select 1").execute(conn).await);
    let late = || Error::unavailable("the database does not answer");
    tokio::time::timeout(Duration::from_secs(2), asked).await.map_err(|_| late())?.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Settings {
        Settings {
            version_num: 15_0018,
            fsync: "on".into(),
            full_page_writes: "on".into(),
            synchronous_commit: "on".into(),
            lc_messages: "C".into(),
            encoding: "UTF8".into(),
            connections: 97,
            of_role: -1,
            of_database: -1,
            standby: false,
            read_only: false,
        }
    }

    #[test]
    fn a_plain_server_passes_without_a_word() {
        let v = judge(&good(), 8);
        assert!(v.refused.is_empty() && v.unsafe_settings.is_empty() && v.warnings.is_empty(), "{v:?}");
    }

    #[test]
    fn what_breaks_promises_is_refused_by_name() {
        for (settings, word) in [
            (Settings { version_num: 14_0012, ..good() }, "too old"),
            (Settings { standby: true, read_only: true, ..good() }, "standby"),
            (Settings { read_only: true, ..good() }, "read-only"),
            (Settings { connections: 12, ..good() }, "needs 13"),
            (Settings { of_role: 12, ..good() }, "the role allows 12"),
            (Settings { of_database: 0, ..good() }, "the database allows 0"),
            (Settings { encoding: "SQL_ASCII".into(), ..good() }, "UTF8"),
        ] {
            let v = judge(&settings, 8);
            assert!(v.refused.len() == 1 && v.refused[0].contains(word), "{word}: {v:?}");
        }
        let v = judge(&Settings { synchronous_commit: "off".into(), fsync: "off".into(), ..good() }, 8);
        assert_eq!(v.unsafe_settings.len(), 2);
        assert!(v.refused.is_empty());
        let v = judge(&Settings { version_num: 19_0001, lc_messages: "de_DE.UTF-8".into(), ..good() }, 8);
        assert_eq!(v.warnings.len(), 2);
    }
}
