//! What stands on the page. Every family is always there, so that a dashboard can be checked against it.

use std::collections::BTreeMap;

use helve_core::{ActionLoad, Workers};
use helve_domain::clock::Timestamp;

use super::{Names, Shared, loads};
use crate::api::ApiState;
use crate::db::Pool;
use crate::metrics::process::Process;
use crate::metrics::text::{Kind, Page};
use crate::metrics::{LaneMetrics, Metrics};
use crate::sched::owner::gauges::Load;

/// What the engine's memory and its queues say.
#[derive(Default)]
struct Now {
    load: Option<Load>,
    workers: Workers,
    actions: Vec<ActionLoad>,
    /// The queues' part that is only in the database is in.
    counted: bool,
}

pub async fn write(state: &ApiState, shared: &Shared, names: &mut Names) -> String {
    let now = look(state, &shared.pool).await;
    let mut page = Page::default();
    engine(&mut page, state, &shared.metrics);
    runs(&mut page, &shared.metrics, now.load.as_ref());
    lanes(&mut page, &shared.metrics, now.load.as_ref(), state.clock.now());
    workers(&mut page, &now);
    queues(&mut page, &now, state.clock.now(), names);
    shared.requests.write(&mut page);
    spans(&mut page, &shared.metrics);
    let help = "Log lines that were dropped, since nobody read standard error.";
    page.family("helve_log_lines_dropped_total", Kind::Counter, help).sample(&[], crate::telemetry::dropped());
    process(&mut page);
    page.into_text()
}

/// Shards are asked one by one: between two of them the owner works.
async fn look(state: &ApiState, pool: &Pool) -> Now {
    let mut now = Now { load: state.scheduler.load().await, ..Now::default() };
    if now.load.is_none() {
        return now;
    }
    let shards = state.scheduler.directory().here();
    for shard in &shards {
        let Some(survey) = state.scheduler.survey(*shard).await else { continue };
        now.workers.add(survey.workers);
        now.actions.extend(survey.actions);
    }
    let owned = |tenant: helve_domain::id::TenantId| shards.contains(&tenant.shard());
    match loads::complete(pool, None, owned, now.actions.clone()).await {
        Ok((actions, all)) => (now.actions, now.counted) = (actions, all),
        Err(error) => tracing::warn!(%error, "the queues in the database could not be counted"),
    }
    now
}

fn engine(page: &mut Page, state: &ApiState, metrics: &Metrics) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.family("helve_build_info", Kind::Gauge, "Always 1; the version is the label.").sample(&version, 1);
    let standing = metrics.is_stalled(state.clock.now());
    let ready = u8::from(state.scheduler.is_ready() && !standing);
    page.family("helve_ready", Kind::Gauge, "1 while the engine takes work.").sample(&[], ready);
    let owned = state.scheduler.directory().here().len();
    page.family("helve_shards_owned", Kind::Gauge, "Shards that this engine owns, of 64 in all.").sample(&[], owned);
    let help = "Tenants whose old runs could not be deleted, once for each pass.";
    let failed = metrics.retention_failed.get();
    page.family("helve_retention_failures_total", Kind::Counter, help).sample(&[], failed);
    let broken = helve_domain::error::broken_invariants();
    page.family("helve_broken_invariants_total", Kind::Counter, "States that must never be.").sample(&[], broken);
}

fn runs(page: &mut Page, metrics: &Metrics, load: Option<&Load>) {
    let stats = load.map(|load| load.stats);
    let mut total = |name, help, value: Option<u64>| {
        page.family(name, Kind::Counter, help);
        if let Some(value) = value {
            page.sample(&[], value);
        }
    };
    total("helve_takeovers_total", "Engines that this one has taken over from.", Some(metrics.takeovers.get()));
    total("helve_runs_created_total", "Runs created.", stats.map(|s| s.created));
    total("helve_runs_optimistic_total", "Runs that were created assigned.", stats.map(|s| s.optimistic));
    total("helve_assignments_resent_total", "Assignments sent again.", stats.map(|s| s.resent));
    total("helve_attempts_taken_back_total", "Attempts taken back from workers.", stats.map(|s| s.taken_back));
    page.family("helve_runs_ended_total", Kind::Counter, "Runs ended, by their status.")
        .sample(&[("status", "succeeded")], metrics.succeeded.get())
        .sample(&[("status", "failed")], metrics.failed.get())
        .sample(&[("status", "cancelled")], metrics.cancelled.get());
    let help = "From the time from which a run may start to the push of its first assignment.";
    page.family("helve_start_seconds", Kind::Histogram, help)
        .histogram(&[("path", "optimistic")], &metrics.start_optimistic)
        .histogram(&[("path", "queued")], &metrics.start_queued);
    let help = "From the assignment of a run's last attempt to its end.";
    page.family("helve_run_seconds", Kind::Histogram, help).histogram(&[], &metrics.run);
}

fn spans(page: &mut Page, metrics: &Metrics) {
    let spans = &metrics.spans;
    page.family("helve_spans_total", Kind::Counter, "Spans of recorded traces, by what became of them.")
        .sample(&[("outcome", "exported")], spans.exported.get())
        .sample(&[("outcome", "dropped")], spans.dropped.get())
        .sample(&[("outcome", "failed")], spans.failed.get());
}

/// Writes what one lane has of a family.
type LaneSamples<'a> = dyn Fn(&mut Page, &[(&str, &str)], &LaneMetrics) + 'a;

fn lanes(page: &mut Page, metrics: &Metrics, load: Option<&Load>, now: Timestamp) {
    let lanes = [("create", &metrics.create), ("finish", &metrics.finish)];
    let mut each = |name, kind, help, write: &LaneSamples<'_>| {
        page.family(name, kind, help);
        for (lane, metrics) in lanes {
            write(page, &[("lane", lane)], metrics);
        }
    };
    let help = "Rows of each batch of a lane; the count is the number of batches.";
    each("helve_lane_rows", Kind::Histogram, help, &|page, labels, lane| {
        page.histogram(labels, &lane.rows);
    });
    let help = "Time for which a batch occupied its lane, until its outcome was certain.";
    each("helve_lane_busy_seconds", Kind::Histogram, help, &|page, labels, lane| {
        page.histogram(labels, &lane.busy);
    });
    each("helve_lane_unknown_total", Kind::Counter, "Statements whose answer was lost.", &|page, labels, lane| {
        page.sample(labels, lane.unknown.get());
    });
    let help = "For how long the lane has committed nothing although something waits for it.";
    each("helve_lane_stalled_seconds", Kind::Gauge, help, &|page, labels, lane| {
        page.sample(labels, lane.stalled(now).as_secs_f64());
    });
    let help = "Transitions that something of theirs alone holds up, such as a row that somebody has locked.";
    each("helve_lane_aside", Kind::Gauge, help, &|page, labels, lane| {
        page.sample(labels, lane.aside());
    });
    page.family("helve_lane_waiting", Kind::Gauge, "Transitions that wait for their lane.");
    if let Some(load) = load {
        page.sample(&[("lane", "create")], load.waiting_creates);
        page.sample(&[("lane", "finish")], load.waiting_finishes);
    }
    page.family("helve_creates_uncommitted", Kind::Gauge, "New runs that wait for their commit.");
    if let Some(load) = load {
        page.sample(&[], load.creating);
    }
}

fn workers(page: &mut Page, now: &Now) {
    let w = &now.workers;
    page.family("helve_sockets", Kind::Gauge, "Worker sockets.").sample(&[], now.load.map_or(0, |load| load.sockets));
    page.family("helve_workers", Kind::Gauge, "Workers; lost ones are within their grace.")
        .sample(&[("state", "connected")], w.connected)
        .sample(&[("state", "draining")], w.draining)
        .sample(&[("state", "lost")], w.lost);
    page.family("helve_slots", Kind::Gauge, "Slots of workers with a socket.").sample(&[], w.slots);
    page.family("helve_slots_used", Kind::Gauge, "How many of those are taken.").sample(&[], w.used);
}

/// Sums over tenants.
#[derive(Default)]
struct Sum {
    queued: usize,
    oldest: Option<Timestamp>,
    running: usize,
    workers: usize,
}

fn queues(page: &mut Page, now: &Now, at: Timestamp, names: &mut Names) {
    let mut actions: Vec<_> = now.actions.iter().collect();
    // Where names are short, the busiest get them.
    actions.sort_unstable_by_key(|load| (std::cmp::Reverse(load.queued + load.running), &load.action));
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for load in actions {
        let sum = sums.entry(names.label(&load.action)).or_default();
        sum.queued += load.queued;
        sum.oldest = [sum.oldest, load.oldest].into_iter().flatten().min();
        sum.running += load.running;
        sum.workers += load.workers;
    }
    let mut each = |name, help, value: &dyn Fn(&Sum) -> f64| {
        page.family(name, Kind::Gauge, help);
        for (action, sum) in &sums {
            page.sample(&[("action", action)], value(sum));
        }
    };
    each("helve_queue_depth", "Queued runs.", &|sum| float(sum.queued));
    let waits = |sum: &Sum| sum.oldest.map_or(0.0, |oldest| at.since(oldest).as_secs_f64());
    each("helve_queue_oldest_seconds", "How long the queued run that waits longest has waited.", &waits);
    each("helve_action_running", "Attempts that workers hold.", &|sum| float(sum.running));
    each("helve_action_workers", "Connected workers that offer the action.", &|sum| float(sum.workers));
    let help = "1: queued runs that are only in the database are counted too.";
    page.family("helve_queues_counted", Kind::Gauge, help).sample(&[], u8::from(now.counted));
}

fn float(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

fn process(page: &mut Page) {
    let process = Process::now();
    page.family("process_cpu_seconds_total", Kind::Counter, "CPU time.");
    if let Some(p) = process {
        page.sample(&[], p.cpu.as_secs_f64());
    }
    page.family("process_resident_memory_bytes", Kind::Gauge, "Memory in RAM.");
    if let Some(p) = process {
        page.sample(&[], p.resident);
    }
    page.family("process_open_fds", Kind::Gauge, "Open files and sockets.");
    if let Some(open) = process.and_then(|p| p.open_files) {
        page.sample(&[], open);
    }
}
