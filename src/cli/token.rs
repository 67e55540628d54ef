//! `helve token`: API tokens are made by operators and shown once.

use std::time::Duration;

use clap::Subcommand;
use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::{TenantId, TokenId};
use helve_domain::scope::Scopes;
use helve_terminal::out;
use serde_json::{Value, json};

use super::database::DatabaseArgs;
use crate::db::Pool;
use crate::ops::tenants;
use crate::ops::tokens::{self, NewToken, TokenInfo};

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Create a token and print it: it cannot be shown again
    Create {
        /// The tenant, by id or name
        #[arg(long)]
        tenant: String,
        /// A name for people
        #[arg(long, default_value = "cli")]
        name: String,
        /// What it may do: admin, write, read, worker; separated by commas
        #[arg(long, default_value = "write,worker")]
        scopes: String,
        /// How long it is valid, such as 30d; at most 366d
        #[arg(long, value_name = "DURATION", value_parser = helve_terminal::args::span, default_value = "90d")]
        expires_in: Duration,
        #[command(flatten)]
        database: DatabaseArgs,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// List tokens, oldest first, without their secrets
    List {
        /// Only those of one tenant, by id or name
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        database: DatabaseArgs,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// End a token; open sockets close within 5 s
    Revoke {
        /// Its id, `tok_..`
        id: TokenId,
        #[command(flatten)]
        database: DatabaseArgs,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
}

fn document(t: &TokenInfo) -> Value {
    json!({
        "id": t.id, "tenant": t.tenant, "name": t.name, "scopes": t.scopes.names(),
        "created_at": t.created_at, "expires_at": t.expires_at, "revoked_at": t.revoked_at,
    })
}

fn row(t: &TokenInfo) -> Vec<String> {
    let end = match (t.revoked_at, t.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => at.to_string(),
        (None, None) => "never".to_owned(),
    };
    vec![t.id.to_string(), t.tenant.to_string(), t.scopes.names().join(","), end, t.name.clone()]
}

async fn tenant_id(pool: &Pool, given: &str) -> Result<TenantId> {
    if let Ok(id) = given.parse() {
        return Ok(id);
    }
    let found = tenants::find(pool, given).await?;
    found.map(|t| t.id).ok_or_else(|| Error::not_found("tenant", given))
}

impl Token {
    pub(super) async fn run(self) -> Result<()> {
        match self {
            Self::Create { tenant, name, scopes, expires_in, database, json } => {
                let scopes = Scopes::parse(&scopes).unwrap_or_else(|e| super::usage(super::text(&e)));
                let pool = database.open().await?;
                let tenant = tenant_id(&pool, &tenant).await?;
                let new = NewToken { name, scopes, expires_in: Some(expires_in) };
                let (info, secret) = tokens::create(&pool, &Clock::system(), tenant, new).await?;
                if !json {
                    return out::line(secret.reveal());
                }
                let mut shown = document(&info);
                shown["token"] = secret.reveal().into();
                out::json(&shown)
            }
            Self::List { tenant, database, json } => {
                let pool = database.open().await?;
                let tenant = match tenant {
                    Some(given) => Some(tenant_id(&pool, &given).await?),
                    None => None,
                };
                let all = tokens::list(&pool, tenant).await?;
                if json {
                    return out::json(&json!({ "items": all.iter().map(document).collect::<Vec<_>>() }));
                }
                let head = ["id", "tenant", "scopes", "valid_until", "name"];
                out::table(&head, &all.iter().map(row).collect::<Vec<_>>())
            }
            Self::Revoke { id, database, json } => {
                tokens::revoke(&database.open().await?, &Clock::system(), id).await?;
                if json {
                    out::json(&json!({ "id": id, "revoked": true }))
                } else {
                    out::line(&format!("revoked {id}"))
                }
            }
        }
    }
}
