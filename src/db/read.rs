//! Reading with a statement of its own: `Pool::run` without a closure, so that its future can be sent between threads.

use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::{QueryableByName, pg::Pg, result::QueryResult};
use diesel_async::methods::LoadQuery;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use helve_domain::error::Result;
use tracing::debug;

use super::Pool;
use super::failure::{is_disconnected, map_error};

impl Pool {
    /// The rows of a read; once more on a fresh connection when it meets one that has just died.
    pub(in crate::db) async fn load<R, S>(&self, statement: S) -> Result<Vec<R>>
    where
        R: QueryableByName<Pg> + Send + 'static,
        S: Clone + Query + QueryFragment<Pg> + QueryId + LoadQuery<'static, AsyncPgConnection, R> + Send + 'static,
    {
        self.try_load(statement).await?.map_err(map_error)
    }

    /// As [`Pool::load`], with the database's own error for a caller that makes something of it.
    pub(in crate::db) async fn try_load<R, S>(&self, statement: S) -> Result<QueryResult<Vec<R>>>
    where
        R: QueryableByName<Pg> + Send + 'static,
        S: Clone + Query + QueryFragment<Pg> + QueryId + LoadQuery<'static, AsyncPgConnection, R> + Send + 'static,
    {
        let first = {
            let mut conn = self.get().await?;
            statement.clone().load::<R>(&mut conn).await
        };
        match first {
            Err(e) if is_disconnected(&e) => {
                debug!(error = %e, "connection lost, reading again");
                let mut conn = self.get().await?;
                Ok(statement.load::<R>(&mut conn).await)
            }
            other => Ok(other),
        }
    }
}
