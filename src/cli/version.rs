//! `helve version`: what this program is.

use helve_domain::error::Result;
use helve_terminal::out;

use crate::{db, frames};

/// What it was built of, where the build was told: as `HELVE_BUILD_COMMIT=$(git rev-parse --short HEAD) cargo build`. The
/// build itself does not ask Git: equal sources give equal programs.
const COMMIT: Option<&str> = option_env!("HELVE_BUILD_COMMIT");

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let (version, protocol, schema) = (env!("CARGO_PKG_VERSION"), frames::PROTOCOL, db::migrate::latest()?);
    let commit = COMMIT.filter(|commit| !commit.is_empty());
    if args.json {
        return out::json(&serde_json::json!({
            "version": version, "commit": commit, "protocol": protocol, "schema": schema
        }));
    }
    let commit = commit.map(|commit| format!(", commit {commit}")).unwrap_or_default();
    out::line(&format!("helve {version}{commit}, worker protocol {protocol}, schema {schema}"))
}
