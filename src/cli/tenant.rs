//! `helve tenant`: tenants are made by operators.

use clap::Subcommand;
use serde_json::{Value, json};

use super::database::DatabaseArgs;
use super::out;
use crate::clock::Clock;
use crate::error::Result;
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
}

fn document(t: &crate::db::tenants::Tenant) -> Value {
    json!({ "id": t.id, "name": t.name, "created_at": t.created_at })
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
                let rows: Vec<_> =
                    all.iter().map(|t| vec![t.id.to_string(), t.created_at.to_string(), t.name.clone()]).collect();
                out::table(&["id", "created_at", "name"], &rows)
            }
        }
    }
}
