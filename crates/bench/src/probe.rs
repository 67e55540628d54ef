//! The benchmark's own connection to PostgreSQL: the floor, the settings and the counters.

use std::time::{Duration, Instant};

use helve_domain::clock::Clock;
use helve_domain::error::Result;
use helve_postgres::Database;
use helve_postgres::plain;
use helve_supervisor::Supervisor;
use tokio_postgres::{Client, Statement};

use super::machine::{Postgres, SETTINGS};
use super::process;
use super::{failure, progress};

/// The floor's row is as large as a run's input.
pub(super) const PAYLOAD: usize = 200;

/// A connection with the floor's statement prepared.
pub(super) struct Probe {
    client: Client,
    insert: Statement,
    next: i64,
    backend: u32,
    private: bool,
}

/// Counters of the server, to be subtracted.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    commits: i64,
    rows: i64,
    updates: i64,
    deletes: i64,
    hot: i64,
    statements: Option<i64>,
    lsn: String,
    full_page_images: i64,
    cpu: Option<Duration>,
}

/// The difference between two readings.
#[derive(Debug, Clone)]
pub(super) struct Spent {
    pub(super) commits: i64,
    pub(super) rows: i64,
    pub(super) updates: i64,
    pub(super) deletes: i64,
    /// Of the updates: those that touched no index.
    pub(super) hot: i64,
    pub(super) statements: Option<i64>,
    /// Without full-page images.
    pub(super) wal_bytes: f64,
    /// The server counts records exactly only with `pg_walinspect`; otherwise images are taken as full pages.
    pub(super) wal_exact: bool,
    pub(super) cpu: Option<Duration>,
}

/// Bytes on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) open_run: i64,
    pub(super) run_history: i64,
    pub(super) database: i64,
    pub(super) dead_rows: i64,
}

fn database(err: &tokio_postgres::Error) -> helve_domain::error::Error {
    failure(format!("the benchmark's own connection: {err}"))
}

impl Probe {
    /// Connects and creates the floor's table. A private database also gets the extension that counts WAL records.
    pub(super) async fn open(url: &str, private: bool, supervisor: &Supervisor) -> Result<Self> {
        let (client, driver) = plain::connect(&Database::at(url), "bench").await?;
        let stopping = supervisor.stopping();
        supervisor.spawn("bench-probe", async move {
            tokio::select! {
                () = driver => {}
                () = stopping.cancelled() => {}
            }
        });
        let setup = "set client_min_messages = warning; drop table if exists helve_bench_floor; \
            create table helve_bench_floor \
            (id bigint primary key, tenant bigint not null, state smallint not null, payload bytea not null)";
        client.batch_execute(setup).await.map_err(|err| database(&err))?;
        if private && client.batch_execute("create extension if not exists pg_walinspect").await.is_err() {
            progress("no pg_walinspect here: WAL without full-page images is estimated");
        }
        let insert = "insert into helve_bench_floor (id, tenant, state, payload) values ($1, $2, $3, $4)";
        let insert = client.prepare(insert).await.map_err(|err| database(&err))?;
        let pid = client.query_one("select pg_backend_pid()", &[]).await.map_err(|err| database(&err))?;
        let backend = u32::try_from(pid.get::<_, i32>(0)).unwrap_or(0);
        Ok(Self { client, insert, next: 0, backend, private })
    }

    /// Drops the floor's table.
    pub(super) async fn clean_up(&self) -> Result<()> {
        self.client.batch_execute("drop table if exists helve_bench_floor").await.map_err(|err| database(&err))
    }

    /// One durable single-row INSERT: the time from the statement to its commit's answer.
    pub(super) async fn floor(&mut self, clock: &Clock) -> Result<Duration> {
        self.next += 1;
        let payload = [b'x'; PAYLOAD];
        let start: Instant = clock.instant();
        self.client
            .execute(&self.insert, &[&self.next, &1_i64, &1_i16, &payload.as_slice()])
            .await
            .map_err(|err| database(&err))?;
        Ok(clock.instant().saturating_duration_since(start))
    }

    /// The server's version and settings.
    pub(super) async fn postgres(&self) -> Result<Postgres> {
        let version = "select current_setting('server_version')";
        let version: String = self.client.query_one(version, &[]).await.map_err(|err| database(&err))?.get(0);
        let settings = "select name, current_setting(name) from pg_settings where name = any($1)";
        let rows = self.client.query(settings, &[&SETTINGS]).await.map_err(|err| database(&err))?;
        let settings = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(Postgres::new(version, settings, self.in_memory().await))
    }

    /// Whether the data is in a file system without a disk. Known only for a server on this machine that reveals its
    /// directory.
    async fn in_memory(&self) -> bool {
        if process::of_server(self.backend).is_none() {
            return false;
        }
        let Ok(row) = self.client.query_one("select current_setting('data_directory')", &[]).await else {
            return false;
        };
        nix::sys::statfs::statfs(row.get::<_, &str>(0))
            .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
    }

    /// Reads the counters. They lag: see [`super::cost::settle`].
    pub(super) async fn counters(&self) -> Result<Counters> {
        let row = "select d.xact_commit, t.rows, pg_current_wal_insert_lsn()::text, w.wal_fpi, t.updates, t.hot, t.deletes \
            from pg_stat_database d, pg_stat_wal w, \
                (select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint as rows, \
                        coalesce(sum(n_tup_upd), 0)::bigint as updates, \
                        coalesce(sum(n_tup_del), 0)::bigint as deletes, \
                        coalesce(sum(n_tup_hot_upd), 0)::bigint as hot \
                   from pg_stat_user_tables where relname <> 'helve_bench_floor') t \
            where d.datname = current_database()";
        let row = self.client.query_one(row, &[]).await.map_err(|err| database(&err))?;
        // Present only if the extension is installed and loaded.
        let statements = "select coalesce(sum(s.calls), 0)::bigint from pg_stat_statements s \
            join pg_database d on d.oid = s.dbid where d.datname = current_database()";
        let statements = self.client.query_one(statements, &[]).await.ok().map(|row| row.get(0));
        Ok(Counters {
            commits: row.get(0),
            rows: row.get(1),
            updates: row.get(4),
            hot: row.get(5),
            deletes: row.get(6),
            statements,
            lsn: row.get(2),
            full_page_images: row.get(3),
            cpu: process::of_server(self.backend),
        })
    }

    /// The difference to an earlier reading.
    pub(super) async fn spent(&self, from: &Counters) -> Result<Spent> {
        let to = self.counters().await?;
        let exact = if self.private { self.wal_records(&from.lsn, &to.lsn).await } else { None };
        let wal_bytes = match exact {
            Some(bytes) => bytes,
            None => self.wal_estimate(from, &to).await?,
        };
        Ok(Spent {
            commits: to.commits - from.commits,
            rows: to.rows - from.rows,
            updates: to.updates - from.updates,
            deletes: to.deletes - from.deletes,
            hot: to.hot - from.hot,
            statements: to.statements.zip(from.statements).map(|(to, from)| to - from),
            wal_bytes,
            wal_exact: exact.is_some(),
            cpu: to.cpu.zip(from.cpu).map(|(to, from)| to.saturating_sub(from)),
        })
    }

    async fn wal_records(&self, from: &str, to: &str) -> Option<f64> {
        // The end must be flushed before it can be read; a transaction of our own does that.
        self.client.batch_execute("select txid_current()").await.ok()?;
        let sum = "select sum(record_size)::float8 from pg_get_wal_stats($1::text::pg_lsn, $2::text::pg_lsn)";
        self.client.query_one(sum, &[&from, &to]).await.ok()?.get(0)
    }

    async fn wal_estimate(&self, from: &Counters, to: &Counters) -> Result<f64> {
        let between = "select ($2::text::pg_lsn - $1::text::pg_lsn)::float8";
        let row = self.client.query_one(between, &[&from.lsn, &to.lsn]).await.map_err(|err| database(&err))?;
        let images = super::real((to.full_page_images - from.full_page_images).max(0));
        Ok((row.get::<_, f64>(0) - images * 8_192.0).max(0.0))
    }

    /// Whether the server could count statements if it were started with the extension.
    pub(super) async fn can_count_statements(&self) -> Result<bool> {
        let there = "select exists (select 1 from pg_available_extensions where name = 'pg_stat_statements')";
        self.client.query_one(there, &[]).await.map(|row| row.get(0)).map_err(|err| database(&err))
    }

    /// Resets the statement counts; the server must have been started with the extension.
    pub(super) async fn count_statements(&self) -> Result<()> {
        let begin = "create extension if not exists pg_stat_statements; select pg_stat_statements_reset()";
        self.client.batch_execute(begin).await.map_err(|err| database(&err))
    }

    /// Statements of the engine since [`Probe::count_statements`]; those of this connection name the extension, and are
    /// left out.
    pub(super) async fn statements(&self) -> Result<i64> {
        let sum = "select coalesce(sum(s.calls), 0)::bigint from pg_stat_statements s \
            join pg_database d on d.oid = s.dbid \
            where d.datname = current_database() and s.query not like '%pg_stat_statements%'";
        self.client.query_one(sum, &[]).await.map(|row| row.get(0)).map_err(|err| database(&err))
    }

    /// Bytes on disk of the tables of open and of finished runs with their indexes, and of the database.
    pub(super) async fn sizes(&self) -> Result<Sizes> {
        let row = "select pg_total_relation_size('open_run')::bigint, \
            (select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint from pg_partition_tree('run_history')), \
            pg_database_size(current_database())::bigint, \
            coalesce((select n_dead_tup from pg_stat_user_tables where relid = 'open_run'::regclass), 0)::bigint";
        let row = self.client.query_one(row, &[]).await.map_err(|err| database(&err))?;
        Ok(Sizes { open_run: row.get(0), run_history: row.get(1), database: row.get(2), dead_rows: row.get(3) })
    }

    /// Makes the size of the table of open runs comparable, by removing dead rows.
    pub(super) async fn tidy(&self) -> Result<()> {
        self.client.batch_execute("vacuum open_run").await.map_err(|err| database(&err))
    }

    /// Dead rows of the table of open runs, and how often it was vacuumed.
    pub(super) async fn open_table(&self) -> Result<Option<(i64, i64)>> {
        let row = "select n_dead_tup, autovacuum_count from pg_stat_user_tables where relid = 'open_run'::regclass";
        let row = self.client.query_opt(row, &[]).await.map_err(|err| database(&err))?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }
}
