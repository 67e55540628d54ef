//! The pure core: what a decision costs. `cargo bench --bench core`; how to read it: docs/performance.md.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]
#![allow(dead_code, reason = "other measurements use the rest of the play")]

mod play;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use helve_core::Command;
use helve_domain::status::RunStatus;

use play::Play;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// More than any of these queues holds: nothing is left to a read.
const ALL: usize = 20_000;
/// Queued runs, or timers.
const MANY: [u32; 3] = [1, 1_000, 10_000];

fn main() {
    divan::main();
}

/// Workers with enough slots.
const WORKERS: [usize; 2] = [1, 1_000];

/// A run is created, assigned, confirmed and ended: four steps and two commits.
#[divan::bench(args = WORKERS)]
fn life_of_a_run(bencher: Bencher<'_, '_>, workers: usize) {
    let mut play = Play::new(workers, 100, ALL);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| play.life());
}

/// The same behind a backlog: one is created and queued, one ends, the next is claimed with that end.
#[divan::bench(args = MANY)]
fn life_behind_queued(bencher: Bencher<'_, '_>, queued: u32) {
    let mut play = Play::new(1, 100, ALL);
    (0..100 + queued).for_each(|_| play.create());
    assert_eq!(play.held(), 100, "the slots are taken");
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| play.life());
}

/// A trigger until its assignment is committed and pushed.
#[divan::bench(args = WORKERS)]
fn create_and_assign(bencher: Bencher<'_, '_>, workers: usize) {
    let play = std::cell::RefCell::new(Play::new(workers, 100, ALL));
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            // A slot must be free for the next; that it becomes free is not measured.
            let mut play = play.borrow_mut();
            while play.held() > 0 {
                let attempt = play.receive();
                play.succeed(attempt);
            }
        })
        .bench_local_values(|()| play.borrow_mut().create());
}

/// A confirmed attempt until its result is committed.
#[divan::bench]
fn result(bencher: Bencher<'_, '_>) {
    let play = std::cell::RefCell::new(Play::new(1, 100_000, ALL));
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            let mut play = play.borrow_mut();
            play.create();
            play.receive()
        })
        .bench_local_values(|attempt| play.borrow_mut().succeed(attempt));
}

/// Rows of a read become the window of a queue whose worker has no slot free.
#[divan::bench(args = [250_u32, 4_096])]
fn window_refill(bencher: Bencher<'_, '_>, rows: u32) {
    bencher
        .counter(ItemsCount::new(rows))
        .with_inputs(|| {
            let mut play = Play::new(1, 1, ALL);
            play.create();
            let command = Command::QueueLoaded(play.queue(), play.rows(RunStatus::Queued, rows), true);
            (play, command)
        })
        .bench_local_values(|(mut play, command)| {
            play.step(command);
            play
        });
}

/// Rows of a read of timers come into memory.
#[divan::bench(args = MANY)]
fn timers_loaded(bencher: Bencher<'_, '_>, rows: u32) {
    bencher
        .counter(ItemsCount::new(rows))
        .with_inputs(|| {
            let play = Play::new(1, 1, ALL);
            let rows = play.rows(RunStatus::Scheduled, rows);
            (play, rows)
        })
        .bench_local_values(|(mut play, rows)| {
            play.load_timers(rows);
            play
        });
}

/// A scheduled run is created and falls due beside so many others that do not: then it is queued and claimed, and ends.
#[divan::bench(args = MANY)]
fn timer_fires_among(bencher: Bencher<'_, '_>, others: u32) {
    let mut play = Play::new(1, 100, ALL);
    let rows = play.rows(RunStatus::Scheduled, others);
    play.load_timers(rows);
    let begun = play.now;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        play.schedule();
        play.pass();
        let attempt = play.receive();
        play.succeed(attempt);
        // The others stay 30 s away, however long is measured.
        play.now = begun;
    });
}

/// How long until the next timer: asked after every turn of the owner.
#[divan::bench]
fn next_timer(bencher: Bencher<'_, '_>) {
    let mut play = Play::new(1, 100, ALL);
    let rows = play.rows(RunStatus::Scheduled, 10_000);
    play.load_timers(rows);
    bencher.bench_local(|| black_box(&play.shard).next_timer());
}
