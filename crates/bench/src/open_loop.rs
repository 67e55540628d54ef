//! Triggers at a fixed rate, whether or not the engine keeps up. Each has an intended time, from which its latency is
//! counted, so an engine that stalls cannot hide the requests that waited for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use helve_client::Http;
use helve_domain::clock::Clock;
use helve_domain::error::Result;
use helve_domain::id::RunId;
use helve_supervisor::Supervisor;
use tokio::sync::{Semaphore, oneshot};

use super::document::Axis;
use super::fleet::{Fleet, Log, Sent};
use super::load::{self, Latencies, Request};
use super::lock::lock;
use super::meter::{Generator, Meter};
use super::report::{Figure, number};
use super::{Bench, failure, progress, real};

/// The time before anything is counted, at the same rate.
const WARM_UP: Duration = Duration::from_secs(1);
/// A rate counts as reached if this part of it came to workers in the window.
pub(super) const REACHED: f64 = 0.95;
/// How long after the last intended time a client may still send a trigger that is due.
const GRACE: Duration = Duration::from_millis(250);
/// For how long the floor of a rate is measured.
const FLOOR: Duration = Duration::from_secs(1);
/// Enough slots that no trigger waits for one.
const WORKERS: usize = 4;
const SLOTS: u32 = 100;

/// When each trigger is to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    pub(super) rate: u32,
    /// The first triggers are not counted.
    pub(super) warm: u64,
    pub(super) total: u64,
}

impl Schedule {
    pub(super) fn new(start: Instant, rate: u32, warm_up: Duration, time: Duration) -> Self {
        let during = |d: Duration| u64::try_from(d.as_millis() * u128::from(rate) / 1_000).unwrap_or(u64::MAX).max(1);
        let warm = during(warm_up);
        Self { start, rate, warm, total: warm.saturating_add(during(time)) }
    }

    pub(super) fn intended(&self, n: u64) -> Instant {
        self.start + Duration::from_secs_f64(real(n) / f64::from(self.rate))
    }

    /// How many are due at a given time.
    fn due(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start);
        let due = passed.as_micros() * u128::from(self.rate) / 1_000_000;
        if now < self.start { 0 } else { u64::try_from(due).unwrap_or(u64::MAX).saturating_add(1).min(self.total) }
    }
}

/// What the clients were told, with the number of each trigger.
pub(super) struct Heard {
    pub(super) sent: Sent,
    /// Numbers of the accepted triggers, in the order of `sent.accepted`.
    pub(super) numbers: Vec<u64>,
    /// From the intended time to the answer.
    pub(super) answered: Latencies,
}

impl Heard {
    fn new() -> Result<Self> {
        Ok(Self { sent: Sent::default(), numbers: Vec::new(), answered: Latencies::new()? })
    }
}

/// Clients that send on a schedule.
pub(super) struct Paced {
    pub(super) schedule: Schedule,
    next: AtomicU64,
    /// One permit for each trigger that is due.
    due: Semaphore,
    heard: Mutex<Heard>,
    clock: Clock,
}

impl Paced {
    pub(super) fn new(schedule: Schedule, clock: &Clock) -> Result<Arc<Self>> {
        let heard = Mutex::new(Heard::new()?);
        Ok(Arc::new(Self { schedule, next: AtomicU64::new(0), due: Semaphore::new(0), heard, clock: clock.clone() }))
    }

    /// Sends everything; ends when the last request is answered, or abandoned because its time is over.
    pub(super) async fn run(self: &Arc<Self>, http: &Http, supervisor: &Supervisor, request: &Request) -> Result<()> {
        let clients = (self.schedule.rate / 10).clamp(32, 512);
        let jobs = (0..clients).map(|_| Arc::clone(self).client(http.clone(), request.clone()));
        let (end, ended) = oneshot::channel();
        let pacer = Arc::clone(self);
        // A separate thread: the runtime's timers have a resolution of a millisecond, which would show in each latency.
        std::thread::Builder::new()
            .name("bench-pacer".to_owned())
            .spawn(move || {
                pacer.pace();
                // Nobody waits any more: a client has failed.
                let _ = end.send(());
            })
            .map_err(|err| failure(format!("no thread: {err}")))?;
        let over = async {
            let _ = ended.await;
            let by = self.clock.instant() + GRACE;
            while self.next.load(Ordering::Relaxed) < self.schedule.total && self.clock.instant() < by {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            self.due.close();
        };
        let (clients, ()) = tokio::join!(load::together(supervisor, jobs), over);
        clients.map(drop)
    }

    fn pace(&self) {
        let mut released = 0;
        while released < self.schedule.total {
            let due = self.schedule.due(self.clock.instant());
            if due > released {
                self.due.add_permits(usize::try_from(due - released).unwrap_or(0));
                released = due;
            }
            if self.due.is_closed() {
                return;
            }
            let wait = self.schedule.intended(released).saturating_duration_since(self.clock.instant());
            // No longer, so that an end is noticed.
            std::thread::sleep(wait.min(Duration::from_millis(100)));
        }
    }

    async fn client(self: Arc<Self>, http: Http, request: Request) -> Result<()> {
        while let Ok(permit) = self.due.acquire().await {
            permit.forget();
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let answer = http.post(request.path(), request.body(n)).await;
            let took = self.clock.instant().saturating_duration_since(self.schedule.intended(n));
            let mut heard = lock(&self.heard);
            let noted = request.note(&mut heard.sent, answer);
            let accepted = noted.inspect_err(|_| self.due.close())?;
            heard.numbers.extend(std::iter::repeat_n(n, accepted));
            if accepted > 0 && n >= self.schedule.warm {
                heard.answered.record(took);
            }
        }
        Ok(())
    }

    /// Takes what was recorded so far.
    pub(super) fn take(&self) -> Result<Heard> {
        Ok(std::mem::replace(&mut *lock(&self.heard), Heard::new()?))
    }

    /// Triggers whose time passed without a free client.
    fn unsent(&self) -> std::ops::Range<u64> {
        self.next.load(Ordering::Relaxed).min(self.schedule.total)..self.schedule.total
    }
}

/// The result of one rate.
pub(super) struct Measured {
    pub(super) started: Latencies,
    pub(super) answered: Latencies,
    /// Runs a second that came to a worker within the window.
    pub(super) rate: f64,
    pub(super) refused: u64,
    /// Requests whose time passed.
    pub(super) unsent: u64,
    pub(super) generator: Generator,
}

/// Every rate, one after the other.
pub(super) async fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let workflow = bench.workflow("open-loop").await?;
    let mut figures = Vec::new();
    for rate in bench.sizes.rates.clone() {
        progress(&format!("optimistic {}: open loop, {rate}/s", bench.mode));
        let floor = floor_at(bench, rate).await?;
        let measured = measure(bench, &workflow, rate, &Request::trigger(&workflow)).await?;
        figures.extend(show(bench, rate, &measured, floor));
    }
    bench.forget(&workflow).await?;
    Ok(figures)
}

/// The cost of one plain commit at this rate, at most one at a time: the median, in milliseconds. A machine that idles
/// between two commits is slower at each than in a closed loop.
async fn floor_at(bench: &mut Bench, rate: u32) -> Result<Option<f64>> {
    let mut floor = Latencies::new()?;
    let schedule = Schedule::new(bench.clock.instant(), rate, Duration::ZERO, FLOOR);
    let end = schedule.start + FLOOR;
    let mut n = 0;
    while let Some(probe) = &mut bench.probe
        && bench.clock.instant() < end
    {
        floor.record(probe.floor(&bench.clock).await?);
        n += 1;
        if schedule.intended(n) > bench.clock.instant() {
            tokio::time::sleep_until(schedule.intended(n).into()).await;
        }
    }
    Ok((floor.len() > 0).then(|| floor.percentile(50.0)))
}

/// Sends this many requests a second for one window, with enough workers for the runs of `action`.
pub(super) async fn measure(bench: &mut Bench, action: &str, rate: u32, request: &Request) -> Result<Measured> {
    let log = Log::new(0);
    let fleet = Fleet::start(bench, action, WORKERS, SLOTS, &log).await?;
    // The clients are ready before the first request is due.
    let start = bench.clock.instant() + Duration::from_millis(50);
    let schedule = Schedule::new(start, rate, WARM_UP, bench.window);
    let paced = Paced::new(schedule, &bench.clock)?;
    let meter = Meter::start(bench)?;
    paced.run(&bench.http, &bench.supervisor, request).await?;
    let over = bench.clock.instant();
    let generator = meter.read(bench);
    let heard = paced.take()?;
    log.take(heard.sent.accepted.len()).await?;
    fleet.stop().await?;
    bench.ledger.check(&heard.sent, &log);
    let starts = log.starts();
    let (from, until) = (schedule.intended(schedule.warm), schedule.intended(schedule.total));
    let mut started = Latencies::new()?;
    for (run, n) in heard.sent.accepted.iter().zip(&heard.numbers).filter(|(_, n)| **n >= schedule.warm) {
        if let Some(at) = starts.get(run) {
            started.record(at.saturating_duration_since(schedule.intended(*n)));
        }
    }
    let inside = starts.values().filter(|at| (from..=until).contains(*at)).count();
    let mut answered = heard.answered;
    let unsent = paced.unsent();
    let refused = heard.sent.refused + heard.sent.unanswered;
    for n in unsent.clone() {
        // It has waited at least this long.
        let waited = over.saturating_duration_since(schedule.intended(n));
        started.record(waited);
        answered.record(waited);
    }
    if started.len() == 0 {
        return Err(failure(format!("nothing was accepted at {rate} requests/s: {refused} were refused")));
    }
    let rate = real(inside) / (until - from).as_secs_f64();
    Ok(Measured { started, answered, rate, refused, unsent: unsent.end - unsent.start, generator })
}

fn show(bench: &Bench, rate: u32, measured: &Measured, floor: Option<f64>) -> Vec<Figure> {
    let Measured { started, answered, rate: came, refused, unsent, generator } = measured;
    let reached = *unsent == 0 && *refused == 0 && *came >= f64::from(rate) * REACHED;
    let name = |what: &str| format!("open loop {}/s: {what}", number(f64::from(rate)));
    let missed = format!(
        "NOT REACHED: {} of {}/s came to workers, {unsent} were never sent, {refused} refused",
        number(*came),
        number(f64::from(rate)),
    );
    let mut figures = Vec::new();
    for (line, p) in [("p50", 50.0), ("p99", 99.0)] {
        let value = started.percentile(p);
        let mut figure = bench
            .figure(name(&format!("start latency {line}")), value, "ms")
            .curve(Axis::Rate, f64::from(rate), line, reached)
            .generator(generator);
        if let Some(floor) = floor {
            figure = figure.ratio(value / floor);
        }
        if p < 99.0 {
            let floor = floor.map(|floor| format!(", floor {floor:.2} ms")).unwrap_or_default();
            let answer = format!(
                "answered after {:.2} ms, p99 {:.2} ms{floor}",
                answered.percentile(50.0),
                answered.percentile(99.0)
            );
            let reach = if reached { String::new() } else { format!("{missed}; ") };
            figure = figure.detail(format!("{reach}{} samples, {answer}", started.len()));
            figure = figure.distribution(started.distribution());
        } else if !reached {
            figure = figure.detail("NOT REACHED: grows with the time of measuring");
        }
        figures.push(figure);
    }
    let figure = bench.figure(name("came to workers"), *came, "runs/s");
    figures.push(if reached { figure } else { figure.detail(missed) });
    figures
}

/// For each run: how long after its intended time it came to a worker.
pub(super) fn late(schedule: &Schedule, n: u64, at: Instant) -> Duration {
    at.saturating_duration_since(schedule.intended(n))
}

/// Runs with their numbers.
pub(super) fn numbered(heard: &Heard) -> impl Iterator<Item = (RunId, u64)> {
    heard.sent.accepted.iter().copied().zip(heard.numbers.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_due_at_even_distances() {
        let start = Clock::system().instant();
        let schedule = Schedule::new(start, 200, Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!((schedule.warm, schedule.total), (200, 600));
        assert_eq!(schedule.intended(100), start + Duration::from_millis(500));
        assert_eq!(schedule.due(start - Duration::from_millis(1)), 0);
        assert_eq!(schedule.due(start), 1);
        assert_eq!(schedule.due(start + Duration::from_millis(11)), 3);
        assert_eq!(schedule.due(start + Duration::from_secs(60)), 600);
    }

    #[test]
    fn the_pacer_releases_what_is_due_and_nothing_early() {
        let clock = Clock::system();
        let start = clock.instant();
        let schedule = Schedule::new(start, 1_000, Duration::from_millis(1), Duration::from_millis(50));
        let paced = Paced::new(schedule, &clock).unwrap();
        paced.pace();
        assert_eq!(paced.due.available_permits(), 51);
        assert!(clock.instant() - start >= Duration::from_millis(50));
        assert_eq!(paced.unsent(), 0..51);
    }
}
