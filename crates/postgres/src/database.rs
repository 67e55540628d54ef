//! Settings of a connection.

use std::time::Duration;

use helve_domain::secret::Secret;

/// Where PostgreSQL is and how it is used.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Database {
    /// A `postgres://` URL, with `sslmode` up to `verify-full`.
    pub url: Secret,
    /// Connections for reads and everything that is not a lane. Lanes and the lease have their own.
    pub pool_size: u32,
    /// The longest that a read may take.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub statement_timeout: Duration,
}

impl Database {
    /// The database at `url` with every default.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url), pool_size: 8, statement_timeout: Duration::from_secs(10) }
    }
}
