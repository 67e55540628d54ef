//! The `helve` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    helve::cli::main()
}
