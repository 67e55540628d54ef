//! `helve completion` and `helve man`: made from the command line itself, so that they tell what it takes.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use helve_domain::error::{Error, Result};

use super::Cli;

#[derive(Debug, clap::Args)]
pub(super) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Write a page for each command into this directory, instead of the first page to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A script for the shell, on standard output.
pub(super) fn completion(args: &Completion) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "helve", &mut script);
    print(&script)
}

/// Pages for `man`.
pub(super) fn man(args: &Man) -> Result<()> {
    let wrong = |e: std::io::Error| Error::Internal(format!("the pages cannot be written: {e}"));
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(wrong)?;
        return print(&page);
    };
    fs::create_dir_all(dir).map_err(wrong)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(wrong)
}

/// That its reader has gone away is no failure.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Internal(format!("standard output: {e}"))),
        _ => Ok(()),
    }
}
