//! Statements without a closure, so that their futures can be sent between threads: reads, and single writes of tenants.

use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::{QueryableByName, pg::Pg, result::QueryResult};
use diesel_async::methods::LoadQuery;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use helve_domain::error::{Error, Result};
use tracing::{Instrument, debug};

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
        self.whole(|pool| async move {
            match pool.once(statement.clone()).await? {
                Err(e) if is_disconnected(&e) => {
                    debug!(error = %e, "connection lost, reading again");
                    pool.once(statement).await
                }
                other => Ok(other),
            }
        })
        .await
    }

    /// The rows of a statement that writes: once, whatever happens.
    pub(in crate::db) async fn try_write<R, S>(&self, statement: S) -> Result<QueryResult<Vec<R>>>
    where
        R: QueryableByName<Pg> + Send + 'static,
        S: Query + QueryFragment<Pg> + QueryId + LoadQuery<'static, AsyncPgConnection, R> + Send + 'static,
    {
        self.whole(|pool| async move { pool.once(statement).await }).await
    }

    async fn once<R, S>(&self, statement: S) -> Result<QueryResult<Vec<R>>>
    where
        R: QueryableByName<Pg> + Send + 'static,
        S: Query + QueryFragment<Pg> + QueryId + LoadQuery<'static, AsyncPgConnection, R> + Send + 'static,
    {
        let mut conn = self.get().await?;
        Ok(statement.load::<R>(&mut *conn).await)
    }

    /// What a tenant asks runs to its end in the tenant's turn, although the request may be dropped before: the server
    /// goes on with a statement whose client is gone, and the next user of its connection would wait for it.
    async fn whole<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (pool, member) = self.apart();
        let Some(member) = member else { return work(pool).await };
        let turn = member.turn().await?;
        let (stopping, work) = (member.supervisor().stopping(), work(pool));
        let whole = async move {
            let _turn = turn;
            tokio::select! {
                done = work => done,
                () = stopping.cancelled() => Err(Error::unavailable("the engine stops")),
            }
        };
        member.supervisor().shared(whole.in_current_span()).await
    }
}
