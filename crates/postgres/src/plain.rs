//! Connections without Diesel, for the benchmark, whose floor is one statement of the bare driver.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use helve_domain::error::{Error, Result};
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::target::Target;
use crate::Database;

/// Opens a connection. The second value moves its bytes and must be polled to completion.
///
/// # Errors
/// `Internal` with the driver's message, which is meant for a person at a terminal.
pub async fn connect(database: &Database, name: &str) -> Result<(Client, BoxFuture<'static, ()>)> {
    let target = Target::new(database, name)?;
    let failed = |err: tokio_postgres::Error| {
        let why = match std::error::Error::source(&err) {
            Some(source) => format!("{err}: {source}"),
            None => err.to_string(),
        };
        Error::Internal(format!("{} cannot be reached: {why}{}", target.place(), Target::hint(&why)))
    };
    if let Some(tls) = &target.tls {
        match target.config.connect(MakeRustlsConnect::new(tls.as_ref().clone())).await {
            Ok((client, driver)) => return Ok((client, driver.map(drop).boxed())),
            Err(err) if !target.fall_back => return Err(failed(err)),
            Err(_) => {}
        }
    }
    let mut config = target.config.clone();
    let plain = config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, driver) = plain.connect(NoTls).await.map_err(failed)?;
    Ok((client, driver.map(drop).boxed()))
}
