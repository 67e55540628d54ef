//! Whether the benchmark's own clients and workers limited what was measured.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use helve_domain::error::Result;
use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::load::Latencies;
use super::lock::lock;
use super::{Bench, process, real};

/// The wait between two checks of this process's lateness.
const TICK: Duration = Duration::from_millis(5);
/// The timer's own resolution: being this much later than requested is not late.
const RESOLUTION: Duration = Duration::from_millis(1);
/// If its own threads use this part of all cores, they can hardly do more.
const SATURATED: f64 = 0.85;
/// A machine that is this busy has nothing left.
const BUSY: f64 = 0.9;
/// On a busy machine, the generator must leave at least half of what is used to what it measures.
const HALF: f64 = 0.5;
/// If it is later than this, latencies include its own delay.
const LATE_MS: f64 = 5.0;

/// What the load generator used while a figure was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Generator {
    /// Its CPU time as a part of all cores.
    pub(super) cpu_share: f64,
    /// How busy the whole machine was.
    pub(super) machine_busy: f64,
    /// The lateness of its timers, the 99th percentile.
    pub(super) lag_p99_ms: f64,
    /// Why the figure is the generator's and not the engine's; absent if it is the engine's.
    pub(super) limit: Option<String>,
}

impl Generator {
    fn judge(cpu_share: f64, machine_busy: f64, lag_p99_ms: f64) -> Self {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let limit = if cpu_share >= SATURATED {
            Some(format!("the load generator is the limit: it used {} of all cores", percent(cpu_share)))
        } else if machine_busy >= BUSY && cpu_share >= machine_busy * HALF {
            let share = percent(cpu_share / machine_busy);
            Some(format!("the load generator is the limit: it used {share} of the time of all busy cores"))
        } else if lag_p99_ms >= LATE_MS {
            Some(format!("the load generator was late (p99 {lag_p99_ms:.1} ms): latencies hold that too"))
        } else {
            None
        };
        Self { cpu_share, machine_busy, lag_p99_ms, limit }
    }
}

/// CPU time of the machine in ticks: used, and total.
fn machine(stat: &str) -> Option<(u64, u64)> {
    let ticks: Vec<u64> = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().flat_map(str::parse).collect();
    // User, nice, system, idle, waiting, and so on; guests are in user already.
    let all: u64 = ticks.iter().take(8).sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all.saturating_sub(idle), all))
}

fn now() -> (u64, u64) {
    std::fs::read_to_string("/proc/stat").ok().and_then(|text| machine(&text)).unwrap_or((0, 0))
}

/// Measures from its start until it is read.
pub(super) struct Meter {
    began: Instant,
    own: Duration,
    machine: (u64, u64),
    lag: Arc<Mutex<Latencies>>,
    _stop: DropGuard,
}

impl Meter {
    pub(super) fn start(bench: &Bench) -> Result<Self> {
        let lag = Arc::new(Mutex::new(Latencies::new()?));
        let stop = CancellationToken::new();
        let (clock, log, stopped) = (bench.clock.clone(), Arc::clone(&lag), stop.clone());
        bench.supervisor.spawn("bench-meter", async move {
            while !stopped.is_cancelled() {
                let asked = clock.instant() + TICK + RESOLUTION;
                tokio::time::sleep(TICK).await;
                let late = clock.instant().saturating_duration_since(asked);
                lock(&log).record(late);
            }
        });
        Ok(Self { began: bench.clock.instant(), own: own(), machine: now(), lag, _stop: stop.drop_guard() })
    }

    pub(super) fn read(self, bench: &Bench) -> Generator {
        let cores = real(std::thread::available_parallelism().map_or(1, usize::from));
        let took = (bench.clock.instant() - self.began).as_secs_f64().max(0.001);
        let share = own().saturating_sub(self.own).as_secs_f64() / took / cores;
        let (used, all) = now();
        let (used, all) = (used.saturating_sub(self.machine.0), all.saturating_sub(self.machine.1));
        let busy = if all == 0 { 0.0 } else { real(used) / real(all) };
        let lag = lock(&self.lag).percentile(99.0);
        Generator::judge(share, busy, lag)
    }
}

fn own() -> Duration {
    process::of(std::process::id()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_ticks() {
        let stat = "cpu  100 5 50 800 40 3 2 0 20 0\ncpu0 1 2 3 4 5\n";
        assert_eq!(machine(stat), Some((160, 1_000)));
        assert_eq!(machine("intr 5"), None);
    }

    #[test]
    fn the_generator_says_when_it_is_the_limit() {
        let limit = |share, busy, lag| Generator::judge(share, busy, lag).limit;
        assert_eq!(limit(0.3, 0.95, 0.5), None, "busy, but with what it measures");
        assert_eq!(limit(0.6, 0.7, 0.5), None, "the machine has something left");
        assert!(limit(0.5, 0.95, 0.5).unwrap().contains("53 % of the time of all busy cores"));
        assert!(limit(0.9, 0.5, 0.5).unwrap().contains("used 90 % of all cores"));
        assert!(limit(0.1, 0.3, 12.0).unwrap().contains("late (p99 12.0 ms)"));
    }
}
