//! Log lines and progress on their way to the database: a bounded desk, and a writer of its own beside the lanes.
//!
//! Nothing waits for them: a result is confirmed whether or not the lines before it are stored. A crash loses what lies
//! on the desk; a stop stores it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use helve_domain::backoff::Backoff;
use helve_domain::clock::Clock;
use helve_domain::delivery::Attempt;
use helve_domain::error::{Error, Result};
use helve_domain::id::{RunId, TenantId};
use helve_domain::limits::Limits;
use helve_domain::live::{LogBatch, LogLine, Progress};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Live;
use crate::db::Pool;
use crate::db::live::{self as store, Head, NewLines};
use crate::share::Tally;

/// Bytes that may lie on the desk.
const DESK: usize = 16 << 20;
/// What a line takes besides its message.
const OVERHEAD: usize = 128;
/// Runs whose dropped lines are counted, and whose progress waits.
const RUNS: usize = 20_000;
/// Lines, bytes and runs of one statement.
const LINES: usize = 1_000;
const BYTES: usize = 1 << 20;
/// How often a run's progress is stored at most.
const PROGRESS: Duration = Duration::from_secs(2);
/// How long what lies on the desk may take when the process stops.
const LEAVE: Duration = Duration::from_secs(3);
/// Tries of a statement that the database refuses for what it contains.
const TRIES: u32 = 3;
/// How long a statement that failed waits.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Where the owner leaves what workers say, without waiting.
pub(crate) struct Desk {
    waiting: Mutex<Waiting>,
    work: Notify,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<(u64, TenantId, Attempt, LogLine)>,
    bytes: usize,
    by_tenant: Tally,
    dropped: HashMap<RunId, (TenantId, u64)>,
    progress: HashMap<RunId, (TenantId, Progress)>,
    /// Lines that ever came.
    came: u64,
    flushes: Vec<Flush>,
}

/// Who waits until everything that came before is stored.
struct Flush {
    /// The number of the last line that came before.
    came: u64,
    /// Progress was stored since.
    progress: bool,
    done: oneshot::Sender<()>,
}

/// New lines of one run.
struct Pending {
    tenant: TenantId,
    lines: Vec<(i32, LogLine)>,
    dropped: u64,
    /// Where the log ends if a try whose outcome is unknown was a success.
    tried: Option<i64>,
}

/// What one turn stores.
#[derive(Default)]
struct Turn {
    lines: BTreeMap<RunId, Pending>,
    progress: Vec<(RunId, TenantId, Progress)>,
}

impl Desk {
    pub fn new() -> Self {
        Self { waiting: Mutex::default(), work: Notify::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes lines in. A tenant may have as much on the desk as is free beside it: one that floods leaves room for
    /// the others. What finds no room is counted.
    pub fn log(&self, tenant: TenantId, batch: LogBatch) {
        let mut waiting = self.waiting();
        let mut dropped = batch.dropped;
        for line in batch.lines {
            let size = line.message.len() + OVERHEAD;
            let free = DESK.saturating_sub(waiting.bytes);
            if waiting.by_tenant.of(tenant) + size > free {
                dropped += 1;
                continue;
            }
            waiting.by_tenant.add(tenant, size);
            waiting.bytes += size;
            waiting.came += 1;
            let number = waiting.came;
            waiting.lines.push_back((number, tenant, batch.attempt, line));
        }
        waiting.count_dropped(batch.attempt.run, tenant, dropped);
        drop(waiting);
        self.work.notify_one();
    }

    /// Takes progress in: the last one of a run counts.
    pub fn progress(&self, tenant: TenantId, progress: Progress) {
        let mut waiting = self.waiting();
        let run = progress.attempt.run;
        if waiting.progress.len() < RUNS || waiting.progress.contains_key(&run) {
            waiting.progress.insert(run, (tenant, progress));
        }
        drop(waiting);
        self.work.notify_one();
    }

    /// A run's progress that is not stored yet.
    pub fn latest(&self, run: RunId) -> Option<Progress> {
        self.waiting().progress.get(&run).map(|p| p.1.clone())
    }

    /// Resolves when everything that came before is stored.
    fn flushed(&self) -> oneshot::Receiver<()> {
        let (done, flushed) = oneshot::channel();
        let mut waiting = self.waiting();
        let came = waiting.came;
        waiting.flushes.push(Flush { came, progress: false, done });
        drop(waiting);
        self.work.notify_one();
        flushed
    }
}

impl Waiting {
    fn count_dropped(&mut self, run: RunId, tenant: TenantId, dropped: u64) {
        if dropped > 0 && (self.dropped.len() < RUNS || self.dropped.contains_key(&run)) {
            self.dropped.entry(run).or_insert((tenant, 0)).1 += dropped;
        }
    }

    /// What the next turn stores; progress too if it is its time, or if someone waits.
    fn turn(&mut self, with_progress: bool) -> Turn {
        let mut turn = Turn::default();
        let (mut lines, mut bytes) = (0, 0);
        while lines < LINES
            && bytes < BYTES
            && let Some((_, tenant, attempt, line)) = self.lines.pop_front()
        {
            let size = line.message.len() + OVERHEAD;
            (lines, bytes) = (lines + 1, bytes + size);
            self.bytes = self.bytes.saturating_sub(size);
            self.by_tenant.sub(tenant, size);
            turn.of(attempt.run, tenant).lines.push((attempt.number, line));
        }
        let runs: Vec<RunId> = self.dropped.keys().take(LINES).copied().collect();
        for run in runs {
            if let Some((tenant, dropped)) = self.dropped.remove(&run) {
                turn.of(run, tenant).dropped += dropped;
            }
        }
        if with_progress {
            self.flushes.iter_mut().for_each(|flush| flush.progress = true);
            let runs: Vec<RunId> = self.progress.keys().take(LINES).copied().collect();
            let taken = runs.iter().filter_map(|run| self.progress.remove(run).map(|(t, p)| (*run, t, p)));
            turn.progress = taken.collect();
        }
        turn
    }

    /// Tells those whose lines are all stored.
    fn tell(&mut self) {
        let first = self.lines.front().map_or(u64::MAX, |line| line.0);
        for flush in self.flushes.extract_if(.., |flush| flush.progress && flush.came < first) {
            // Who has given up need not be told.
            let _ = flush.done.send(());
        }
    }

    fn has_lines(&self) -> bool {
        !self.lines.is_empty() || !self.dropped.is_empty()
    }
}

impl Turn {
    fn of(&mut self, run: RunId, tenant: TenantId) -> &mut Pending {
        self.lines.entry(run).or_insert_with(|| Pending { tenant, lines: Vec::new(), dropped: 0, tried: None })
    }
}

/// Stores what lies on the desk.
pub(crate) struct LogWriter {
    pub live: Live,
    pub pool: Pool,
    pub limits: Arc<Limits>,
    pub clock: Clock,
}

impl Live {
    /// Resolves when everything that was said before is stored, or after `within`: then some of it is not.
    pub async fn flush(&self, within: Duration) {
        let flushed = self.desk().flushed();
        let _ = tokio::time::timeout(within, flushed).await;
    }

    /// A run's progress that is not stored yet.
    pub fn latest_progress(&self, run: RunId) -> Option<Progress> {
        self.desk().latest(run)
    }
}

impl LogWriter {
    /// Stores until the process stops, and then what is left.
    pub async fn run(self, stopping: CancellationToken) {
        let left = async {
            stopping.cancelled().await;
            self.live.flush(LEAVE).await;
        };
        tokio::select! {
            () = self.store_all() => {}
            () = left => {}
        }
    }

    async fn store_all(&self) {
        let mut next_progress = self.clock.instant();
        loop {
            self.work(next_progress).await;
            let now = self.clock.instant();
            let turn = {
                let mut waiting = self.live.desk().waiting();
                let with_progress = next_progress <= now || !waiting.flushes.is_empty();
                waiting.turn(with_progress)
            };
            if !turn.progress.is_empty() {
                next_progress = now + PROGRESS;
                self.store_progress(turn.progress).await;
            }
            self.store_lines(turn.lines).await;
            self.live.desk().waiting().tell();
        }
    }

    /// Resolves when there is something to store.
    async fn work(&self, next_progress: Instant) {
        loop {
            let (now, has_progress) = {
                let waiting = self.live.desk().waiting();
                if waiting.has_lines() || !waiting.flushes.is_empty() {
                    return;
                }
                (!waiting.progress.is_empty() && next_progress <= self.clock.instant(), !waiting.progress.is_empty())
            };
            if now {
                return;
            }
            tokio::select! {
                () = self.live.desk().work.notified() => {}
                () = tokio::time::sleep_until(next_progress.into()), if has_progress => {}
            }
        }
    }

    async fn store_progress(&self, progress: Vec<(RunId, TenantId, Progress)>) {
        let rows: Vec<_> = progress.iter().map(|(run, tenant, p)| (*run, *tenant, p.to_payload())).collect();
        if let Err(e) = store::put_progress(&self.pool, &rows).await {
            warn!(error = %e, "progress was not stored, trying again");
            let mut waiting = self.live.desk().waiting();
            for (run, tenant, progress) in progress {
                // What came meanwhile is newer.
                waiting.progress.entry(run).or_insert((tenant, progress));
            }
        }
    }

    /// Stores lines, again and again until it succeeds; the desk fills meanwhile.
    async fn store_lines(&self, mut pending: BTreeMap<RunId, Pending>) {
        let (mut backoff, mut refused) = (Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), 0);
        while !pending.is_empty() {
            let Err(e) = self.try_store(&mut pending).await else { continue };
            warn!(error = %e, "log lines are not stored yet");
            refused += u32::from(matches!(e, Error::Internal(_)));
            if refused >= TRIES {
                let mut waiting = self.live.desk().waiting();
                for (run, p) in pending {
                    let lines = u64::try_from(p.lines.len()).unwrap_or_default();
                    waiting.count_dropped(run, p.tenant, lines + p.dropped);
                }
                return;
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn try_store(&self, pending: &mut BTreeMap<RunId, Pending>) -> Result<()> {
        let runs: Vec<RunId> = pending.keys().copied().collect();
        let heads: HashMap<RunId, Head> = store::heads(&self.pool, &runs).await?.into_iter().collect();
        let head = |run: &RunId| heads.get(run).copied().unwrap_or_default();
        // A try without an answer was a success if the log is as long as it made it.
        let done = pending.extract_if(.., |run, p| p.tried.take().is_some_and(|end| head(run).lines >= end));
        done.for_each(|(run, _)| self.live.logged(run));
        let mut batch = Vec::with_capacity(pending.len());
        for (run, p) in pending.iter_mut() {
            let head = head(run);
            self.cut(head, p);
            let (first, lines) = (head.lines, p.lines.clone());
            let dropped = i64::try_from(p.dropped).unwrap_or(i64::MAX);
            batch.push(NewLines { run: *run, tenant: p.tenant, first, lines, dropped });
            // Without a line the length tells nothing: a count may then be added twice, never lost.
            p.tried = (!p.lines.is_empty()).then(|| first + i64::try_from(p.lines.len()).unwrap_or_default());
        }
        for run in store::append(&self.pool, &batch).await? {
            pending.remove(&run);
            self.live.logged(run);
        }
        Ok(())
    }

    /// Keeps what the run's limits allow.
    fn cut(&self, head: Head, pending: &mut Pending) {
        let limit = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (mut lines, mut bytes) = (head.lines, head.bytes);
        let kept = pending.lines.iter().take_while(|(_, line)| {
            lines += 1;
            bytes += limit(line.message.len());
            lines <= limit(self.limits.log_lines) && bytes <= limit(self.limits.log_bytes)
        });
        let kept = kept.count();
        pending.dropped += u64::try_from(pending.lines.len() - kept).unwrap_or_default();
        pending.lines.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Timestamp;
    use helve_domain::live::LogLevel;

    use super::*;

    fn batch(run: RunId, messages: &[&str]) -> LogBatch {
        let at = Timestamp::from_micros(1);
        let line = |m: &&str| LogLine { level: LogLevel::Info, at, message: (*m).to_owned() };
        LogBatch { attempt: Attempt { run, number: 1 }, lines: messages.iter().map(line).collect(), dropped: 0 }
    }

    #[test]
    fn one_tenant_leaves_room_for_the_others() {
        let [a, b] = [1, 2].map(|n| TenantId::generate(Timestamp::from_micros(n)));
        let run = RunId::generate(Timestamp::from_micros(1));
        let desk = Desk::new();
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            desk.log(a, batch(run, &[&long]));
        }
        let kept = desk.waiting().lines.len();
        assert!((6..=8).contains(&kept), "{kept}");
        assert_eq!(desk.waiting().dropped[&run].1, 20 - u64::try_from(kept).unwrap());
        desk.log(b, batch(run, &["y", "z"]));
        assert_eq!(desk.waiting().lines.len(), kept + 2);
        // A turn takes a bounded part, in order, and gives the room back.
        let turn = desk.waiting().turn(true);
        assert_eq!(turn.lines[&run].lines.len(), 1);
        while desk.waiting().has_lines() {
            desk.waiting().turn(true);
        }
        let waiting = desk.waiting();
        assert_eq!((waiting.bytes, waiting.by_tenant.total()), (0, (0, 0)));
    }

    #[test]
    fn a_flush_waits_for_what_came_before_it_only() {
        let tenant = TenantId::generate(Timestamp::from_micros(1));
        let run = RunId::generate(Timestamp::from_micros(1));
        let desk = Desk::new();
        desk.log(tenant, batch(run, &["a"]));
        let mut flushed = desk.flushed();
        desk.waiting().tell();
        assert!(flushed.try_recv().is_err());
        desk.waiting().turn(true);
        desk.log(tenant, batch(run, &["b"]));
        desk.waiting().tell();
        assert!(flushed.try_recv().is_ok());
    }
}
