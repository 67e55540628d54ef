//! Work that may keep a processor busy for long, such as checks of large inputs: on two threads of its own, one at a
//! time for a tenant, with a bounded queue and a deadline. The threads that answer requests never do it.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use helve_domain::error::{Error, Result};
use helve_domain::id::TenantId;
use tokio::sync::oneshot;

/// A tenant has one at most: so one tenant leaves the other to all others.
const THREADS: usize = 2;
/// What may wait of one tenant, and of all.
const OF_TENANT: usize = 1_024;
const OF_ALL: usize = 8_192;
/// How long a caller waits, in the queue and for the work.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs what may take long. The threads end when it is dropped.
pub(super) struct Checks {
    queue: Arc<Queue>,
    patience: Duration,
}

/// Set when nobody waits for a piece of work any more.
pub(super) type Stop = Arc<AtomicBool>;

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    /// By tenant; a tenant is here while it has work that waits or runs.
    lines: HashMap<TenantId, VecDeque<Work>>,
    /// Tenants with work that waits, of which none runs.
    ready: VecDeque<TenantId>,
    waiting: usize,
    closed: bool,
}

struct Work {
    run: Box<dyn FnOnce() + Send>,
    stop: Stop,
}

/// The end of a caller's wait, however it comes.
struct Waiting(Stop);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Checks {
    pub(super) fn start() -> Result<Self> {
        Self::with(THREADS, PATIENCE)
    }

    fn with(threads: usize, patience: Duration) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let checks = Self { queue: Arc::clone(&queue), patience };
        for n in 0..threads {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name(format!("check-{n}"));
            thread.spawn(move || queue.work()).map_err(|e| Error::Internal(format!("no thread for checks: {e}")))?;
        }
        Ok(checks)
    }

    /// Runs `work` in the tenant's turn. It should end when its flag is set: then its caller has gone.
    ///
    /// # Errors
    /// `Limited` or `Unavailable` when too much waits, or when it is not done in time.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        work: impl FnOnce(&Stop) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let stop = Stop::default();
        let _waiting = Waiting(Arc::clone(&stop));
        let flag = Arc::clone(&stop);
        let run = Box::new(move || {
            // Nobody may be left to hear it.
            let _ = reply.send(work(&flag));
        });
        self.queue.push(tenant, Work { run, stop })?;
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(Error::Internal("the check of an input panicked".to_owned())),
            Err(_) => Err(Error::unavailable("checks of inputs and definitions take too long now")),
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.queue.state().closed = true;
        self.queue.filled.notify_all();
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, tenant: TenantId, work: Work) -> Result<()> {
        let mut state = self.state();
        if state.waiting >= OF_ALL {
            return Err(Error::unavailable("too many checks of inputs and definitions wait"));
        }
        if let Some(line) = state.lines.get_mut(&tenant) {
            if line.len() >= OF_TENANT {
                let message = format!("{OF_TENANT} checks of this tenant's inputs and definitions wait already");
                return Err(Error::Limited { message, retry_after: Duration::from_secs(1) });
            }
            // It runs, or is in the row of those that are ready.
            line.push_back(work);
        } else {
            state.lines.insert(tenant, VecDeque::from([work]));
            state.ready.push_back(tenant);
        }
        state.waiting += 1;
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Does the work of one tenant after the other, until the end.
    fn work(&self) {
        while let Some((tenant, work)) = self.next() {
            if !work.stop.load(Ordering::Relaxed) && catch_unwind(AssertUnwindSafe(work.run)).is_err() {
                tracing::error!("a check panicked");
            }
            self.done(tenant);
        }
    }

    fn next(&self) -> Option<(TenantId, Work)> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            let tenant = state.ready.pop_front();
            if let Some(tenant) = tenant
                && let Some(work) = state.lines.get_mut(&tenant).and_then(VecDeque::pop_front)
            {
                state.waiting -= 1;
                return Some((tenant, work));
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, tenant: TenantId) {
        let mut state = self.state();
        if state.lines.get(&tenant).is_none_or(VecDeque::is_empty) {
            state.lines.remove(&tenant);
        } else {
            state.ready.push_back(tenant);
            drop(state);
            self.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use helve_domain::clock::Clock;
    use helve_domain::error::Code;

    use super::*;

    fn tenant() -> TenantId {
        TenantId::generate(Clock::system().now())
    }

    /// Work that goes on until the test lets it go, or its caller leaves.
    fn held(go: mpsc::Receiver<()>) -> impl FnOnce(&Stop) -> bool {
        move |stop| {
            while !stop.load(Ordering::Relaxed) {
                if go.recv_timeout(Duration::from_millis(1)) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return true;
                }
            }
            false
        }
    }

    #[tokio::test]
    async fn a_tenant_has_one_thread_and_the_other_is_for_the_others() {
        let checks = Checks::start().unwrap();
        let (attacker, other) = (tenant(), tenant());
        let (go, wait) = mpsc::channel();
        let long = checks.run(attacker, held(wait));
        let second = checks.run(attacker, |_| 2);
        let others = async {
            for n in 0..100 {
                assert_eq!(checks.run(other, move |_| n).await.unwrap(), n);
            }
            assert!(checks.queue.state().lines.contains_key(&attacker), "the long one goes on meanwhile");
            go.send(()).unwrap();
        };
        let (long, second, ()) = tokio::join!(long, second, others);
        assert_eq!((long.unwrap(), second.unwrap()), (true, 2));
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_so_and_its_work_ends() {
        let checks = Checks::with(1, Duration::from_millis(20)).unwrap();
        let (_go, wait) = mpsc::channel();
        let late = checks.run(tenant(), held(wait)).await.unwrap_err();
        assert_eq!(late.code(), Code::Unavailable);
        // The one thread is free again as soon as the caller has left.
        while checks.run(tenant(), |_| ()).await.is_err() {}
    }

    #[tokio::test]
    async fn a_check_that_panics_costs_its_caller_an_answer_and_not_the_thread() {
        let checks = Checks::with(1, Duration::from_secs(60)).unwrap();
        assert_eq!(checks.run(tenant(), |_| panic!("a defect")).await.map(|()| 0).unwrap_err().code(), Code::Internal);
        checks.run(tenant(), |_| ()).await.unwrap();
    }

    #[tokio::test]
    async fn what_waits_is_bounded_for_a_tenant_and_for_all() {
        let checks = Checks::with(0, Duration::from_secs(60)).unwrap();
        let push = |tenant| {
            checks.queue.push(tenant, Work { run: Box::new(|| ()), stop: Stop::default() }).map_err(|e| e.code())
        };
        let mut pushed = 0;
        while pushed < OF_ALL {
            let tenant = tenant();
            for _ in 0..OF_TENANT {
                push(tenant).unwrap();
                pushed += 1;
            }
            let full = if pushed < OF_ALL { Code::TooManyRequests } else { Code::Unavailable };
            assert_eq!(push(tenant), Err(full));
        }
        assert_eq!(push(tenant()), Err(Code::Unavailable));
    }
}
