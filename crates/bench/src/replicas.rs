//! Several engines on one database, all on this machine: their joint throughput, and a start through an engine that is
//! not the owner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use helve_client::Http;
use helve_domain::error::Result;
use helve_domain::id::SHARDS;

use super::fairness::Side;
use super::fleet::{Fleet, Log, Sent};
use super::latency;
use super::load::{self, Latencies, WARM_UP, single};
use super::meter::Meter;
use super::report::{Figure, Must, number};
use super::served::{LIMIT, Place, Served};
use super::{Bench, failure, progress, real, whole};

/// Tenants in all: a number that 1, 2 and 3 engines can share equally.
const TENANTS: usize = 6;
/// Tenants to create at most until each engine owns enough.
const TRIES: u32 = 400;
/// Slots of each tenant's worker.
const SLOTS: u32 = 100;
/// How much longer the median start through another engine may take, milliseconds.
const FARTHER: f64 = 1.0;

/// Engines with their shards spread evenly, and tenants spread evenly over them.
struct Replicas {
    engines: Vec<Served>,
    tenants: Vec<Tenant>,
}

/// A tenant with a worker connected to its owner.
struct Tenant {
    /// A client of the tenant at each engine, the owner's first.
    http: Vec<Http>,
    workflow: String,
    log: Arc<Log>,
    sent: Sent,
    fleet: Fleet,
}

/// Each number of engines, on a separate database.
pub(super) async fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for count in bench.sizes.engines.clone() {
        progress(&format!("optimistic {}: {} on one database", bench.mode, engines(count)));
        let place = Place::make(bench, &format!("helve_replicas_{count}")).await?;
        let mut replicas = Replicas::start(bench, &place, count).await?;
        figures.extend(replicas.throughput(bench, count).await?);
        figures.extend(replicas.starts(bench, count).await?);
        replicas.stop(bench).await?;
    }
    Ok(figures)
}

/// The wording in a figure's name.
fn engines(count: u32) -> String {
    format!("{count} engine{}", if count == 1 { "" } else { "s" })
}

impl Replicas {
    async fn start(bench: &mut Bench, place: &Place, count: u32) -> Result<Self> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(Served::start(bench, place).await?);
        }
        spread(bench, place, all.len()).await?;
        let tenants = tenants(bench, place, &all).await?;
        Ok(Self { engines: all, tenants })
    }

    /// Closed loops, the clients spread over the tenants: each at its tenant's owner, and, with the most clients, each
    /// at any engine.
    async fn throughput(&mut self, bench: &mut Bench, count: u32) -> Result<Vec<Figure>> {
        let mut clients = bench.sizes.clients.clone();
        clients.sort_unstable();
        let few = clients.split_off(clients.len().saturating_sub(2));
        let mut figures = Vec::new();
        for n in &few {
            figures.push(self.closed_loop(bench, count, *n, false).await?);
        }
        if let Some(most) = few.last().filter(|_| count > 1) {
            figures.push(self.closed_loop(bench, count, *most, true).await?);
        }
        Ok(figures)
    }

    async fn closed_loop(&mut self, bench: &Bench, count: u32, clients: u32, anywhere: bool) -> Result<Figure> {
        let from = bench.clock.instant() + WARM_UP;
        let until = from + bench.window;
        let meter = Meter::start(bench)?;
        let all = &self.tenants;
        let jobs = (0..whole(clients)).map(|n| {
            let (tenant, turn) = (&all[n % all.len()], n / all.len());
            let http = if anywhere { &tenant.http[turn % tenant.http.len()] } else { &tenant.http[0] };
            load::client(http.clone(), bench.clock.clone(), single(&tenant.workflow), from, until)
        });
        let loops = load::together(&bench.supervisor, jobs).await?;
        let generator = meter.read(bench);
        let (mut latencies, mut failed) = (Latencies::new()?, 0);
        for (n, one) in loops.into_iter().enumerate() {
            let tenant = n % self.tenants.len();
            failed += one.sent.refused + one.sent.unanswered;
            latencies.merge(&one.latencies)?;
            self.tenants[tenant].sent.merge(one.sent);
        }
        let rate = real(latencies.len()) / bench.window.as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
        let (p50, p99) = (latencies.percentile(50.0), latencies.percentile(99.0));
        let to = if anywhere { ", to any engine" } else { "" };
        let name = format!("{}: throughput, {} clients{to}", engines(count), number(f64::from(clients)));
        let detail = format!(
            "p50 {p50:.1} ms, p99 {p99:.1} ms{failed}; {} tenants; engines, PostgreSQL and load share {cores} cores",
            self.tenants.len(),
        );
        let figure = bench.figure(name, rate, "runs/s").detail(detail);
        Ok(figure.distribution(latencies.distribution()).generator(&generator))
    }

    /// Starts of one tenant at concurrency 1, its worker at the owner: triggered there, and through another engine.
    async fn starts(&mut self, bench: &mut Bench, count: u32) -> Result<Vec<Figure>> {
        let tenant = &mut self.tenants[0];
        // Its throughput phase is over and stored, so that the last start in the log is the awaited one.
        let rest = tenant.sent.accepted.len();
        tenant.log.take(rest).await?;
        let mut figures = Vec::new();
        let mut medians = Vec::new();
        for (n, to) in ["at the owner", "through another engine"].into_iter().enumerate().take(tenant.http.len()) {
            let mut http = tenant.http[n].clone();
            std::mem::swap(&mut bench.http, &mut http);
            let took = latency::starts(bench, &tenant.workflow, &tenant.log, &mut tenant.sent).await;
            std::mem::swap(&mut bench.http, &mut http);
            let took = took?;
            if took.len() == 0 {
                return Err(failure(format!("no trigger {to} was accepted")));
            }
            medians.push(took.percentile(50.0));
            for (label, p) in [("p50", 50.0), ("p99", 99.0)] {
                let name = format!("{}: start latency {to}, {label}", engines(count));
                let figure = bench.figure(name, took.percentile(p), "ms");
                let detail = format!("{} samples, the worker is at the owner", took.len());
                figures.push(if p < 99.0 { figure.detail(detail).distribution(took.distribution()) } else { figure });
            }
        }
        if let [owner, other] = medians[..] {
            let name = format!("{}: a start through another engine takes longer, p50", engines(count));
            figures.push(bench.judge(bench.figure(name, (other - owner).max(0.0), "ms"), Must::AtMost(FARTHER)));
        }
        // These were taken before, one by one.
        tenant.log.give_back(tenant.sent.accepted.len());
        Ok(figures)
    }

    async fn stop(self, bench: &mut Bench) -> Result<()> {
        for tenant in self.tenants {
            tenant.log.take(tenant.sent.accepted.len()).await?;
            tenant.fleet.stop().await?;
            bench.ledger.check(&tenant.sent, &tenant.log);
        }
        for engine in self.engines {
            engine.kill().await?;
        }
        Ok(())
    }
}

/// Waits until all engines own the same number of shards, give or take one.
async fn spread(bench: &Bench, place: &Place, engines: usize) -> Result<()> {
    let by = bench.clock.instant() + LIMIT;
    let owned = "select n.address, count(*) from shard s join node n on n.id = s.owner group by 1";
    loop {
        let all: Vec<(String, i64)> = place.pairs(owned).await?;
        let counts: Vec<_> = all.iter().map(|(_, count)| *count).collect();
        let even = counts.iter().max().zip(counts.iter().min()).is_some_and(|(most, least)| most - least <= 1);
        if even && counts.len() == engines && counts.iter().sum::<i64>() == i64::from(SHARDS) {
            return Ok(());
        }
        if bench.clock.instant() > by {
            return Err(failure(format!("the shards of {engines} engines are not spread: {all:?}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tenants with a workflow and a worker, the same number for each engine.
async fn tenants(bench: &mut Bench, place: &Place, engines: &[Served]) -> Result<Vec<Tenant>> {
    let mut sides = HashMap::new();
    for n in 0..TRIES {
        let name = format!("replicas-{n}");
        let side = Side::of_new_tenant(&engines[0].url, &place.url, &name).await?;
        sides.insert(name, side);
        let owners =
            "select t.name, n.address from tenant t join shard s on s.id = t.shard join node n on n.id = s.owner";
        let owners: Vec<(String, String)> = place.pairs(owners).await?;
        let each = TENANTS.div_ceil(engines.len());
        let of = |engine: &Served| {
            let theirs = owners.iter().filter(|(_, address)| engine.url.strip_prefix("http://") == Some(address));
            theirs.map(|(name, _)| name.clone()).take(each).collect::<Vec<_>>()
        };
        let chosen: Vec<_> = engines.iter().map(of).collect();
        if chosen.iter().all(|names| names.len() == each) {
            let mut all = Vec::new();
            for (owner, names) in chosen.iter().enumerate() {
                for name in names {
                    let side = sides.remove(name).ok_or_else(|| failure("a tenant was chosen twice"))?;
                    all.push(tenant(bench, side, engines, owner).await?);
                }
            }
            return Ok(all);
        }
    }
    Err(failure(format!("of {TRIES} tenants not each engine owns enough")))
}

async fn tenant(bench: &mut Bench, side: Side, engines: &[Served], owner: usize) -> Result<Tenant> {
    let mut side = side.at(&engines[owner].url)?;
    let others = engines.iter().enumerate().filter(|(n, _)| *n != owner).map(|(_, engine)| engine.url.as_str());
    let mut http = vec![side.http.clone()];
    for url in others {
        http.push(side.client(url)?);
    }
    side.swap(bench);
    let log = Log::new(0);
    let made = async {
        let workflow = bench.workflow("replicas").await?;
        let fleet = Fleet::start(bench, &workflow, 1, SLOTS, &log).await?;
        Ok((workflow, fleet))
    };
    let made = made.await;
    side.swap(bench);
    let (workflow, fleet) = made?;
    Ok(Tenant { http, workflow, log, sent: Sent::default(), fleet })
}
