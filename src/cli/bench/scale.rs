//! Many tenants that do nothing, and a start on many open runs: on a database of their own, with an engine that
//! can be killed without taking its database along.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio_postgres::Client;

use super::fairness::Side;
use super::fleet::{Fleet, Log, Sent};
use super::load;
use super::report::{Figure, Must};
use super::{Bench, failure, progress, real};
use crate::client::Http;
use crate::config::Database;
use crate::db::{migrate, plain};
use crate::error::Result;

/// Tenants in all, and those of them that work.
const TENANTS: i64 = 10_000;
const ACTIVE: usize = 10;
/// How long the idle engine is watched.
const IDLE: Duration = Duration::from_secs(60);
/// PostgreSQL's processes publish their counters at the latest so long after they became idle.
const PUBLISHED: Duration = Duration::from_secs(11);
/// The longest that a start may take before the row is given up.
const LIMIT: Duration = Duration::from_secs(120);

/// Tenants that nobody uses, each with a token and a workflow. Ids as the engine makes them: time first.
const INSERT_TENANTS: &str = "create temp table t as select \
        (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '70008000' \
            || lpad(to_hex(g), 12, '0'))::uuid as id, g from generate_series(1, $1) g; \
    insert into tenant (id, name, shard, created_at) \
        select id, 'idle-' || g, ('x' || right(id::text, 2))::bit(8)::int % 64, now() from t; \
    insert into token (id, tenant, name, hash, scopes, created_at) \
        select id, id, 'idle', sha256(g::text::bytea), 1, now() from t; \
    insert into workflow (tenant, name, version, created_at, updated_at) \
        select id, 'idle', 1, now(), now() from t; \
    insert into workflow_version (tenant, workflow, version, checksum, definition, created_at) \
        select id, 'idle', 1, sha256(g::text::bytea), '{\"tasks\":[{\"name\":\"idle\"}]}', now() from t; \
    drop table t; vacuum analyze";

/// Open runs of the active tenants: nine of ten are queued, the tenth is due in a day.
const INSERT_RUNS: &str = "insert into open_run \
    (id, tenant, created_at, due, rank, version, attempt, retries, state, shard, priority, workflow, action, input) \
    select \
        (lpad(to_hex(s.ms + g), 12, '0') || '70008000' || lpad(to_hex(g), 12, '0'))::uuid, \
        t.ids[1 + g % array_length(t.ids, 1)], to_timestamp((s.ms + g) / 1000.0), \
        case when (g / 16) % 10 = 0 then now() + interval '1 day' end, \
        (s.ms + g) * 1000 - 120000000, 1, 0, 0, case when (g / 16) % 10 = 0 then 0 else 1 end, \
        t.shards[1 + g % array_length(t.ids, 1)], 2, $2, $2, convert_to(to_json(repeat('x', 186))::text, 'UTF8') \
    from \
        (select array_agg(id order by id) as ids, array_agg(shard order by id) as shards from tenant) t, \
        (select (extract(epoch from now()) * 1000)::bigint - $1 as ms) s, \
        generate_series(1, $1) g";

/// A migrated database beside the benchmark's own.
struct Place {
    url: String,
    sql: Client,
}

impl Place {
    async fn make(bench: &Bench, name: &str) -> Result<Self> {
        let base = bench.engine.database_url.clone().filter(|_| bench.engine.is_private());
        let base = base.ok_or_else(|| failure("this row fills a database: only beside a private engine"))?;
        let (front, options) = base.split_once('?').unwrap_or((&base, ""));
        let server = front.rsplit_once('/').map_or(front, |(server, _)| server);
        let url = format!("{server}/{name}?{options}");
        let admin = connect(bench, &base).await?;
        admin.batch_execute(&format!("create database {name}")).await.map_err(sql_failed)?;
        migrate::migrate(&Database::at(&url)).await?;
        let sql = connect(bench, &url).await?;
        Ok(Self { url, sql })
    }

    async fn execute(&self, what: &str) -> Result<()> {
        self.sql.batch_execute(what).await.map_err(sql_failed)
    }

    /// Transactions of this database so far: outside of takeovers the engine's are of one statement each.
    async fn transactions(&self) -> Result<i64> {
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
fn sql_failed(err: tokio_postgres::Error) -> crate::error::Error {
    failure(format!("the benchmark's own statement: {err}: {}", err.as_db_error().map_or("", |e| e.message())))
}

/// `helve serve` on a place.
struct Served {
    child: Child,
    url: String,
    /// From the start of the process until it was ready.
    took: Duration,
}

impl Served {
    async fn start(bench: &Bench, place: &Place) -> Result<Self> {
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

    /// MiB of memory that the process has now.
    fn memory(&self) -> Result<f64> {
        let status = self.child.id().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let kib = status.as_deref().and_then(resident);
        kib.map(|kib| real(kib) / 1_024.0).ok_or_else(|| failure("the memory of the engine cannot be read"))
    }

    /// Ends it without a warning.
    async fn kill(mut self) -> Result<()> {
        self.child.kill().await.map_err(|err| failure(format!("the engine cannot be killed: {err}")))
    }
}

/// Resident KiB in the text of `/proc/<pid>/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// 10,000 tenants, 10 of which work: memory, and what the engine asks of the database when nothing happens.
pub(super) async fn tenants(bench: &mut Bench) -> Result<Vec<Figure>> {
    let place = Place::make(bench, "helve_tenants").await?;
    for statement in INSERT_TENANTS.replace("$1", &TENANTS.to_string()).split(';') {
        place.execute(statement).await?;
    }
    let engine = Served::start(bench, &place).await?;
    let mut fleets = Vec::new();
    for n in 0..ACTIVE {
        let mut side = Side::of_new_tenant(bench, &engine.url, &place.url, &format!("active-{n}")).await?;
        side.swap(bench);
        let workflow = bench.workflow("tenants").await?;
        let log = Log::new(0);
        fleets.push(Fleet::start(bench, &workflow, 1, 100, &log).await?);
        let mut sent = Sent::default();
        sent.merge(load::fill(bench, &workflow, 1_000).await?);
        log.take(sent.accepted.len()).await?;
        bench.ledger.check(&sent, &log);
        side.swap(bench);
    }
    let worked = engine.memory()?;
    // Its looks at the tables are transactions too, and not the engine's.
    for statement in ["alter system set autovacuum = off", "select pg_reload_conf()", "vacuum analyze"] {
        place.execute(statement).await?;
    }
    progress(&format!("an idle engine is watched for {IDLE:?}"));
    tokio::time::sleep(PUBLISHED).await;
    let before = place.transactions().await?;
    tokio::time::sleep(IDLE).await;
    let idle = place.transactions().await? - before;
    for statement in ["alter system reset autovacuum", "select pg_reload_conf()"] {
        place.execute(statement).await?;
    }
    let memory = engine.memory()?;
    for fleet in fleets {
        fleet.stop().await?;
    }
    engine.kill().await?;
    let detail = format!("{TENANTS} tenants, {ACTIVE} with a worker; {worked:.0} MiB after 1,000 runs of each");
    Ok(vec![
        bench.judge(
            bench.figure("10,000 tenants: memory of the engine", memory, "MiB").detail(detail),
            Must::AtMost(300.0),
        ),
        bench.judge(
            bench
                .figure("10,000 tenants: transactions a minute when idle", real(idle.max(0)), "")
                .detail("without autovacuum, with the reading itself"),
            Must::AtMost(60.0),
        ),
    ])
}

/// A kill and a start on many open runs: how long until a worker has the first task.
pub(super) async fn recovery(bench: &mut Bench, open: u32) -> Result<Vec<Figure>> {
    let place = Place::make(bench, "helve_recovery").await?;
    let engine = Served::start(bench, &place).await?;
    let mut sides = Vec::new();
    let mut workflow = String::new();
    for n in 0..ACTIVE {
        let mut side = Side::of_new_tenant(bench, &engine.url, &place.url, &format!("active-{n}")).await?;
        side.swap(bench);
        workflow = bench.workflow("recovery").await?;
        side.swap(bench);
        sides.push(side);
    }
    progress(&format!("{open} open runs are written"));
    let insert = INSERT_RUNS.replace("$1", &format!("{open}::bigint")).replace("$2", &format!("'{workflow}'"));
    place.execute(&insert).await?;
    place.execute("vacuum analyze open_run").await?;
    place.execute("checkpoint").await?;
    let killed: Instant = bench.clock.instant();
    engine.kill().await?;
    let engine = Served::start(bench, &place).await?;
    let ready = engine.memory()?;
    let mut side = sides.remove(0).at(&engine.url)?;
    side.swap(bench);
    let log = Log::new(0);
    let fleet = Fleet::start(bench, &workflow, 1, 100, &log).await?;
    let first = loop {
        if let Some((_, at)) = log.last_start() {
            break at - killed;
        }
        if bench.clock.instant() - killed > LIMIT {
            return Err(failure(format!("no task came to the worker within {LIMIT:?}")));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    log.take(10_000.min(usize::try_from(open / 20).unwrap_or(usize::MAX))).await?;
    let memory = engine.memory()?;
    side.swap(bench);
    fleet.stop().await?;
    let detail = format!("{open} open runs; ready after {:.2} s", engine.took.as_secs_f64());
    let stored = log.stored();
    engine.kill().await?;
    Ok(vec![
        bench.judge(
            bench.figure("recovery: kill to the first task at a worker", first.as_secs_f64(), "s").detail(detail),
            Must::AtMost(5.0),
        ),
        bench.figure("recovery: memory of the engine, ready", ready, "MiB"),
        bench.figure("recovery: memory of the engine, working", memory, "MiB").detail(format!("after {stored} runs")),
    ])
}

#[cfg(test)]
mod tests {
    use super::resident;

    #[test]
    fn resident_memory_is_found_among_its_neighbours() {
        assert_eq!(resident("VmHWM:\t  900 kB\nVmRSS:\t  812 kB\nRssAnon:\t 1 kB\n"), Some(812));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
