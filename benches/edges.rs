//! What stands between the core and the outside: frames as text, and batches as columns. `cargo bench --bench edges`.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]
#![allow(dead_code, reason = "other measurements use the rest of the play")]

mod play;
mod samples;

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use helve::db::lane::{CreateRows, FinishRows};
use helve::ws::frames;
use helve_core::{CreateRow, FinishRow};
use helve_domain::clock::Timestamp;
use helve_domain::limits::Limits;

use play::Play;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// Tasks, results or rows at once.
const SIZES: [usize; 3] = [1, 100, 250];

fn main() {
    divan::main();
}

/// `assign` with inputs of 200 bytes.
#[divan::bench(args = SIZES)]
fn write_assign(bencher: Bencher<'_, '_>, tasks: usize) {
    let (message, limits) = (samples::assign(tasks), Limits::default());
    bencher
        .counter(ItemsCount::new(tasks))
        .counter(BytesCount::new(samples::bytes(&message)))
        .bench_local(|| frames::write(black_box(&message), &limits, |frame| drop(black_box(frame))));
}

/// `stored`.
#[divan::bench(args = SIZES)]
fn write_stored(bencher: Bencher<'_, '_>, results: usize) {
    let (message, limits) = (samples::stored(results), Limits::default());
    bencher
        .counter(ItemsCount::new(results))
        .counter(BytesCount::new(samples::bytes(&message)))
        .bench_local(|| frames::write(black_box(&message), &limits, |frame| drop(black_box(frame))));
}

/// `received`.
#[divan::bench(args = SIZES)]
fn read_received(bencher: Bencher<'_, '_>, tasks: usize) {
    let (text, limits) = (samples::received(tasks), Limits::default());
    bencher
        .counter(ItemsCount::new(tasks))
        .counter(BytesCount::new(text.len()))
        .bench_local(|| frames::read(black_box(&text), &limits).is_ok());
}

/// `result` with outputs of 200 bytes.
#[divan::bench(args = SIZES)]
fn read_result(bencher: Bencher<'_, '_>, results: usize) {
    let (text, limits) = (samples::result(results), Limits::default());
    bencher
        .counter(ItemsCount::new(results))
        .counter(BytesCount::new(text.len()))
        .bench_local(|| frames::read(black_box(&text), &limits).is_ok());
}

/// New runs as the columns of one statement.
#[divan::bench(args = SIZES)]
fn columns_of_creates(bencher: Bencher<'_, '_>, runs: usize) {
    let rows = Play::new(1, 100, 1).writes(runs).0;
    bencher.counter(ItemsCount::new(runs)).bench_local(|| {
        let mut batch = CreateRows::at(Timestamp::from_micros(0));
        for row in black_box(&rows) {
            if let CreateRow::Run(row) = row {
                batch.run(row);
            }
        }
        drop(black_box(batch));
    });
}

/// Ends as the columns of one statement.
#[divan::bench(args = SIZES)]
fn columns_of_ends(bencher: Bencher<'_, '_>, runs: usize) {
    let rows = Play::new(1, 100, 1).writes(runs).1;
    bencher.counter(ItemsCount::new(runs)).bench_local(|| {
        let mut batch = FinishRows::at(Timestamp::from_micros(0));
        for row in black_box(&rows) {
            if let FinishRow::End(row) = row {
                batch.end(row);
            }
        }
        drop(black_box(batch));
    });
}
