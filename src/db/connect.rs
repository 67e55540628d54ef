//! Connections: the pool for everything that is not a lane, and single ones for lanes and leases.

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::bb8;

use crate::config::Database;
use crate::error::{Error, Result};

/// Connections for reads and transactions off the hot path.
#[derive(Clone)]
pub struct Pool(bb8::Pool<AsyncPgConnection>);

impl Pool {
    /// A pool on `database`; connects when first used.
    pub fn new(database: &Database) -> Result<Self> {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(database.url.reveal());
        Ok(Self(bb8::Pool::builder().max_size(database.pool_size).test_on_check_out(false).build_unchecked(manager)))
    }

    /// A connection.
    pub(in crate::db) async fn get(&self) -> Result<bb8::PooledConnection<'_, AsyncPgConnection>> {
        self.0.get().await.map_err(|e| Error::Internal(e.to_string()))
    }
}
