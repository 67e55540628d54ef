//! What a run may cost, in counts. Measured by `tests/it/platform/counts.rs` (what PostgreSQL counts) and by
//! `cargo bench --bench counts` (allocations and instructions); docs/performance.md tells how, and how to change a limit.

use std::fmt::Write as _;

/// A figure with what it may be.
pub struct Limit {
    /// Its name.
    pub figure: &'static str,
    /// What it should be.
    pub expected: f64,
    /// Percent of `expected` that it may be away.
    tolerance: f64,
    /// Less than expected is as well: how much it is depends on what meets by chance.
    at_most: bool,
}

/// It is so, give or take so many percent. A figure that got better must be written down, or the gain can be lost again
/// without a word.
const fn near(figure: &'static str, expected: f64, tolerance: f64) -> Limit {
    Limit { figure, expected, tolerance, at_most: false }
}

/// It is not more.
const fn at_most(figure: &'static str, expected: f64) -> Limit {
    Limit { figure, expected, tolerance: 0.0, at_most: true }
}

impl Limit {
    fn text(&self) -> String {
        if self.at_most {
            return format!("at most {}", number(self.expected));
        }
        format!("{} give or take {} %", number(self.expected), self.tolerance)
    }

    fn holds(&self, measured: f64, slack: f64) -> bool {
        let most = self.expected * (1.0 + (self.tolerance + slack) / 100.0);
        let least = self.expected * (1.0 - (self.tolerance + slack) / 100.0);
        measured <= most && (self.at_most || measured >= least)
    }
}

/// Compares what was measured with its limits; each must have the other.
///
/// # Errors
/// A text that names every figure that is not as it should be, and what to do.
pub fn check(limits: &[Limit], measured: &[(String, f64)], slack: f64) -> Result<(), String> {
    let mut wrong = String::new();
    for limit in limits {
        let Some((name, value)) = measured.iter().find(|(name, _)| name == limit.figure) else {
            let _ = writeln!(wrong, "  {}: expected {}, not measured", limit.figure, limit.text());
            continue;
        };
        if !limit.holds(*value, slack) {
            let change = (value / limit.expected - 1.0) * 100.0;
            let (value, expected) = (number(*value), limit.text());
            let _ = writeln!(wrong, "  {name}: expected {expected}, measured {value} ({change:+.1} %)");
        }
    }
    for (name, value) in measured.iter().filter(|(name, _)| !limits.iter().any(|limit| limit.figure == name)) {
        let _ = writeln!(wrong, "  {name}: measured {}, has no limit", number(*value));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "what a run costs has changed:\n{wrong}If that is meant, write the new value into tests/limits.rs, and into the \
         commit why it is worth it. docs/performance.md (Counts that are guarded) tells how each figure is measured."
    ))
}

/// Three digits after the point for small numbers, none for large ones.
fn number(n: f64) -> String {
    if n < 100.0 { format!("{n:.3}") } else { format!("{n:.0}") }
}

/// What PostgreSQL counts, of each run. Housekeeping, such as the lease, is in it.
pub const DATABASE: &[Limit] = &[
    near("optimistic, one run at a time: statements per run", 2.0, 3.0),
    near("optimistic, one run at a time: commits per run", 2.01, 3.0),
    near("optimistic, one run at a time: rows inserted per run", 2.0, 1.0),
    at_most("optimistic, one run at a time: rows updated per run", 0.03),
    near("optimistic, one run at a time: rows deleted per run", 1.0, 1.0),
    near("optimistic, one run at a time: WAL per run", 1_551.0, 5.0),
    at_most("optimistic, 64 clients: statements per run", 0.3),
    at_most("optimistic, 64 clients: commits per run", 0.35),
    near("optimistic, 64 clients: rows inserted per run", 2.0, 1.0),
    at_most("optimistic, 64 clients: rows updated per run", 0.03),
    near("optimistic, 64 clients: rows deleted per run", 1.0, 1.0),
    near("optimistic, 64 clients: WAL per run", 1_291.0, 5.0),
    // Single runs came just before: bulk rests beside them, and its batches are short.
    at_most("optimistic, bulk triggers of 100: statements per run", 0.25),
    at_most("optimistic, bulk triggers of 100: commits per run", 0.25),
    near("optimistic, bulk triggers of 100: rows inserted per run", 2.0, 1.0),
    at_most("optimistic, bulk triggers of 100: rows updated per run", 0.03),
    near("optimistic, bulk triggers of 100: rows deleted per run", 1.0, 1.0),
    near("optimistic, bulk triggers of 100: WAL per run", 1_282.0, 5.0),
    // The event is a row of its own.
    near("optimistic, one event at a time: statements per run", 2.0, 3.0),
    near("optimistic, one event at a time: commits per run", 2.01, 3.0),
    near("optimistic, one event at a time: rows inserted per run", 3.0, 1.0),
    at_most("optimistic, one event at a time: rows updated per run", 0.03),
    near("optimistic, one event at a time: rows deleted per run", 1.0, 1.0),
    near("optimistic, one event at a time: WAL per run", 1_633.0, 5.0),
    // Queued first: the assignment is one more statement and an update.
    near("queued, one run at a time: statements per run", 3.0, 3.0),
    near("queued, one run at a time: commits per run", 3.01, 3.0),
    near("queued, one run at a time: rows inserted per run", 2.0, 1.0),
    near("queued, one run at a time: rows updated per run", 1.0, 3.0),
    near("queued, one run at a time: rows deleted per run", 1.0, 1.0),
    near("queued, one run at a time: WAL per run", 2_024.0, 5.0),
    at_most("queued, 64 clients: statements per run", 0.4),
    at_most("queued, 64 clients: commits per run", 0.45),
    near("queued, 64 clients: rows inserted per run", 2.0, 1.0),
    near("queued, 64 clients: rows updated per run", 1.0, 3.0),
    near("queued, 64 clients: rows deleted per run", 1.0, 1.0),
    near("queued, 64 clients: WAL per run", 1_815.0, 5.0),
    at_most("queued, bulk triggers of 100: statements per run", 0.3),
    at_most("queued, bulk triggers of 100: commits per run", 0.3),
    near("queued, bulk triggers of 100: rows inserted per run", 2.0, 1.0),
    near("queued, bulk triggers of 100: rows updated per run", 1.0, 3.0),
    near("queued, bulk triggers of 100: rows deleted per run", 1.0, 1.0),
    near("queued, bulk triggers of 100: WAL per run", 1_842.0, 5.0),
    near("queued, one event at a time: statements per run", 3.0, 3.0),
    near("queued, one event at a time: commits per run", 3.01, 3.0),
    near("queued, one event at a time: rows inserted per run", 3.0, 1.0),
    near("queued, one event at a time: rows updated per run", 1.0, 3.0),
    near("queued, one event at a time: rows deleted per run", 1.0, 1.0),
    near("queued, one event at a time: WAL per run", 2_117.0, 5.0),
];

/// Heap allocations: of the core and of frames each time, of the whole engine each run.
pub const ALLOCATIONS: &[Limit] = &[
    near("core: life of a run", 22.0, 0.5),
    near("core: life of a run, 1,000 workers", 22.2, 1.0),
    near("core: life of a run behind 1,000 queued", 27.17, 1.0),
    near("frames: write assign with a task", 7.0, 0.5),
    near("frames: write assign with 100 tasks", 7.0, 0.5),
    near("frames: write stored with a result", 1.0, 0.5),
    near("frames: read received with a task", 6.0, 0.5),
    near("frames: read result with a result", 12.0, 0.5),
    near("frames: read result with 100 results", 809.0, 0.5),
    near("engine: a run, 1 client", 249.0, 2.0),
    // The larger the batches, the fewer: it depends on how many meet.
    at_most("engine: a run, 64 clients", 150.0),
];

/// The compiler whose code `INSTRUCTIONS` are.
pub const COMPILER: &str = "rustc 1.95.";
/// Percent more or less that the code of another compiler may take.
pub const OTHER_COMPILER: f64 = 10.0;

/// Instructions, each time.
pub const INSTRUCTIONS: &[Limit] = &[
    near("core: life of a run", 30_040.0, 4.0),
    near("core: life of a run, 1,000 workers", 30_125.0, 4.0),
    near("core: life of a run behind 1,000 queued", 47_098.0, 4.0),
    near("frames: write assign with a task", 4_437.0, 4.0),
    near("frames: write assign with 100 tasks", 264_837.0, 4.0),
    near("frames: write stored with a result", 1_879.0, 4.0),
    near("frames: read received with a task", 8_439.0, 4.0),
    near("frames: read result with a result", 15_467.0, 4.0),
    near("frames: read result with 100 results", 1_221_101.0, 4.0),
];
