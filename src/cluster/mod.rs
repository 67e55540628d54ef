//! This engine among those on its database: it keeps its lease, looks at the others, takes over from those that are
//! gone, and moves shards until every engine has as many as the others. The owner does the moving; here it is decided.

mod balance;
pub mod directory;
mod holdings;
mod leaving;
mod standing;

pub use directory::{Directory, Peer, Place};
pub(crate) use standing::Standing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use helve_domain::error::Result;
use helve_domain::id::NodeId;
use helve_domain::secret::Secret;
use helve_postgres::Database;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::db::lease::{LeaseConnection, News, NodeView, View};
use crate::failpoint::{self, Point};
use crate::metrics::Metrics;
use crate::ops::definitions::Definitions;
use balance::{Plan, Suspects, looks_gone};
use directory::reachable;
use holdings::{Holding, Holdings, shards_of};

/// How long one question to the database may take besides the look, which has a third of the lease.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon what failed is tried again the first time.
const AT_ONCE: Duration = Duration::from_millis(10);
/// Orders that may wait for the owner; each is about shards that no other order is about.
pub(crate) const ORDERS: usize = 256;

/// What the owner is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Rebuild these shards and serve them.
    Gain(Vec<usize>),
    /// Finish what is on its way for these shards, and forget them.
    Lose(Vec<usize>),
}

/// What the owner says.
#[derive(Debug)]
pub(crate) enum Report {
    /// The lanes are open.
    Open,
    /// These shards are served now.
    Gained(Vec<usize>),
    /// Nothing of these shards is here any more.
    Lost(Vec<usize>),
}

/// Asks the cluster to hand everything over.
pub(crate) type Leave = oneshot::Sender<bool>;

/// What a cluster is made of.
pub(crate) struct Parts {
    pub database: Database,
    pub node: NodeId,
    /// Host and port at which others reach this process. An unspecified host is replaced by the one that the database
    /// sees.
    pub address: String,
    pub secret: Arc<Secret>,
    pub ttl: Duration,
    pub standing: Standing,
    pub directory: Directory,
    pub definitions: Definitions,
    pub ready: Arc<AtomicBool>,
    pub orders: mpsc::Sender<Order>,
    pub reports: mpsc::Receiver<Report>,
    pub leaves: mpsc::Receiver<Leave>,
    pub metrics: Arc<Metrics>,
}

/// One engine among others.
pub(crate) struct Cluster {
    parts: Parts,
    conn: Option<LeaseConnection>,
    holdings: Holdings,
    nodes: Vec<NodeView>,
    suspects: Suspects,
    /// Renewals in a row that came in time.
    streak: u32,
    /// Turns in a row that failed.
    failures: u32,
    /// The owner runs; the database must hear of it.
    joining: bool,
    leaving: Option<Leave>,
}

/// What the loop waits for.
enum Event {
    Stop,
    Time,
    News(News),
    Report(Report),
    Leave(Leave),
}

impl Cluster {
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            conn: None,
            holdings: Holdings::default(),
            nodes: Vec::new(),
            suspects: Suspects::default(),
            streak: 0,
            failures: 0,
            joining: false,
            leaving: None,
        }
    }

    /// Makes this engine known. `alone`: no other engine can be alive, so all others are fenced first. False: the
    /// process stops.
    pub async fn register(&mut self, name: &str, alone: bool, stopping: &CancellationToken) -> bool {
        loop {
            match tokio::time::timeout(PATIENCE, self.try_register(name, alone)).await {
                Ok(Ok(())) => return true,
                Ok(Err(e)) => warn!(error = %e, "the engine cannot make itself known yet"),
                Err(_) => warn!("the engine cannot make itself known yet: no answer"),
            }
            self.conn = None;
            tokio::select! {
                () = stopping.cancelled() => return false,
                () = tokio::time::sleep(Duration::from_millis(300)) => {}
            }
        }
    }

    async fn try_register(&mut self, name: &str, alone: bool) -> Result<()> {
        let (standing, ttl) = (self.parts.standing.clone(), self.parts.ttl);
        let (address, secret) = (self.parts.address.clone(), Arc::clone(&self.parts.secret));
        let node = self.parts.node;
        let conn = self.connection().await?;
        if alone {
            for other in conn.look().await?.nodes.iter().filter(|other| other.id != node) {
                warn!(node = %other.id, "taking over from a node that was not stopped");
                conn.fence(other.id).await?;
            }
        }
        let address = reachable(&address, conn.own_host().await?);
        let sent = standing.elapsed();
        conn.register(name, &address, &secret).await?;
        standing.trust(sent, ttl);
        Ok(())
    }

    async fn connection(&mut self) -> Result<&mut LeaseConnection> {
        match &mut self.conn {
            Some(conn) => Ok(conn),
            empty => {
                let conn = LeaseConnection::open(&self.parts.database, self.parts.node, self.parts.ttl).await?;
                // What was said while nobody listened is lost.
                self.parts.definitions.forget_all();
                Ok(empty.insert(conn))
            }
        }
    }

    /// Looks, decides and has shards moved, until `ending`. Ends early only when another engine has taken over.
    pub async fn run(&mut self, ending: &CancellationToken) {
        let clock = self.parts.standing.clock().clone();
        let mut next = clock.instant();
        loop {
            match self.event(next, ending).await {
                Event::Stop => return,
                Event::Time | Event::News(News::Shards | News::Doubted) => {}
                Event::News(News::Lost) => self.cut_off(),
                Event::News(News::Workflows(tenant)) => {
                    // However much of this there is, the next look is not put off.
                    self.parts.definitions.forget(tenant);
                    continue;
                }
                Event::Report(report) => self.report(report).await,
                Event::Leave(reply) => self.leave(reply).await,
            }
            let wait = self.turn().await;
            next = clock.instant() + wait;
            if self.parts.standing.is_fenced() {
                return;
            }
        }
    }

    async fn event(&mut self, next: Instant, ending: &CancellationToken) -> Event {
        let Self { conn, parts, .. } = self;
        let news = async {
            match conn {
                Some(conn) => conn.news().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ending.cancelled() => Event::Stop,
            Some(report) = parts.reports.recv() => Event::Report(report),
            Some(leave) = parts.leaves.recv() => Event::Leave(leave),
            news = news => Event::News(news),
            () = tokio::time::sleep_until(next.into()) => Event::Time,
        }
    }

    /// One look and what follows from it; gives when to look again.
    async fn turn(&mut self) -> Duration {
        // An idle engine asks the database little: what fails is tried again while the lease is still trusted.
        let usual = self.parts.ttl * 2 / 5;
        if !self.parts.standing.has_turned(usual) {
            warn!("the owner's loop has not turned: the lease is not renewed");
            return usual;
        }
        let (sent, patience) = (self.parts.standing.elapsed(), self.parts.ttl / 3);
        failpoint::hit(Point::BeforeRenewal).await;
        let look = async { self.connection().await?.look().await };
        let looked = tokio::time::timeout(patience, look).await;
        failpoint::hit(Point::AfterRenewal).await;
        let view = match looked {
            Ok(Ok(view)) => view,
            Ok(Err(e)) => return self.missed(&format!("the lease could not be renewed: {e}")),
            Err(_) => return self.missed("the lease could not be renewed in time"),
        };
        if !self.accept(view, sent) {
            return usual;
        }
        let now = self.parts.standing.clock().instant();
        let plan = self.suspects.plan(&self.nodes, self.parts.node, self.streak >= 2, now);
        match tokio::time::timeout(PATIENCE, self.act(&plan)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return self.missed(&format!("shards could not be moved: {e}")),
            Err(_) => return self.missed("shards could not be moved: no answer"),
        }
        self.failures = 0;
        self.publish();
        let again = !plan.fence.is_empty();
        plan.soon.filter(|_| !again).unwrap_or(if again { Duration::ZERO } else { usual }).min(usual)
    }

    fn missed(&mut self, why: &str) -> Duration {
        match self.parts.database.reach.is_lost() {
            true => debug!("{why}"),
            false => warn!("{why}"),
        }
        self.forget_looks();
        self.failures = self.failures.saturating_add(1);
        // A connection that was cut is opened again at once: others may miss the lanes, too, and wait for a renewal.
        if self.failures == 1 { AT_ONCE } else { self.parts.ttl / 8 }
    }

    /// The connection has ended. What cut it may have cut the lanes, too, here and elsewhere: the look that follows
    /// at once shows the others that this engine lives.
    fn cut_off(&mut self) {
        info!("the connection of the lease has ended: opening it again");
        self.forget_looks();
    }

    fn forget_looks(&mut self) {
        self.conn = None;
        self.streak = 0;
        self.suspects = Suspects::default();
    }

    /// Takes note of a look. False: this engine has been taken over.
    fn accept(&mut self, view: View, sent: i64) -> bool {
        if !view.renewed {
            error!("another engine has taken over: this process ends");
            self.parts.standing.fence();
            return false;
        }
        self.parts.standing.trust(sent, self.parts.ttl);
        self.streak = self.streak.saturating_add(1);
        self.nodes = view.nodes;
        true
    }

    async fn act(&mut self, plan: &Plan) -> Result<()> {
        for other in &plan.fence {
            warn!(node = %other, "taking over from a node that is gone");
            failpoint::hit(Point::BeforeFence).await;
            self.connection().await?.fence(*other).await?;
            self.parts.metrics.takeovers.inc();
            failpoint::hit(Point::AfterFence).await;
            self.nodes.retain(|n| n.id != *other);
        }
        for other in &plan.doubt {
            self.connection().await?.doubt(*other).await?;
        }
        if self.joining {
            self.connection().await?.join().await?;
            self.joining = false;
        }
        let lost = self.holdings.of(Holding::Lost);
        if !lost.is_empty() {
            self.release(&lost).await?;
        }
        if plan.take > 0 {
            let taken = self.connection().await?.take_shards(plan.take).await?;
            self.own(|shards| shards.extend(&taken));
            self.connection().await?.tell().await?;
        }
        self.reconcile();
        let give = plan.give.saturating_sub(self.holdings.of(Holding::Losing).len());
        if give > 0 && self.holdings.of(Holding::Gaining).is_empty() {
            let here = self.holdings.of(Holding::Here);
            let losing = here[here.len().saturating_sub(give)..].to_vec();
            self.lose(losing);
        }
        self.finish_leaving();
        Ok(())
    }

    /// Brings what is served here into line with what the database says is ours. It may say so after an answer that
    /// was lost, in either direction.
    fn reconcile(&mut self) {
        let ours = shards_of(&self.nodes, self.parts.node);
        if self.holdings.strays(&ours) {
            error!("another engine owns shards that are served here: this process ends");
            return self.parts.standing.fence();
        }
        let gained = self.holdings.missing(&ours);
        if !gained.is_empty() {
            info!(shards = gained.len(), "taking shards");
            self.holdings.set(&gained, Holding::Gaining);
            self.order(Order::Gain(gained));
        }
    }

    fn lose(&mut self, shards: Vec<usize>) {
        if shards.is_empty() {
            return;
        }
        info!(shards = shards.len(), "handing shards over");
        self.holdings.set(&shards, Holding::Losing);
        // Nobody is sent to the owner for these any more.
        self.publish();
        self.order(Order::Lose(shards));
    }

    async fn report(&mut self, report: Report) {
        match report {
            Report::Open => self.joining = true,
            Report::Gained(shards) => {
                self.holdings.set(&shards, Holding::Here);
                self.publish();
            }
            Report::Lost(shards) => {
                self.holdings.set(&shards, Holding::Lost);
                match tokio::time::timeout(PATIENCE, self.release(&shards)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => drop(self.missed(&format!("shards could not be given up yet: {e}"))),
                    Err(_) => drop(self.missed("shards could not be given up yet: no answer")),
                }
            }
        }
    }

    async fn release(&mut self, lost: &[usize]) -> Result<()> {
        let ids: Vec<i16> = lost.iter().filter_map(|s| i16::try_from(*s).ok()).collect();
        failpoint::hit(Point::BeforeRelease).await;
        let conn = self.connection().await?;
        conn.release(&ids).await?;
        failpoint::hit(Point::AfterRelease).await;
        self.own(|shards| shards.retain(|s| !ids.contains(s)));
        self.holdings.set(lost, Holding::Elsewhere);
        self.connection().await?.tell().await
    }

    fn own(&mut self, change: impl FnOnce(&mut Vec<i16>)) {
        if let Some(me) = self.nodes.iter_mut().find(|n| n.id == self.parts.node) {
            change(&mut me.shards);
        }
    }

    fn order(&self, order: Order) {
        // Each shard is in at most one order at a time, so there is room; without an owner the process ends.
        if self.parts.orders.try_send(order).is_err() {
            debug!("the owner is gone");
        }
    }

    /// Tells everybody in the process where each shard is.
    fn publish(&self) {
        let places = self.holdings.places(&self.nodes, self.parts.node);
        let gone = |n: &NodeView| n.id != self.parts.node && !n.shards.is_empty() && looks_gone(n);
        let known = !places.iter().any(|place| matches!(place, Place::Nowhere)) && !self.nodes.iter().any(gone);
        // Before anybody wakes up by the directory: background work asks for both.
        let first = known && !self.parts.ready.swap(true, Ordering::AcqRel);
        self.parts.directory.set(places);
        if first {
            let here = self.holdings.of(Holding::Here).len();
            info!(node = %self.parts.node, shards = here, "the engine takes work");
        }
    }
}
