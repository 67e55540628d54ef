//! Where the database is: the arguments that several commands share.

use std::time::Duration;

use helve_domain::error::{Error, Result};
use helve_domain::secret::Secret;
use helve_postgres::Database;

use crate::db::Pool;
use crate::db::migrate;

/// The database of an operator.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DatabaseArgs {
    /// `postgres://user:password@host:port/name`, with `sslmode` up to `verify-full`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    #[command(flatten)]
    pub tuning: Tuning,
}

/// How the database is used.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Tuning {
    /// Connections for everything but the two lanes and the lease, which have their own [default: 8]
    #[arg(long, env = "HELVE_DATABASE_POOL_SIZE", value_name = "N", hide_short_help = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000), help_heading = "Database")]
    database_pool_size: Option<u32>,
    /// The longest that a read may take [default: 10s]
    #[arg(long, env = "HELVE_DATABASE_STATEMENT_TIMEOUT", value_name = "DURATION", hide_short_help = true)]
    #[arg(value_parser = helve_terminal::args::span, help_heading = "Database")]
    database_statement_timeout: Option<Duration>,
}

impl Tuning {
    /// The database at `url`, used in this way.
    pub fn at(self, url: &str) -> Database {
        let usual = Database::at(url);
        Database {
            url: Secret::new(url),
            pool_size: self.database_pool_size.unwrap_or(usual.pool_size),
            statement_timeout: self.database_statement_timeout.unwrap_or(usual.statement_timeout),
            home: usual.home,
            reach: usual.reach,
        }
    }
}

impl DatabaseArgs {
    /// The database, or the end of the program with a word on what is missing.
    pub fn required(&self) -> Database {
        let url = self.database_url.as_deref().filter(|url| !url.is_empty());
        match url {
            Some(url) => self.tuning.at(url),
            None => super::usage("set DATABASE_URL or --database-url".to_owned()),
        }
    }

    /// A pool for the few statements of one command, on a database that is up to date.
    pub async fn open(&self) -> Result<Pool> {
        let pool = Pool::new(&Database { pool_size: 1, ..self.required() })?;
        let pending = migrate::pending(&pool).await?;
        if pending.is_empty() { Ok(pool) } else { Err(out_of_date(&pending)) }
    }
}

/// What to do about a schema of an older version.
fn out_of_date(pending: &[String]) -> Error {
    Error::Internal(format!("the database lacks {}: run `helve migrate`", pending.join(", ")))
}
