//! Many connected, idle workers: the cost of each.

use std::time::Duration;

use helve_domain::error::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::fleet::{Fleet, Log, Sent};
use super::report::{Figure, Must};
use super::{Bench, failure, latency, process, progress, real, whole};

/// Sockets opened at once.
const WAVE: u32 = 200;
/// Files that both processes need besides the sockets.
const OTHERS: u64 = 500;
/// Memory is divided by the number of sockets from this number on; below it, one page is more than a socket.
const ENOUGH: u32 = 100;

/// A growing number of idle sockets on one engine: memory, CPU, and a start beside them.
pub(super) async fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let files = raise_files();
    let mut own = bench.beside(&[]).await?;
    let workflow = own.workflow("sockets").await?;
    let (log, idle_log) = (Log::new(0), Log::new(0));
    let fleet = Fleet::start(&own, &workflow, 1, 100, &log).await?;
    let mut sent = Sent::default();
    latency::starts(&own, &workflow, &log, &mut sent).await?;
    let before = memory(&own)?;
    let mut counts = own.sizes.sockets.clone();
    counts.sort_unstable();
    let (mut figures, mut idle, mut connected) = (Vec::new(), Vec::new(), 0);
    let action = format!("{workflow}-idle");
    for count in counts {
        if u64::from(count) + OTHERS > files {
            progress(&format!("{count} sockets are left out: the limit of open files is {files} (ulimit -n)"));
            continue;
        }
        progress(&format!("optimistic {}: {count} idle sockets", own.mode));
        while connected < count {
            let wave = WAVE.min(count - connected);
            idle.push(Fleet::start(&own, &action, whole(wave), 1, &idle_log).await?);
            connected += wave;
        }
        figures.extend(level(&own, count, before, &workflow, &log, &mut sent).await?);
    }
    for fleet in idle {
        fleet.stop().await?;
    }
    fleet.stop().await?;
    own.ledger.check(&sent, &log);
    own.ledger.check(&Sent::default(), &idle_log);
    bench.take_back(own).await?;
    Ok(figures)
}

async fn level(
    own: &Bench,
    count: u32,
    before: f64,
    workflow: &str,
    log: &std::sync::Arc<Log>,
    sent: &mut Sent,
) -> Result<Vec<Figure>> {
    let plural = if count == 1 { "" } else { "s" };
    let name = |what: &str| format!("{count} idle socket{plural}: {what}");
    let cpu = || own.engine.pid().and_then(process::of).unwrap_or_default();
    let (used, from) = (cpu(), own.clock.instant());
    tokio::time::sleep(own.window.max(Duration::from_secs(1))).await;
    let share = (cpu().saturating_sub(used)).as_secs_f64() / (own.clock.instant() - from).as_secs_f64() * 1_000.0;
    let start = latency::starts(own, workflow, log, sent).await?;
    let now = memory(own)?;
    let memory = own.figure(name("memory of the engine"), now, "MiB");
    let memory = memory.detail(format!("{before:.0} MiB before the first"));
    let mut figures = vec![if count >= 10_000 { own.judge(memory, Must::AtMost(1_024.0)) } else { memory }];
    if count >= ENOUGH {
        let each = ((now - before) * 1_024.0 / f64::from(count)).max(0.0);
        figures.push(own.figure(name("memory of each"), each, "KiB"));
    }
    figures.push(own.figure(name("CPU of the engine"), share, "ms a second").detail("heartbeats and housekeeping"));
    figures.push(
        own.figure(name("start latency p50"), start.percentile(50.0), "ms")
            .distribution(start.distribution())
            .detail(format!("{} samples", real(start.len()))),
    );
    Ok(figures)
}

fn memory(own: &Bench) -> Result<f64> {
    own.engine.memory().ok_or_else(|| failure("the memory of the engine cannot be read"))
}

/// Raises the limit of open files as far as possible, for this process and the engines it starts; returns the limit.
fn raise_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1_024 };
    // If this is refused, the old limit stays.
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_of_open_files_is_known_and_stays_raised() {
        let raised = super::raise_files();
        assert!(raised >= 256);
        assert_eq!(super::raise_files(), raised);
    }
}
