//! Connections: the pool for everything that is not a lane, and single ones for lanes and leases.

use std::sync::Arc;
use std::time::Duration;

use diesel::ConnectionError;
use diesel::result::{DatabaseErrorKind, QueryResult};
use diesel_async::pooled_connection::bb8::{self, RunError};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError, PoolableConnection, RecyclingMethod,
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use helve_domain::error::{Error, Result};
use helve_postgres::Database;
use helve_postgres::target::Target;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, NoTlsStream};
use tokio_postgres::{Client, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, warn};

use super::driven::{Driven, Driver};
use super::failure::{is_disconnected, map_error};
use super::sqlstate::{self, LastState, Listened, Listening, Plainly};

/// The longest that opening a connection, or waiting for one of the pool, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where PostgreSQL listens unless told otherwise.
const DEFAULT_PORT: u16 = 5432;

/// Connections for reads and transactions off the hot path. Cheap to clone.
#[derive(Clone)]
pub struct Pool(bb8::Pool<AsyncPgConnection>);

/// A connection of the pool.
pub(in crate::db) type Pooled<'a> = bb8::PooledConnection<'a, AsyncPgConnection>;

/// Opens a connection for one purpose; `name` appears in `pg_stat_activity` as `helve:<name>`.
///
/// # Errors
/// `Unavailable` when the server cannot be reached, refuses, or does not answer in 5 s (the reason is
/// logged); `Internal` when the URL or a certificate file cannot be read.
pub async fn connect(database: &Database, name: &str) -> Result<AsyncPgConnection> {
    let target = Target::new(database, name)?;
    open(&target, database.statement_timeout).await.map_err(|e| {
        warn!(error = %e, connection = name, "the database cannot be reached");
        Error::unavailable("the database cannot be reached")
    })
}

/// As [`connect`], with the server's or the driver's own words: for a person at a terminal.
pub(in crate::db) async fn connect_verbosely(database: &Database, name: &str) -> Result<AsyncPgConnection> {
    let target = Target::new(database, name)?;
    let failed = |e| Error::Internal(format!("the database cannot be reached: {e}"));
    open(&target, database.statement_timeout).await.map_err(failed)
}

/// As [`connect`], for an owner who awaits one statement after another: see [`super::driven`].
pub(in crate::db) async fn connect_driven(database: &Database, name: &str) -> Result<Driven> {
    let target = Target::new(database, name)?;
    let opened = async {
        let last_error = LastState::default();
        let (client, mut driver) = raw(&target, &last_error).await?;
        let conn = driver.drive(AsyncPgConnection::try_from(client)).await?;
        let mut driven = Driven { conn, driver, last_error };
        let Driven { conn, driver, .. } = &mut driven;
        driver.drive(set_up(conn, database.statement_timeout)).await?;
        Ok(driven)
    };
    in_time(opened).await.map_err(|e: ConnectionError| {
        warn!(error = %e, connection = name, "the database cannot be reached");
        Error::unavailable("the database cannot be reached")
    })
}

async fn open(target: &Target, statement_timeout: Duration) -> Result<AsyncPgConnection, ConnectionError> {
    let opened = async {
        let mut conn = dial(target).await?;
        set_up(&mut conn, statement_timeout).await?;
        Ok(conn)
    };
    in_time(opened).await
}

async fn in_time<T>(opened: impl Future<Output = Result<T, ConnectionError>>) -> Result<T, ConnectionError> {
    let late = || ConnectionError::BadConnection(format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, opened).await.unwrap_or_else(|_| Err(late()))
}

async fn set_up(conn: &mut AsyncPgConnection, statement_timeout: Duration) -> Result<(), ConnectionError> {
    // Only a superuser may set lc_messages; others have it from their database, and the check at
    // the start warns when that is not English (deadlocks reach us as text).
    // What a role or database may set against idle sessions and long transactions is not meant for an engine: its
    // connections are idle as long as there is no work. And the fence reads a lane's row again after it has waited
    // for it, which only this isolation does.
    let setup = format!(
        "set statement_timeout = {}; set idle_in_transaction_session_timeout = '60s'; set idle_session_timeout = 0; \
         set default_transaction_isolation = 'read committed'; \
         do $$ begin perform set_config('lc_messages', 'C', false); exception when others then null; end $$; \
         do $$ begin perform set_config('transaction_timeout', '0', false); exception when others then null; end $$",
        statement_timeout.as_millis()
    );
    conn.batch_execute(&setup).await.map_err(ConnectionError::CouldntSetupConfiguration)
}

async fn dial(target: &Target) -> Result<AsyncPgConnection, ConnectionError> {
    match reach(target).await? {
        Reached::Tls(client, driver) => AsyncPgConnection::try_from_client_and_connection(client, *driver).await,
        Reached::Plain(client, driver) => AsyncPgConnection::try_from_client_and_connection(client, *driver).await,
    }
}

/// A connection for an owner who drives it; the codes of its errors are noted in `last`.
async fn raw(target: &Target, last: &LastState) -> Result<(Client, Driver), ConnectionError> {
    let bad = |e: tokio_postgres::Error| ConnectionError::BadConnection(with_causes(&e));
    let last = last.clone();
    let mut config = target.config.clone();
    if let Some(tls) = &target.tls {
        let connector = Listening { connector: MakeRustlsConnect::new(tls.as_ref().clone()), last: last.clone() };
        // With `prefer` the driver would go on unheard where the server has no TLS.
        match config.ssl_mode(SslMode::Require).connect(connector).await {
            Ok((client, connection)) => return Ok((client, driving(connection))),
            Err(e) if is_no_tls(target, &e) => debug!(error = %with_causes(&e), "TLS failed, going on without"),
            Err(e) => return Err(bad(e)),
        }
    }
    config.ssl_mode(SslMode::Disable);
    match config.get_hosts() {
        [Host::Unix(dir)] => {
            let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
            let stream = sqlstate::local(dir, port).await.map_err(|e| ConnectionError::BadConnection(e.to_string()))?;
            let raw = config.connect_raw(Listened::new(stream, last), NoTls).await;
            raw.map(|(client, connection)| (client, driving(connection))).map_err(bad)
        }
        hosts if !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Tcp(_))) => {
            let connector = Listening { connector: Plainly, last };
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            config.connect(connector).await.map(|(client, connection)| (client, driving(connection))).map_err(bad)
        }
        // Addresses without names, or local sockets among others: the codes of its errors stay unknown.
        _ => config.connect(NoTls).await.map(|(client, connection)| (client, driving(connection))).map_err(bad),
    }
}

/// The end of the connection reaches the waiting statement as an error of its own.
fn driving(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) -> Driver {
    Driver::new(async move { drop(connection.await) })
}

/// Whether the server has no TLS and `sslmode` allows to go on without.
fn is_no_tls(target: &Target, e: &tokio_postgres::Error) -> bool {
    target.fall_back && e.to_string().contains("TLS")
}

/// A connection of the driver below, before anybody drives it.
enum Reached {
    Tls(Client, Box<Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>>),
    Plain(Client, Box<Connection<Socket, NoTlsStream>>),
}

async fn reach(target: &Target) -> Result<Reached, ConnectionError> {
    let bad = |e: &tokio_postgres::Error| ConnectionError::BadConnection(with_causes(e));
    if let Some(tls) = &target.tls {
        match target.config.connect(MakeRustlsConnect::new(tls.as_ref().clone())).await {
            Ok((client, driver)) => return Ok(Reached::Tls(client, Box::new(driver))),
            Err(e) if is_no_tls(target, &e) => debug!(error = %with_causes(&e), "TLS failed, going on without"),
            Err(e) => return Err(bad(&e)),
        }
    }
    let mut config = target.config.clone();
    let (client, driver) = config.ssl_mode(SslMode::Disable).connect(NoTls).await.map_err(|e| bad(&e))?;
    Ok(Reached::Plain(client, Box::new(driver)))
}

/// The driver's errors say what failed, their sources why.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

impl Pool {
    /// A pool on `database`; connects when first used.
    ///
    /// # Errors
    /// `Internal` when the URL or a certificate file cannot be read.
    pub fn new(database: &Database) -> Result<Self> {
        let target = Arc::new(Target::new(database, "pool")?);
        let statement_timeout = database.statement_timeout;
        let mut config = ManagerConfig::default();
        config.custom_setup = Box::new(move |_| {
            let target = Arc::clone(&target);
            async move { open(&target, statement_timeout).await }.boxed()
        });
        // The check at every checkout asks memory, not the server: it costs no round trip, and after a
        // restart of the database no caller meets the dead connections of before.
        config.recycling_method = RecyclingMethod::CustomFunction(Box::new(|conn| {
            let broken = conn.is_broken();
            async move { if broken { Err(closed()) } else { Ok(()) } }.boxed()
        }));
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new_with_config("", config);
        let pool = bb8::Pool::builder()
            .max_size(database.pool_size)
            .connection_timeout(PATIENCE)
            .test_on_check_out(true)
            .error_sink(Box::new(LogErrors))
            .build_unchecked(manager);
        Ok(Self(pool))
    }

    /// A connection. Hold it for one statement or one transaction.
    ///
    /// # Errors
    /// `Unavailable` when there is none within 5 s.
    pub(in crate::db) async fn get(&self) -> Result<Pooled<'_>> {
        self.0.get().await.map_err(|e| match e {
            RunError::TimedOut => Error::unavailable("no connection to the database came free"),
            RunError::User(e) => {
                warn!(error = %e, "the database cannot be reached");
                Error::unavailable("the database cannot be reached")
            }
        })
    }

    /// Runs a read. One that meets a connection which has just died runs once more on a fresh one, so
    /// `query` must not write.
    pub(in crate::db) async fn run<T, F>(&self, query: F) -> Result<T>
    where
        T: Send,
        F: Send + Sync,
        for<'c> F: AsyncFn(&'c mut AsyncPgConnection) -> QueryResult<T>
            + Repeatable<&'c mut AsyncPgConnection, QueryResult<T>, Once: Send>,
    {
        let first = {
            let mut conn = self.get().await?;
            query(&mut conn).await
        };
        match first {
            Err(e) if is_disconnected(&e) => {
                debug!(error = %e, "connection lost, reading again");
                let mut conn = self.get().await?;
                query(&mut conn).await.map_err(map_error)
            }
            other => other.map_err(map_error),
        }
    }
}

/// An asynchronous closure whose futures can be named, to demand that they are `Send`: the language
/// cannot yet say that of an `AsyncFn`.
pub(in crate::db) trait Repeatable<A, R>: Fn(A) -> <Self as Repeatable<A, R>>::Once {
    /// The future of one call.
    type Once: Future<Output = R>;
}

impl<F, A, R, Once> Repeatable<A, R> for F
where
    F: Fn(A) -> Once,
    Once: Future<Output = R>,
{
    type Once = Once;
}

fn closed() -> diesel::result::Error {
    diesel::result::Error::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new("closed".to_owned()))
}

/// Says why the pool cannot connect. bb8 backs off between attempts, so this is no flood.
#[derive(Debug, Clone, Copy)]
struct LogErrors;

impl ::bb8::ErrorSink<PoolError> for LogErrors {
    fn sink(&self, error: PoolError) {
        match error {
            PoolError::QueryError(e) => debug!(error = %e, "a dead connection left the pool"),
            PoolError::ConnectionError(e) => warn!(error = %e, "the database cannot be reached"),
        }
    }

    fn boxed_clone(&self) -> Box<dyn ::bb8::ErrorSink<PoolError>> {
        Box::new(*self)
    }
}
