//! Several engines on one database: what one of them does with what belongs to another.

mod faults;
mod lives;
mod moves;
mod nginx;
mod pauses;
mod rest;
mod roles;
mod sockets;
mod tickets;
mod zombies;

use std::sync::Arc;
use std::time::Duration;

use helve::cluster::{Peer, Place};
use helve::config::Http;
use helve_domain::id::SHARDS;

use crate::support::{Builder, Engine, until_within};

/// How long shards may take to spread over engines that have just started.
const SPREAD: Duration = Duration::from_secs(20);

/// Two engines: the owner of the tenant's shard, and one that is not.
struct Pair {
    owner: Engine,
    other: Engine,
}

impl Pair {
    async fn new() -> Self {
        Self::with(Builder::new()).await
    }

    async fn with(builder: Builder) -> Self {
        let mut engines = cluster(builder, 2).await;
        let (second, first) = (engines.pop().unwrap(), engines.pop().unwrap());
        let first_owns = matches!(first.scheduler().directory().place(first.tenant), Place::Here);
        let (owner, other) = if first_owns { (first, second) } else { (second, first) };
        Self { owner, other }
    }

    /// As [`Pair::new`], with looks at the database so rare that a test can tell an engine who owns what.
    async fn told(http: impl FnOnce(&mut Http)) -> Self {
        Self::with(Builder::new().scheduling(|s| s.lease = Duration::from_secs(60)).http(http)).await
    }
}

/// Engines on one fresh database, with the same tenant and token. The shards are spread over them.
async fn cluster(builder: Builder, size: usize) -> Vec<Engine> {
    let mut engines = vec![builder.start().await];
    while engines.len() < size {
        let next = engines[0].beside(|_| ()).await;
        engines.push(next);
    }
    until_within("the shards are spread", SPREAD, || async {
        let owned: Vec<_> = engines.iter().map(|e| e.scheduler().directory().here().len()).collect();
        let even = owned.iter().all(|n| n.abs_diff(SHARDS as usize / size) <= 1);
        let tenant = engines[0].tenant;
        let known = |e: &&Engine| !matches!(e.scheduler().directory().place(tenant), Place::Nowhere);
        let complete = owned.iter().sum::<usize>() == SHARDS as usize;
        (complete && even && engines.iter().filter(known).count() == size).then_some(())
    })
    .await;
    engines
}

/// Where an engine is, for the others.
fn place(engine: &Engine) -> Place {
    let scheduler = engine.scheduler();
    let (node, secret) = (scheduler.node(), scheduler.secret().clone());
    let address = engine.url.strip_prefix("http://").unwrap().to_owned();
    Place::At(Arc::new(Peer { node, address, secret }))
}
