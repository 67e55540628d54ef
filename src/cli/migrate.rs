//! `helve migrate`: the schema's changes.

use super::database::DatabaseArgs;
use super::out;
use crate::db::migrate;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    /// One line of JSON with the names of what was applied
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let applied = migrate::migrate(&args.database.required()).await?;
    if args.json {
        return out::json(&serde_json::json!({ "applied": applied }));
    }
    for name in &applied {
        out::line(&format!("applied {name}"))?;
    }
    if applied.is_empty() { out::line("the database is up to date") } else { Ok(()) }
}
