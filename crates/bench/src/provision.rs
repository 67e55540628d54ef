//! What an operator does with the program before the first request: migrations, tenants, tokens.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use helve_domain::error::Result;
use serde::Deserialize;
use tokio::process::Command;

use super::failure;

/// How long migrating an empty database may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A database, and the program that administers it.
pub(super) struct Provision {
    program: PathBuf,
    database: String,
}

#[derive(Deserialize)]
struct Created {
    token: String,
}

impl Provision {
    pub(super) fn of(program: &Path, database: &str) -> Self {
        Self { program: program.to_owned(), database: database.to_owned() }
    }

    /// Brings the database to this program's version.
    pub(super) async fn migrate(&self) -> Result<()> {
        self.run(&["migrate"]).await.map(drop)
    }

    /// Creates a tenant unless it exists, and a token for it with everything that a program and its workers need.
    pub(super) async fn token(&self, tenant: &str, name: &str) -> Result<String> {
        let created = self.run(&["tenant", "create", tenant]).await;
        let scopes = "read,write,worker";
        let args = ["token", "create", "--tenant", tenant, "--name", name, "--scopes", scopes, "--json"];
        let made = match self.run(&args).await {
            Ok(made) => made,
            // Without the tenant there is no token, so the first error is the cause.
            Err(e) => return Err(created.err().unwrap_or(e)),
        };
        let made: Created = serde_json::from_slice(&made).map_err(|e| failure(format!("the new token: {e}")))?;
        Ok(made.token)
    }

    async fn run(&self, args: &[&str]) -> Result<Vec<u8>> {
        let what = args.join(" ");
        let mut command = Command::new(&self.program);
        command.args(args).env("DATABASE_URL", &self.database).env("HELVE_LOG", "error");
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(LIMIT, output).await;
        let output = output.map_err(|_| failure(format!("`helve {what}` did not end within {LIMIT:?}")))?;
        let output = output.map_err(|e| failure(format!("`helve {what}`: {e}")))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(failure(format!("`helve {what}`: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}
