//! `helve migrate`: the schema's changes.

use helve_domain::error::Result;
use helve_terminal::out;

use super::database::DatabaseArgs;
use crate::db::home::Neighbours;
use crate::db::migrate;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Put Helve into the schema also where it has tables of others
    #[arg(long)]
    into_existing: bool,
    /// One line of JSON with the names of what was applied
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let neighbours = if args.into_existing { Neighbours::Accepted } else { Neighbours::Refused };
    let applied = migrate::migrate_beside(&args.database.required(), neighbours).await?;
    if args.json {
        return out::json(&serde_json::json!({ "applied": applied }));
    }
    for name in &applied {
        out::line(&format!("applied {name}"))?;
    }
    if applied.is_empty() { out::line("the database is up to date") } else { Ok(()) }
}
