//! Connections, each made a session of Helve when it opens: for the pool, and single ones for lanes and leases.

use std::time::Duration;

use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use helve_domain::clock::Clock;
use helve_domain::duration;
use helve_domain::error::{Error, Result};
use helve_postgres::Database;
use helve_postgres::target::{DEFAULT_PORT, Target};
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, NoTlsStream};
use tokio_postgres::{Client, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, info, warn};

use super::driven::{Driven, Driver};
use super::session::{self, Path};
use super::sqlstate::{self, LastState, Listened, Listening, Plainly};

/// The longest that opening a connection, or waiting for one of the pool, may take.
pub(in crate::db) const PATIENCE: Duration = Duration::from_secs(5);

/// Opens a connection for one purpose; `name` appears in `pg_stat_activity` as `helve:<name>`.
///
/// # Errors
/// `Unavailable` when the server cannot be reached, refuses, or does not answer in 5 s (the reason is
/// logged); `Internal` when the URL or a certificate file cannot be read.
pub async fn connect(database: &Database, name: &str) -> Result<AsyncPgConnection> {
    let target = Target::new(database, name)?;
    open(&target, database).await.map(|opened| opened.conn).map_err(|e| {
        note_lost(database, &target.place(), name, &e);
        Error::unavailable("the database cannot be reached")
    })
}

/// Says that a connection could not be opened: once, however many find it out.
pub(in crate::db) fn note_lost(database: &Database, place: &str, name: &str, e: &ConnectionError) {
    if database.reach.lost(Clock::system().instant()) {
        warn!(error = %e, connection = name, "{place} cannot be reached; the next line about it says that it is back");
    } else {
        debug!(error = %e, connection = name, "the database cannot be reached yet");
    }
}

/// Says that connections can be opened again.
fn note_found(database: &Database) {
    if let Some((lasted, outage)) = database.reach.found(Clock::system().instant()) {
        let lasted = duration::format(Duration::from_millis(u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX)));
        info!(failed = outage.failed, "the database is back after {lasted}");
    }
}

/// As [`connect`], with the server's or the driver's own words: for a person at a terminal.
pub(in crate::db) async fn connect_verbosely(database: &Database, name: &str) -> Result<AsyncPgConnection> {
    let target = Target::new(database, name)?;
    open(&target, database).await.map(|opened| opened.conn).map_err(|e| unreachable(&target, &e))
}

/// As [`connect_verbosely`], with the search_path that the URL, the role and the database make.
pub(in crate::db) async fn connect_unpinned(database: &Database, name: &str) -> Result<AsyncPgConnection> {
    let target = Target::new(database, name)?;
    open_with(&target, database, Path::AsItComes).await.map(|opened| opened.conn).map_err(|e| unreachable(&target, &e))
}

fn unreachable(target: &Target, e: &ConnectionError) -> Error {
    let why = e.to_string();
    Error::Internal(format!("{} cannot be reached: {why}{}", target.place(), Target::hint(&why)))
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
        driver.drive(session::set_up(conn, database, Path::Home)).await?;
        Ok(driven)
    };
    in_time(opened).await.inspect(|_| note_found(database)).map_err(|e: ConnectionError| {
        note_lost(database, &target.place(), name, &e);
        Error::unavailable("the database cannot be reached")
    })
}

/// A connection that is open, and what its server said of it.
pub(in crate::db) struct Opened {
    pub conn: AsyncPgConnection,
    /// It takes no writes: the server is a standby, or the role or database says so. A session keeps that.
    pub read_only: bool,
}

/// Opens a session of Helve.
pub(in crate::db) async fn open(target: &Target, database: &Database) -> Result<Opened, ConnectionError> {
    open_with(target, database, Path::Home).await
}

async fn open_with(target: &Target, database: &Database, path: Path) -> Result<Opened, ConnectionError> {
    let opened = async {
        let mut opened = dial(target).await?;
        session::set_up(&mut opened.conn, database, path).await?;
        Ok(opened)
    };
    in_time(opened).await.inspect(|_| note_found(database))
}

async fn in_time<T>(opened: impl Future<Output = Result<T, ConnectionError>>) -> Result<T, ConnectionError> {
    let late = || ConnectionError::BadConnection(format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, opened).await.unwrap_or_else(|_| Err(late()))
}

async fn dial(target: &Target) -> Result<Opened, ConnectionError> {
    let (conn, read_only) = match reach(target).await? {
        Reached::Tls(client, driver) => {
            let read_only = is_read_only(|name| driver.parameter(name));
            (AsyncPgConnection::try_from_client_and_connection(client, *driver).await, read_only)
        }
        Reached::Plain(client, driver) => {
            let read_only = is_read_only(|name| driver.parameter(name));
            (AsyncPgConnection::try_from_client_and_connection(client, *driver).await, read_only)
        }
    };
    Ok(Opened { conn: conn?, read_only })
}

/// What the server says of a session by itself when it begins.
fn is_read_only<'a>(parameter: impl Fn(&str) -> Option<&'a str>) -> bool {
    ["default_transaction_read_only", "in_hot_standby"].into_iter().any(|name| parameter(name) == Some("on"))
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
