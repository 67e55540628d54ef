//! Engines with databases of their own beside the benchmark's, so that killing one leaves the benchmark's database
//! alone.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use helve_client::Http;
use helve_domain::error::Result;
use helve_postgres::Database;
use helve_postgres::plain;
use helve_terminal::this_program;
use tokio::process::{Child, Command};
use tokio_postgres::Client;
use tokio_postgres::types::FromSql;

use super::{Bench, failure, process};
use crate::provision::Provision;

/// The longest that a start may take before the row is abandoned.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// A migrated database beside the benchmark's own.
pub(super) struct Place {
    pub(super) url: String,
    sql: Client,
}

impl Place {
    pub(super) async fn make(bench: &Bench, name: &str) -> Result<Self> {
        let base = bench.engine.database_url.clone().filter(|_| bench.engine.is_private());
        let base = base.ok_or_else(|| failure("this row fills a database: only beside a private engine"))?;
        let (front, options) = base.split_once('?').unwrap_or((&base, ""));
        let server = front.rsplit_once('/').map_or(front, |(server, _)| server);
        let url = format!("{server}/{name}?{options}");
        let admin = connect(bench, &base).await?;
        admin.batch_execute(&format!("create database {name}")).await.map_err(sql_failed)?;
        Provision::of(&this_program()?, &url).migrate().await?;
        let sql = connect(bench, &url).await?;
        Ok(Self { url, sql })
    }

    pub(super) async fn execute(&self, what: &str) -> Result<()> {
        self.sql.batch_execute(what).await.map_err(sql_failed)
    }

    /// Rows with two columns.
    pub(super) async fn pairs<A, B>(&self, what: &str) -> Result<Vec<(A, B)>>
    where
        A: for<'a> FromSql<'a>,
        B: for<'a> FromSql<'a>,
    {
        let rows = self.sql.query(what, &[]).await.map_err(sql_failed)?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Transactions of this database so far: except in takeovers, each of the engine's has one statement.
    pub(super) async fn transactions(&self) -> Result<i64> {
        let row = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
        self.sql.query_one(row, &[]).await.map(|row| row.get(0)).map_err(sql_failed)
    }
}

async fn connect(bench: &Bench, url: &str) -> Result<Client> {
    let (client, driver) = plain::connect(&Database::at(url), "bench").await?;
    let stopping = bench.supervisor.stopping();
    bench.supervisor.spawn("bench-scale", async move {
        tokio::select! {
            () = driver => {}
            () = stopping.cancelled() => {}
        }
    });
    Ok(client)
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn sql_failed(err: tokio_postgres::Error) -> helve_domain::error::Error {
    failure(format!("the benchmark's own statement: {err}: {}", err.as_db_error().map_or("", |e| e.message())))
}

/// `helve serve` on such a database.
pub(super) struct Served {
    child: Child,
    pub(super) url: String,
    /// The time from the start of the process until it was ready.
    pub(super) took: Duration,
}

impl Served {
    pub(super) async fn start(bench: &Bench, place: &Place) -> Result<Self> {
        let wrong = |what: &str, err: std::io::Error| failure(format!("{what}: {err}"));
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = port.map_err(|err| wrong("a free port", err))?.to_string();
        let program: PathBuf = std::env::current_exe().map_err(|err| wrong("this program's own path", err))?;
        let begin = bench.clock.instant();
        let child = Command::new(program)
            .args(["serve", "--listen", &address])
            .env("DATABASE_URL", &place.url)
            .env("HELVE_SCHEDULING_OPTIMISTIC", if bench.mode == "off" { "off" } else { "on" })
            .env("HELVE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|err| wrong("the engine cannot be started", err))?;
        let url = format!("http://{address}");
        let http = Http::new(&url, None)?;
        while !matches!(http.get("/readyz").await, Ok(response) if response.status.is_success()) {
            if bench.clock.instant() - begin > LIMIT {
                return Err(failure(format!("an engine was not ready within {LIMIT:?}")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self { child, url, took: bench.clock.instant() - begin })
    }

    /// Memory that the process uses now, in MiB.
    pub(super) fn memory(&self) -> Result<f64> {
        self.child.id().and_then(process::memory).ok_or_else(|| failure("the memory of the engine cannot be read"))
    }

    /// Kills it without warning.
    pub(super) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.map_err(|err| failure(format!("the engine cannot be killed: {err}")))
    }
}
