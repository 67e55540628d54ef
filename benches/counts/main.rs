//! What a run costs in heap allocations and in instructions, held to tests/limits.rs: `cargo bench --bench counts`.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]
#![allow(dead_code, reason = "other measurements use the rest of what is shared")]

mod callgrind;
mod engine;
#[path = "../../tests/limits.rs"]
mod limits;
#[path = "../play.rs"]
mod play;
#[path = "../samples.rs"]
mod samples;

use std::alloc::System;
use std::hint::black_box;
use std::process::ExitCode;

use helve::ws::frames;
use helve_domain::limits::Limits;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use play::Play;

/// Counts for the whole process.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often a piece of work is done: twice, so that what happens once is not in the difference.
pub const TIMES: (usize, usize) = (500, 5_500);

/// Does something so many times.
type Work = fn(usize);

/// Work without I/O, with its name.
const WORK: &[(&str, Work)] = &[
    ("core: life of a run", |n| lives(Play::new(1, 100, 20_000), n)),
    ("core: life of a run, 1,000 workers", |n| lives(Play::new(1_000, 100, 20_000), n)),
    ("core: life of a run behind 1,000 queued", |n| {
        let mut play = Play::new(1, 100, 20_000);
        (0..1_100).for_each(|_| play.create());
        lives(play, n);
    }),
    ("frames: write assign with a task", |n| written(&samples::assign(1), n)),
    ("frames: write assign with 100 tasks", |n| written(&samples::assign(100), n)),
    ("frames: write stored with a result", |n| written(&samples::stored(1), n)),
    ("frames: read received with a task", |n| read(&samples::received(1), n)),
    ("frames: read result with a result", |n| read(&samples::result(1), n)),
    ("frames: read result with 100 results", |n| read(&samples::result(100), n)),
];

fn lives(mut play: Play, n: usize) {
    (0..n).for_each(|_| play.life());
}

fn written(message: &helve_domain::delivery::Outgoing, n: usize) {
    let limits = Limits::default();
    (0..n).for_each(|_| frames::write(black_box(message), &limits, |frame| drop(black_box(frame))));
}

fn read(text: &bytes::Bytes, n: usize) {
    let limits = Limits::default();
    (0..n).for_each(|_| assert!(frames::read(black_box(text), &limits).is_ok()));
}

/// How many heap allocations something makes in this process; one that grows or shrinks is one more.
fn allocations(what: impl FnOnce()) -> f64 {
    let region = Region::new(ALLOCATOR);
    what();
    let seen = region.change();
    (seen.allocations + seen.reallocations) as f64
}

/// What one time costs, of a cost of so many times.
pub fn each(times: (usize, usize), mut cost: impl FnMut(usize) -> f64) -> f64 {
    let (few, many) = (cost(times.0), cost(times.1));
    (many - few) / (times.1 - times.0) as f64
}

fn main() -> ExitCode {
    // `cargo bench` says that it is one.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // This program under callgrind.
        ["play", name, times] => {
            let work = WORK.iter().find(|(known, _)| *known == name).expect("known work");
            (work.1)(times.parse().unwrap());
            ExitCode::SUCCESS
        }
        // This program as the clients and the worker of the engine in another process.
        ["load", url, token, clients, runs] => {
            engine::load(url, token, clients.parse().unwrap(), runs.parse().unwrap());
            ExitCode::SUCCESS
        }
        [] => guard(),
        _ => {
            eprintln!("no arguments: everything is measured and compared with tests/limits.rs");
            ExitCode::from(2)
        }
    }
}

fn guard() -> ExitCode {
    let mut made: Vec<(String, f64)> =
        WORK.iter().map(|(name, work)| ((*name).to_owned(), each(TIMES, |n| allocations(|| work(n))))).collect();
    made.extend(engine::measure());
    show("heap allocations", &made);
    let executed: Vec<(String, f64)> =
        WORK.iter().map(|(name, _)| ((*name).to_owned(), each(TIMES, |n| callgrind::instructions(name, n)))).collect();
    show("instructions", &executed);
    let compiler = callgrind::compiler();
    let slack = if compiler.starts_with(limits::COMPILER) { 0.0 } else { limits::OTHER_COMPILER };
    if slack > 0.0 {
        println!("limits are those of {}; with {compiler} {slack} % more are allowed", limits::COMPILER);
    }
    let wrong = [
        ("heap allocations", limits::check(limits::ALLOCATIONS, &made, 0.0)),
        ("instructions", limits::check(limits::INSTRUCTIONS, &executed, slack)),
    ];
    let mut code = ExitCode::SUCCESS;
    for (what, wrong) in wrong.into_iter().filter_map(|(what, checked)| Some((what, checked.err()?))) {
        eprintln!("{what}: {wrong}");
        code = ExitCode::FAILURE;
    }
    code
}

fn show(what: &str, figures: &[(String, f64)]) {
    println!("{what}");
    figures.iter().for_each(|(name, value)| println!("  {name:<48} {value:>12.2}"));
}
