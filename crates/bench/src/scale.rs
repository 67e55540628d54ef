//! Many idle tenants, and a start with many open runs.

use std::time::{Duration, Instant};

use helve_domain::error::Result;

use super::fairness::Side;
use super::fleet::{Fleet, Log, Sent};
use super::load::{self, Latencies};
use super::report::{Figure, Must};
use super::served::{LIMIT, Place, Served};
use super::{Bench, failure, latency, progress, real, whole};

/// Runs of the active tenants.
const ACTIVE: u32 = 10;
/// PostgreSQL's processes publish their counters at most this long after they became idle.
const PUBLISHED: Duration = Duration::from_secs(11);
/// Runs that each active tenant has completed before memory is read.
const RUNS: usize = 1_000;

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

/// Open runs of the active tenants: nine out of ten are queued, the tenth is due in a day.
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

/// This many tenants, 10 of them active: memory, and what the engine sends to the database when nothing happens.
pub(super) async fn tenants(bench: &mut Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut least: Option<(u32, f64)> = None;
    for count in bench.sizes.tenants.clone() {
        let Crowd { memory, worked, idle, start } = crowd(bench, count).await?;
        let name = |what: &str| format!("{count} tenants: {what}");
        let active = count.min(ACTIVE);
        let detail = format!("{active} with a worker; {worked:.0} MiB after {RUNS} runs of each");
        let memory_figure = bench.figure(name("memory of the engine"), memory, "MiB").detail(detail);
        let seconds = bench.sizes.idle_seconds;
        let idle_figure = bench
            .figure(name("transactions a minute when idle"), idle, "a minute")
            .detail(format!("over {seconds} s, without autovacuum, with the reading itself"));
        figures.push(if count >= 10_000 { bench.judge(memory_figure, Must::AtMost(300.0)) } else { memory_figure });
        figures.push(if count >= 10_000 { bench.judge(idle_figure, Must::AtMost(60.0)) } else { idle_figure });
        figures.push(
            bench
                .figure(name("start latency p50"), start.percentile(50.0), "ms")
                .distribution(start.distribution())
                .detail(format!("of one of them, {} samples", start.len())),
        );
        match least {
            Some((few, base)) if count > few => {
                let each = ((memory - base) * 1_024.0 / real(count - few)).max(0.0);
                figures.push(bench.figure(name("memory of an idle tenant"), each, "KiB"));
            }
            Some(_) => {}
            // The smallest number must include as many active ones, or their memory would count as that of idle ones.
            None if count >= ACTIVE => least = Some((count, memory)),
            None => {}
        }
    }
    Ok(figures)
}

/// The readings for one number of tenants.
struct Crowd {
    memory: f64,
    worked: f64,
    idle: f64,
    start: Latencies,
}

async fn crowd(bench: &mut Bench, count: u32) -> Result<Crowd> {
    let place = Place::make(bench, &format!("helve_tenants_{count}")).await?;
    let idle_ones = count.saturating_sub(ACTIVE);
    for statement in INSERT_TENANTS.replace("$1", &idle_ones.to_string()).split(';') {
        place.execute(statement).await?;
    }
    let engine = Served::start(bench, &place).await?;
    let mut fleets = Vec::new();
    let mut start = Latencies::new()?;
    for n in 0..count.min(ACTIVE) {
        let mut side = Side::of_new_tenant(&engine.url, &place.url, &format!("active-{n}")).await?;
        side.swap(bench);
        let workflow = bench.workflow("tenants").await?;
        let log = Log::new(0);
        fleets.push(Fleet::start(bench, &workflow, 1, 100, &log).await?);
        let mut sent = Sent::default();
        sent.merge(load::fill(bench, &workflow, RUNS).await?);
        log.take(sent.accepted.len()).await?;
        if n == 0 {
            start = latency::starts(bench, &workflow, &log, &mut sent).await?;
        }
        bench.ledger.check(&sent, &log);
        side.swap(bench);
    }
    let worked = engine.memory()?;
    // The probe's reads of the tables are transactions, too, and not the engine's.
    for statement in ["alter system set autovacuum = off", "select pg_reload_conf()", "vacuum analyze"] {
        place.execute(statement).await?;
    }
    let watched = Duration::from_secs(bench.sizes.idle_seconds);
    progress(&format!("{count} tenants: an idle engine is watched for {watched:?}"));
    tokio::time::sleep(PUBLISHED.min(watched)).await;
    let before = place.transactions().await?;
    tokio::time::sleep(watched).await;
    let idle = real((place.transactions().await? - before).max(0)) * 60.0 / watched.as_secs_f64();
    for statement in ["alter system reset autovacuum", "select pg_reload_conf()"] {
        place.execute(statement).await?;
    }
    let memory = engine.memory()?;
    for fleet in fleets {
        fleet.stop().await?;
    }
    engine.kill().await?;
    Ok(Crowd { memory, worked, idle, start })
}

/// A kill and a start with many open runs: how long until a worker has the first task.
pub(super) async fn recovery(bench: &mut Bench) -> Result<Vec<Figure>> {
    let open = bench.sizes.open_runs;
    let place = Place::make(bench, "helve_recovery").await?;
    let engine = Served::start(bench, &place).await?;
    let mut sides = Vec::new();
    let mut workflow = String::new();
    for n in 0..ACTIVE {
        let mut side = Side::of_new_tenant(&engine.url, &place.url, &format!("active-{n}")).await?;
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
    log.take(whole(open / 20).min(10_000)).await?;
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
