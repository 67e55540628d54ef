//! The `helve` program.

use std::process::ExitCode;

/// A run is some two hundred small allocations on several threads: measured against the system's allocator in
/// docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    helve::cli::main()
}
