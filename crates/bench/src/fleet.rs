//! The benchmark's workers, and the ledger of what was accepted, executed and stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Ready, ready};
use helve_client::frames::Task;
use helve_client::{Handler, Options, worker};
use helve_domain::clock::Clock;
use helve_domain::delivery::{Attempt, Outcome};
use helve_domain::error::Result;
use helve_domain::id::RunId;
use helve_domain::json::Payload;
use helve_domain::status::RunStatus;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::lock::lock;
use super::report::{Figure, Must};
use super::{Bench, failure, real};

/// How long accepted runs may take to be stored once the load has ended.
const CATCH_UP: Duration = Duration::from_secs(60);

/// What the workers of one row saw.
pub(super) struct Log {
    started: Mutex<Vec<(RunId, Instant)>>,
    stored: Mutex<Vec<RunId>>,
    count: AtomicU64,
    /// One permit for each stored run: permission to send another, or something to wait for.
    credit: Semaphore,
}

impl Log {
    /// `credit` runs may be in progress before the first is stored.
    pub(super) fn new(credit: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Mutex::default(),
            stored: Mutex::default(),
            count: AtomicU64::new(0),
            credit: Semaphore::new(credit),
        })
    }

    /// Runs stored so far.
    pub(super) fn stored(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes the credit of `n` runs, waiting until it is available.
    pub(super) async fn take(&self, n: usize) -> Result<()> {
        let permits = u32::try_from(n).map_err(|_| failure("too many runs in one row"))?;
        match tokio::time::timeout(CATCH_UP, self.credit.acquire_many(permits)).await {
            Ok(Ok(taken)) => {
                taken.forget();
                Ok(())
            }
            _ => Err(failure(format!("waited {CATCH_UP:?} for {n} runs to be stored: {} were", self.stored()))),
        }
    }

    /// Returns the credit of runs that were not accepted.
    pub(super) fn give_back(&self, n: usize) {
        self.credit.add_permits(n);
    }

    /// When each run first came to a worker.
    pub(super) fn starts(&self) -> HashMap<RunId, Instant> {
        let mut first = HashMap::new();
        for (run, at) in lock(&self.started).iter() {
            first.entry(*run).or_insert(*at);
        }
        first
    }

    /// Tasks that have come to a worker so far.
    pub(super) fn begun(&self) -> usize {
        lock(&self.started).len()
    }

    /// Takes what was recorded so far: starts, and runs whose results are stored.
    pub(super) fn drain(&self) -> (Vec<(RunId, Instant)>, Vec<RunId>) {
        (std::mem::take(&mut *lock(&self.started)), std::mem::take(&mut *lock(&self.stored)))
    }

    /// A run came to a worker.
    pub(super) fn began(&self, run: RunId, at: Instant) {
        lock(&self.started).push((run, at));
    }

    /// A run's result is stored.
    pub(super) fn ended(&self, run: RunId) {
        lock(&self.stored).push(run);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.credit.add_permits(1);
    }

    /// The last run that arrived at a worker, and when.
    pub(super) fn last_start(&self) -> Option<(RunId, Instant)> {
        lock(&self.started).last().copied()
    }
}

/// A worker that does nothing, at once or after holding its tasks for as long as it is told.
struct NoOp {
    hold: Option<CancellationToken>,
    clock: Clock,
    log: Arc<Log>,
    output: Payload,
    connected: Mutex<Option<oneshot::Sender<()>>>,
}

impl Handler for NoOp {
    type Work = Either<Ready<Outcome>, BoxFuture<'static, Outcome>>;

    fn start(&self, task: Task) -> Self::Work {
        let now = self.clock.instant();
        self.log.began(task.task_run, now);
        let outcome = Outcome::Succeeded(self.output.clone());
        match self.hold.clone() {
            None => Either::Left(ready(outcome)),
            Some(hold) => Either::Right(Box::pin(hold.cancelled_owned().map(|()| outcome))),
        }
    }

    fn connected(&self) {
        if let Some(waiting) = lock(&self.connected).take() {
            // Nobody waits any more: the start of the fleet has failed elsewhere.
            let _ = waiting.send(());
        }
    }

    fn stored(&self, attempt: Attempt, _status: RunStatus) {
        self.log.ended(attempt.run);
    }
}

/// Connected workers of one action, each with a socket.
pub(super) struct Fleet {
    stop: CancellationToken,
    ends: Vec<oneshot::Receiver<Result<()>>>,
}

impl Fleet {
    /// Connects `workers` with `slots` each and waits until all of them are welcomed.
    pub(super) async fn start(bench: &Bench, action: &str, workers: usize, slots: u32, log: &Arc<Log>) -> Result<Self> {
        Self::connect(bench, action, workers, slots, log, None).await
    }

    /// One worker that keeps its tasks until `release`.
    pub(super) async fn holding(
        bench: &Bench,
        action: &str,
        slots: u32,
        log: &Arc<Log>,
        release: &CancellationToken,
    ) -> Result<Self> {
        Self::connect(bench, action, 1, slots, log, Some(release)).await
    }

    async fn connect(
        bench: &Bench,
        action: &str,
        workers: usize,
        slots: u32,
        log: &Arc<Log>,
        hold: Option<&CancellationToken>,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut ends = Vec::new();
        let mut welcomes = Vec::new();
        for n in 0..workers {
            let (connected, welcome) = oneshot::channel();
            let (end, ended) = oneshot::channel();
            let handler = NoOp {
                hold: hold.cloned(),
                clock: bench.clock.clone(),
                log: Arc::clone(log),
                output: Payload::null(),
                connected: Mutex::new(Some(connected)),
            };
            let options = Options {
                url: bench.engine.url.clone(),
                token: bench.engine.token.clone(),
                name: format!("bench-{n}"),
                actions: vec![action.to_owned()],
                slots: BTreeMap::from([("default".to_owned(), slots)]),
                workflows: Vec::new(),
            };
            let run = worker::run(options, bench.clock.clone(), stop.clone(), handler);
            bench.supervisor.spawn("bench-worker", async move {
                // If nobody listens, the fleet is gone.
                let _ = end.send(run.await);
            });
            welcomes.push(welcome);
            ends.push(ended);
        }
        Self::welcomed(welcomes, &mut ends).await.inspect_err(|_| stop.cancel())?;
        Ok(Self { stop, ends })
    }

    async fn welcomed(welcomes: Vec<oneshot::Receiver<()>>, ends: &mut [oneshot::Receiver<Result<()>>]) -> Result<()> {
        for (welcome, end) in welcomes.into_iter().zip(ends) {
            match tokio::time::timeout(Duration::from_secs(15), welcome).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    end.await.map_err(|_| failure("a worker died"))??;
                    return Err(failure("a worker ended before it was welcomed"));
                }
                Err(_) => return Err(failure("a worker was not welcomed within 15 s")),
            }
        }
        Ok(())
    }

    /// Lets the workers finish and leave.
    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        for end in self.ends {
            end.await.map_err(|_| failure("a worker died"))??;
        }
        Ok(())
    }
}

/// What the clients of one row were told.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) accepted: Vec<RunId>,
    /// Answers that were refusals.
    pub(super) refused: u64,
    /// Requests without an answer: their runs may exist.
    pub(super) unanswered: u64,
    /// Accepted runs that were assigned when they were created.
    pub(super) assigned: u64,
}

impl Sent {
    pub(super) fn merge(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.assigned += other.assigned;
    }
}

/// The account of the whole benchmark: everything accepted was executed once, and nothing else was.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accepted: u64,
    refused: u64,
    unanswered: u64,
    lost: u64,
    repeated: u64,
    foreign: u64,
}

impl Ledger {
    /// Compares the two sides of one row.
    pub(super) fn check(&mut self, sent: &Sent, log: &Log) {
        let accepted: HashSet<_> = sent.accepted.iter().copied().collect();
        let stored: HashSet<_> = lock(&log.stored).iter().copied().collect();
        let mut starts: HashMap<RunId, u64> = HashMap::new();
        for (run, _) in lock(&log.started).iter() {
            *starts.entry(*run).or_default() += 1;
        }
        let foreign = real_count(starts.keys().filter(|run| !accepted.contains(run)).count());
        self.accepted += real_count(sent.accepted.len());
        self.refused += sent.refused;
        self.unanswered += sent.unanswered;
        self.lost +=
            real_count(accepted.iter().filter(|run| !stored.contains(run) || !starts.contains_key(run)).count());
        // One id given to two callers would merge two runs into one.
        self.repeated += starts.values().map(|n| n - 1).sum::<u64>();
        self.repeated += real_count(sent.accepted.len() - accepted.len());
        self.foreign += foreign.saturating_sub(sent.unanswered);
    }

    /// What was counted elsewhere.
    pub(super) fn of_counts(sent: &Sent, accepted: u64, lost: u64, repeated: u64, foreign: u64) -> Self {
        let (refused, unanswered) = (sent.refused, sent.unanswered);
        Self { accepted, refused, unanswered, lost, repeated, foreign: foreign.saturating_sub(unanswered) }
    }

    /// Adds what another account found.
    pub(super) fn merge(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.foreign += other.foreign;
    }

    /// Its figures: three numbers that must be zero.
    pub(super) fn figures(&self, mode: &'static str) -> Vec<Figure> {
        let zero = |name: &str, n: u64| Figure::new(mode, name, real(n), "runs").must(Must::AtMost(0.0));
        vec![
            Figure::new(mode, "ledger: accepted", real(self.accepted), "runs")
                .summed()
                .detail(format!("{} refused, {} unanswered", self.refused, self.unanswered)),
            zero("ledger: accepted, not executed", self.lost).of_ledger(),
            zero("ledger: executed twice", self.repeated).of_ledger(),
            zero("ledger: executed, never accepted", self.foreign).of_ledger(),
        ]
    }
}

fn real_count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_finds_what_is_lost_repeated_and_foreign() {
        let clock = Clock::system();
        let ids: Vec<_> = (0..5).map(|_| RunId::generate(clock.now())).collect();
        let log = Log::new(0);
        // 0 is right, 1 was executed twice, 2 never, 3 was executed but not stored, 4 was not accepted.
        for n in [0, 1, 1, 3, 4] {
            lock(&log.started).push((ids[n], clock.instant()));
        }
        lock(&log.stored).extend([ids[0], ids[1], ids[4]]);
        let sent = Sent { accepted: ids[..4].to_vec(), ..Sent::default() };
        let mut ledger = Ledger::default();
        ledger.check(&sent, &log);
        assert_eq!((ledger.accepted, ledger.lost, ledger.repeated, ledger.foreign), (4, 2, 1, 1));
        let unanswered = Sent { unanswered: 1, ..sent };
        let mut ledger = Ledger::default();
        ledger.check(&unanswered, &log);
        assert_eq!(ledger.foreign, 0, "an unanswered request may have made it");
    }
}
