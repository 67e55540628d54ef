//! `helve workflows`.

use std::process::ExitCode;

use clap::Subcommand;
use helve_terminal::out;

use super::Common;
use super::engine::{Engine, escape};
use super::failure::{Exit, Result};
use super::input;
use super::list::Paging;
use super::object::Object;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List workflows
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a workflow with its definition
    Get {
        /// Its name
        name: String,
    },
    /// Register a workflow, or a new version of it
    Put {
        /// Its name
        name: String,
        /// The definition: JSON, @FILE, or - for standard input
        definition: String,
    },
    /// Delete a workflow that has no open runs
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// List the versions of a workflow
    Versions {
        /// Its name
        name: String,
        #[command(flatten)]
        paging: Paging,
    },
}

impl Args {
    pub(crate) async fn run(self) -> ExitCode {
        let Self { common, command } = self;
        common.run(async |engine| command.run(engine).await).await
    }
}

/// What the tasks of a definition do, and what starts them.
fn definition(of: &Object) -> [String; 2] {
    let definition = of.object("definition");
    let action = |task: &Object| task.text("action").unwrap_or_else(|| task.cell("name"));
    let tasks = definition.list("tasks");
    let actions: Vec<_> = tasks.iter().filter_map(|t| Object::parse(t.get().as_bytes())).map(|t| action(&t)).collect();
    [actions.join(","), definition.words("events")]
}

impl Command {
    async fn run(self, engine: &Engine) -> Result<Option<Exit>> {
        match self {
            Self::List { paging } => {
                let row = |workflow: &Object| {
                    let [actions, events] = definition(workflow);
                    let updated = engine.time(workflow, "updated_at");
                    vec![workflow.cell("name"), workflow.cell("version"), updated, actions, events]
                };
                let head = ["name", "version", "updated", "actions", "events"];
                engine.list("/v1/workflows", &[], &paging, &head, row).await?;
            }
            Self::Get { name } => engine.show(&engine.get(&path(&name)).await?)?,
            Self::Put { name, definition } => {
                let body = input::json("the definition", &definition)?.get().to_owned();
                engine.show(&engine.put(&path(&name), body).await?)?;
            }
            Self::Delete { name, yes } => {
                // One that is not there is no question.
                engine.get(&path(&name)).await?;
                let question = format!("Delete the workflow `{}` of {}?", out::plain(&name), engine.described());
                if !input::confirmed(&question, yes)? {
                    return Ok(None);
                }
                engine.delete(&path(&name)).await?;
                if !engine.json {
                    out::line(&format!("deleted {}", out::plain(&name)))?;
                }
            }
            Self::Versions { name, paging } => {
                let row = |version: &Object| {
                    let [actions, events] = definition(version);
                    let current = if version.raw("current") == Some("true") { "*" } else { "" };
                    vec![
                        version.cell("version"),
                        current.to_owned(),
                        engine.time(version, "created_at"),
                        actions,
                        events,
                    ]
                };
                let head = ["version", "current", "created", "actions", "events"];
                engine.list(&format!("{}/versions", path(&name)), &[], &paging, &head, row).await?;
            }
        }
        Ok(None)
    }
}

fn path(name: &str) -> String {
    format!("/v1/workflows/{}", escape(name))
}
