//! Connections for what tenants ask: each tenant has a part of the pool, and the engine keeps some that no tenant can
//! take, for what it needs itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helve_domain::error::{Error, Result};
use helve_domain::id::TenantId;
use helve_supervisor::Supervisor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Pool;

/// How long a statement waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Statements of one tenant that wait or run: short ones, more than it has event streams, which all read when something
/// happens, and long ones, which must not take the places of those.
const SHORT: usize = 1_000;
const LONG: usize = 100;

/// How long a statement may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::db) enum Length {
    /// It follows an index to a few rows.
    Short,
    /// A filter decides how many rows it looks at: up to the statement timeout.
    Long,
}

/// How many connections of a pool may be in use for tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts {
    /// By one tenant, and by one tenant for long statements.
    own: (usize, usize),
    /// By all of them together.
    all: (usize, usize),
}

impl Parts {
    /// Of a pool of this size. Two tenants with nothing but long statements leave short ones of others a way, and all of
    /// them together leave the engine one.
    fn of(size: u32) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let quarter = (size / 4).max(1);
        let half = (size / 2).max(1);
        Self { own: (half, quarter), all: (size.saturating_sub(quarter).max(1), half) }
    }
}

/// The pool as tenants may use it. Clones share one account.
#[derive(Clone)]
pub struct TenantPools(Arc<Shared>);

struct Shared {
    pool: Pool,
    supervisor: Supervisor,
    parts: Parts,
    patience: Duration,
    all: Turns,
    /// Those that have something underway.
    tenants: Mutex<HashMap<TenantId, Account>>,
}

/// What may run at once, in the order of arrival.
#[derive(Clone)]
struct Turns {
    any: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

struct Account {
    /// Statements that wait or run.
    short: usize,
    long: usize,
    turns: Turns,
}

impl Account {
    /// How many of this length are underway, and may be.
    const fn count(&mut self, length: Length) -> (&mut usize, usize) {
        match length {
            Length::Short => (&mut self.short, SHORT),
            Length::Long => (&mut self.long, LONG),
        }
    }
}

/// Which tenant a pool is for.
#[derive(Clone)]
pub(in crate::db) struct Member {
    pools: TenantPools,
    tenant: TenantId,
    length: Length,
}

/// Leave to use one connection; over when dropped.
pub(in crate::db) struct Turn {
    _permits: Vec<OwnedSemaphorePermit>,
    _underway: Underway,
}

/// A statement in its tenant's account.
struct Underway {
    shared: Arc<Shared>,
    tenant: TenantId,
    length: Length,
}

impl TenantPools {
    /// Divides `pool`. A statement that has begun is a task of `supervisor`: it keeps its turn to its end, although who
    /// asked may be gone.
    pub fn new(pool: &Pool, supervisor: &Supervisor) -> Self {
        Self::with(pool, supervisor, PATIENCE)
    }

    fn with(pool: &Pool, supervisor: &Supervisor, patience: Duration) -> Self {
        let parts = Parts::of(pool.size());
        let shared = Shared {
            pool: pool.clone(),
            supervisor: supervisor.clone(),
            parts,
            patience,
            all: Turns::new(parts.all),
            tenants: Mutex::default(),
        };
        Self(Arc::new(shared))
    }

    /// The part of a tenant.
    pub fn of(&self, tenant: TenantId) -> Pool {
        self.0.pool.for_member(Member { pools: self.clone(), tenant, length: Length::Short })
    }
}

impl Turns {
    fn new((any, long): (usize, usize)) -> Self {
        Self { any: Arc::new(Semaphore::new(any)), long: Arc::new(Semaphore::new(long)) }
    }

    async fn take(&self, length: Length, permits: &mut Vec<OwnedSemaphorePermit>) {
        let kinds = [Some(&self.long).filter(|_| length == Length::Long), Some(&self.any)];
        for turns in kinds.into_iter().flatten() {
            // Closed never.
            permits.extend(Arc::clone(turns).acquire_owned().await);
        }
    }
}

impl Member {
    pub fn long(mut self) -> Self {
        self.length = Length::Long;
        self
    }

    pub fn supervisor(&self) -> &Supervisor {
        &self.pools.0.supervisor
    }

    /// Waits for the tenant's turn among its own statements, and then among all tenants.
    ///
    /// # Errors
    /// `Limited` when the tenant has too much underway; `Unavailable` when others have.
    pub async fn turn(&self) -> Result<Turn> {
        let shared = &self.pools.0;
        let (underway, turns) = self.enter()?;
        let mut permits = Vec::with_capacity(4);
        let mut own = false;
        let taken = tokio::time::timeout(shared.patience, async {
            turns.take(self.length, &mut permits).await;
            own = true;
            shared.all.take(self.length, &mut permits).await;
        });
        match taken.await {
            Ok(()) => Ok(Turn { _permits: permits, _underway: underway }),
            Err(_) if own => Err(Error::unavailable("no connection to the database came free")),
            Err(_) => Err(self.too_much()),
        }
    }

    fn enter(&self) -> Result<(Underway, Turns)> {
        let shared = &self.pools.0;
        let mut tenants = shared.lock();
        let fresh = || Account { short: 0, long: 0, turns: Turns::new(shared.parts.own) };
        let account = tenants.entry(self.tenant).or_insert_with(fresh);
        let (underway, most) = account.count(self.length);
        if *underway >= most {
            return Err(self.too_much());
        }
        *underway += 1;
        let underway = Underway { shared: Arc::clone(shared), tenant: self.tenant, length: self.length };
        Ok((underway, account.turns.clone()))
    }

    fn too_much(&self) -> Error {
        let (any, long) = self.pools.0.parts.own;
        let message = format!(
            "this tenant reads too much at once: {any} of its statements run at a time, {long} of them lists, and the \
             others wait {} s at most",
            PATIENCE.as_secs()
        );
        Error::Limited { message, retry_after: Duration::from_secs(1) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Account>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut tenants = self.shared.lock();
        if let Some(account) = tenants.get_mut(&self.tenant) {
            *account.count(self.length).0 -= 1;
            if (account.short, account.long) == (0, 0) {
                tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use helve_domain::clock::Timestamp;
    use helve_domain::error::Code;
    use helve_postgres::Database;

    use super::*;

    fn pools(size: u32) -> TenantPools {
        // Nobody listens there, and nobody asks.
        let database = Database { pool_size: size, ..Database::at("postgres://127.0.0.1:1/none") };
        TenantPools::with(&Pool::new(&database).unwrap(), &Supervisor::default(), Duration::from_millis(50))
    }

    fn tenant(n: i64) -> TenantId {
        TenantId::generate(Timestamp::from_micros(n * 1_000_000))
    }

    fn member(pools: &TenantPools, tenant: TenantId, length: Length) -> Member {
        Member { pools: pools.clone(), tenant, length }
    }

    #[test]
    fn every_size_has_its_parts() {
        for (size, own, all) in [
            (1, (1, 1), (1, 1)),
            (2, (1, 1), (1, 1)),
            (3, (1, 1), (2, 1)),
            (4, (2, 1), (3, 2)),
            (8, (4, 2), (6, 4)),
            (40, (20, 10), (30, 20)),
        ] {
            assert_eq!(Parts::of(size), Parts { own, all }, "{size}");
        }
    }

    #[tokio::test]
    async fn a_tenant_has_its_part_and_others_have_theirs() {
        let pools = pools(8);
        let [a, b, c] = [1, 2, 3].map(tenant);
        let take = |tenant, length| {
            let member = member(&pools, tenant, length);
            async move { member.turn().await }
        };
        let lists = join_all([take(a, Length::Long), take(a, Length::Long)]).await;
        assert!(lists.iter().all(Result::is_ok));
        let refused = take(a, Length::Long).await.err().unwrap();
        assert_eq!(refused.code(), Code::TooManyRequests, "it waited, and was told so");
        assert!(refused.client_text().contains("4 of its statements run at a time, 2 of them lists"));
        // Its own short statements go on, and so do everybody's.
        let short = join_all([take(a, Length::Short), take(a, Length::Short)]).await;
        assert!(short.iter().all(Result::is_ok));
        let others = join_all([take(b, Length::Long), take(b, Length::Long)]).await;
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(take(c, Length::Short).await.err().unwrap().code(), Code::Unavailable, "all parts are in use");
        drop(short);
        assert!(take(c, Length::Short).now_or_never().unwrap().is_ok(), "lists never take everything");
        assert_eq!(take(c, Length::Long).await.err().unwrap().code(), Code::Unavailable);
        drop((lists, others));
        assert!(pools.0.lock().is_empty(), "nothing is left of who has nothing underway");
    }

    #[tokio::test]
    async fn who_waits_is_served_in_turn_and_too_many_are_refused_at_once() {
        let pools = pools(1);
        let member = member(&pools, tenant(1), Length::Short);
        let first = member.turn().await.unwrap();
        let mut waiting: Vec<_> = (1..SHORT).map(|_| Box::pin(member.turn())).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        let refused = member.turn().now_or_never().unwrap().err().unwrap();
        assert_eq!((refused.code(), refused.retry_after()), (Code::TooManyRequests, Some(Duration::from_secs(1))));
        // As many lists as may wait take no place of theirs, and the other way round.
        let long = Member { length: Length::Long, ..member.clone() };
        let mut lists: Vec<_> = (0..LONG).map(|_| Box::pin(long.turn())).collect();
        for turn in &mut lists {
            assert!(turn.now_or_never().is_none());
        }
        assert_eq!(long.turn().now_or_never().unwrap().err().unwrap().code(), Code::TooManyRequests);
        drop(lists);
        drop(first);
        let mut waiting = waiting.into_iter();
        let second = waiting.next().unwrap().await.unwrap();
        // Who leaves the queue makes room in it.
        drop(waiting);
        assert_eq!(pools.0.lock().values().map(|account| account.short).sum::<usize>(), 1);
        drop(second);
    }
}
