//! `helve status`: which engine the commands talk to, and how it is.

use std::process::ExitCode;

use helve_terminal::out;

use super::Common;
use super::engine::Engine;
use super::failure::{Exit, Failure, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

impl Args {
    pub(crate) async fn run(self) -> ExitCode {
        self.common.run(async |engine| show(engine).await).await
    }
}

/// Everything that can be told, also where something is wrong: that ends the command with its own code.
async fn show(engine: &Engine) -> Result<Option<Exit>> {
    let document = engine.get("/openapi.json").await?;
    let version = engine.object(&document)?.object("info").cell("version");
    let state = |found: Result<_>| match found {
        Ok(_) => ("yes".to_owned(), None),
        Err(failure) => (failure.reason(), Some(failure.exit)),
    };
    let (ready, not_ready) = state(engine.get("/readyz").await);
    // The smallest question that a token is needed for; one for workers alone may not ask it.
    let (token, not_valid) = match engine.get("/v1/runs?limit=1").await {
        Err(failure) if failure.is("forbidden") => ("yes, without the scope `read`".to_owned(), None),
        found => state(found),
    };
    if engine.json {
        let (url, source) = engine.place();
        out::json(&serde_json::json!({
            "url": url, "source": source, "version": version, "ready": ready == "yes", "token": not_valid.is_none()
        }))?;
    } else {
        let (url, source) = engine.place();
        let rows =
            [("engine", url), ("named by", source), ("version", &version), ("ready", &ready), ("token valid", &token)];
        for (name, value) in rows {
            out::line(&format!("{name:<11}  {}", out::plain(value)))?;
        }
    }
    Ok(not_ready.or(not_valid))
}

impl Failure {
    /// Its first line, for a list of what is and what is not.
    fn reason(&self) -> String {
        format!("no: {}", self.first_line())
    }
}
