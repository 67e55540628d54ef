//! Settings of a connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use helve_domain::secret::Secret;

use crate::target;

/// Where PostgreSQL is and how it is used.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Database {
    /// A `postgres://` URL, with `sslmode` up to `verify-full`.
    #[serde(serialize_with = "without_password")]
    pub url: Secret,
    /// Connections for reads and everything that is not a lane. Lanes and the lease have their own.
    pub pool_size: u32,
    /// The longest that a read may take.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub statement_timeout: Duration,
    /// The schema of Helve's tables, once it is known. Clones share it.
    #[serde(skip)]
    pub home: Home,
}

impl Database {
    /// The database at `url` with every default.
    pub fn at(url: impl Into<String>) -> Self {
        let statement_timeout = Duration::from_secs(10);
        Self { url: Secret::new(url), pool_size: 8, statement_timeout, home: Home::default() }
    }
}

fn without_password<S: serde::Serializer>(url: &Secret, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&target::shown(url.reveal()))
}

/// A schema that is decided once: the first connection finds it, and every later one uses it, whatever schemas and
/// settings of roles have come in between.
#[derive(Debug, Clone, Default)]
pub struct Home(Arc<OnceLock<String>>);

impl Home {
    /// Which schema, if that is known.
    pub fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Decides; gives what was decided, which is another one's word where that was earlier.
    pub fn decide(&self, schema: String) -> &str {
        self.0.get_or_init(|| schema)
    }
}
