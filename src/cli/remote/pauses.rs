//! `helve pauses`.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value};

use super::Common;
use super::engine::{Engine, escape};
use super::failure::{Exit, Result};
use super::list::Paging;
use super::object::Object;
use super::trigger::encode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what is paused, or starts gently after it
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Pause: nothing of it starts any more, what is running goes on
    Start {
        #[command(flatten)]
        target: Target,
        /// Why; others see it
        #[arg(long)]
        reason: String,
        /// When the pause ends by itself
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<String>,
    },
    /// Resume: the backlog goes at once, or gently
    Resume {
        #[command(flatten)]
        target: Target,
        /// Starts per second
        #[arg(long)]
        rate: Option<f64>,
    },
}

/// What is paused.
#[derive(Debug, clap::Args)]
struct Target {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// The workflow's or action's name, or the worker's id
    name: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Workflow,
    Action,
    Worker,
}

impl Target {
    fn path(&self, verb: &str) -> String {
        let kind = match self.kind {
            Kind::Workflow => "workflows",
            Kind::Action => "actions",
            Kind::Worker => "workers",
        };
        format!("/v1/{kind}/{}/{verb}", escape(&self.name))
    }
}

impl Args {
    pub(crate) async fn run(self) -> ExitCode {
        let Self { common, command } = self;
        common.run(async |engine| command.run(engine).await).await
    }
}

impl Command {
    async fn run(self, engine: &Engine) -> Result<Option<Exit>> {
        match self {
            Self::List { paging } => {
                let head = ["kind", "name", "state", "since", "by", "rate", "reason"];
                engine.list("/v1/pauses", &[], &paging, &head, |pause| row(engine, pause)).await?;
            }
            Self::Start { target, reason, expires_in } => {
                let mut body = Map::from_iter([("reason".to_owned(), Value::from(reason))]);
                body.extend(expires_in.map(|span| ("expires_in".to_owned(), Value::from(span))));
                engine.show(&engine.post(&target.path("pause"), Some(encode(&body)?)).await?)?;
            }
            Self::Resume { target, rate } => {
                let body = rate.map(|rate| encode(&serde_json::json!({ "rate": rate }))).transpose()?;
                engine.show(&engine.post(&target.path("resume"), body).await?)?;
            }
        }
        Ok(None)
    }
}

fn row(engine: &Engine, pause: &Object) -> Vec<String> {
    let by = pause.object("by");
    vec![
        pause.cell("kind"),
        pause.cell("name"),
        pause.cell("state"),
        engine.time(pause, "since"),
        by.text("name").unwrap_or_else(|| by.cell("token")),
        pause.cell("rate"),
        pause.cell("reason"),
    ]
}
