//! Commands that Helve calls itself.

use std::ffi::OsString;

use clap::Subcommand;
use helve_domain::error::Result;
use helve_postgres::cluster::Guard;

#[derive(Debug, Subcommand)]
pub(super) enum Internal {
    /// Become a PostgreSQL server that ends with its parent
    PgGuard {
        /// The process with which the server ends
        #[arg(long)]
        parent: i32,
        /// The user to become
        #[arg(long, requires = "gid")]
        uid: Option<u32>,
        /// The group to become
        #[arg(long, requires = "uid")]
        gid: Option<u32>,
        /// Watch the parent instead of asking the system for a signal
        #[arg(long)]
        poll: bool,
        /// The server's program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

impl Internal {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::PgGuard { parent, uid, gid, poll, command } => {
                // Only Linux tells a process of its parent's death.
                let poll = poll || cfg!(not(target_os = "linux"));
                Guard { parent, identity: uid.zip(gid), poll, command }.run()
            }
        }
    }
}
