//! `helve tenant`: tenants are made by operators.

use std::time::Duration;

use clap::Subcommand;
use helve_domain::clock::Clock;
use helve_domain::duration;
use helve_domain::error::Result;
use helve_terminal::out;
use serde_json::{Value, json};

use super::database::DatabaseArgs;
use crate::ops::tenants;

#[derive(Debug, Subcommand)]
pub(super) enum Tenant {
    /// Create a tenant
    Create {
        /// Its name, for people; unique
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// List all tenants, oldest first
    List {
        #[command(flatten)]
        database: DatabaseArgs,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Set how long the finished runs of a tenant are kept, where a workflow says nothing else
    Retention {
        /// The tenant's name
        name: String,
        /// A duration such as `14d`, from `1m` on, or `default` for as long as the engine keeps them
        #[arg(value_parser = keep)]
        keep: Keep,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

/// Reads `default`, or a duration.
fn keep(text: &str) -> std::result::Result<Keep, String> {
    if text == "default" { Ok(Keep(None)) } else { helve_terminal::args::span(text).map(|keep| Keep(Some(keep))) }
}

/// A retention; `None`: the engine's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep(Option<Duration>);

fn retention(t: &crate::db::tenants::Tenant) -> String {
    t.retention.map_or_else(|| "default".to_owned(), duration::format)
}

fn document(t: &crate::db::tenants::Tenant) -> Value {
    json!({ "id": t.id, "name": t.name, "created_at": t.created_at, "retention": t.retention.map(duration::format) })
}

impl Tenant {
    pub(super) async fn run(self) -> Result<()> {
        match self {
            Self::Create { name, database, json } => {
                let pool = database.open().await?;
                let tenant = tenants::create(&pool, &Clock::system(), &name).await?;
                if json { out::json(&document(&tenant)) } else { out::line(&tenant.id.to_string()) }
            }
            Self::List { database, json } => {
                let all = tenants::list(&database.open().await?).await?;
                if json {
                    return out::json(&json!({ "items": all.iter().map(document).collect::<Vec<_>>() }));
                }
                let row = |t: &tenants::Tenant| {
                    vec![t.id.to_string(), t.created_at.to_string(), retention(t), t.name.clone()]
                };
                out::table(&["id", "created_at", "retention", "name"], &all.iter().map(row).collect::<Vec<_>>())
            }
            Self::Retention { name, keep, database } => {
                tenants::keep(&database.open().await?, &name, keep.0).await?;
                out::line(&format!("{name}: {}", keep.0.map_or_else(|| "default".to_owned(), duration::format)))
            }
        }
    }
}
