//! `helve runs`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use helve_terminal::out;

use super::Common;
use super::bulk::{self, Manner};
use super::engine::{Engine, escape};
use super::failure::{Exit, Failure, Result};
use super::follow::{exit_of, is_final, standing};
use super::list::{Paging, RunFilter};
use super::logs::Logs;
use super::object::Object;
use super::time;
use super::trigger::Trigger;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List runs, newest first
    List {
        #[command(flatten)]
        filter: RunFilter,
        #[command(flatten)]
        paging: Paging,
        /// Show it again every two seconds, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show a run
    Get {
        /// Its id, `run_..`, or the last digits of it
        id: String,
    },
    /// Say why a run stands where it stands
    Why {
        /// Its id
        id: String,
    },
    /// Show the log lines of a run
    Logs(Logs),
    /// Create a run
    Trigger(Box<Trigger>),
    /// Cancel runs: those named, or every one that a filter finds
    Cancel {
        #[command(flatten)]
        which: Box<Which>,
        #[command(flatten)]
        manner: Manner,
    },
    /// Run again what has ended: those named, or every one that a filter finds
    #[command(disable_version_flag = true)]
    Replay {
        #[command(flatten)]
        which: Box<Which>,
        /// The workflow's version: the current one, or the one that the run had
        #[arg(long, value_enum)]
        version: Option<Version>,
        #[command(flatten)]
        manner: Manner,
    },
    /// Send parked runs to their queue again
    Unpark {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Follow a run until it ends; one that failed ends the command with 1
    Watch {
        /// Its id
        id: String,
        /// Look no longer
        #[arg(long, value_name = "DURATION", value_parser = helve_terminal::args::span)]
        timeout: Option<Duration>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Version {
    Current,
    Same,
}

impl Version {
    const fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Same => "same",
        }
    }
}

/// Runs by their ids, or by a filter.
#[derive(Debug, clap::Args)]
struct Which {
    /// Their ids
    ids: Vec<String>,
    #[command(flatten)]
    filter: RunFilter,
}

impl Which {
    /// The ids, or nothing when the filter counts.
    fn ids(&self) -> Result<Option<&[String]>> {
        match (self.ids.is_empty(), self.filter.is_empty()) {
            (false, true) => Ok(Some(&self.ids)),
            (true, false) => Ok(None),
            (true, true) => Err(Failure::usage("name the runs, or give a filter such as --workflow NAME")),
            (false, false) => Err(Failure::usage("name the runs or give a filter, not both")),
        }
    }
}

/// Between two looks at a list.
const LOOK: Duration = Duration::from_secs(2);
const HEAD: [&str; 7] = ["id", "workflow", "status", "attempt", "created", "took", "error"];

fn row(engine: &Engine, run: &Object) -> Vec<String> {
    vec![
        run.cell("id"),
        run.cell("workflow"),
        run.cell("status"),
        run.cell("attempt"),
        engine.time(run, "created_at"),
        engine.took(run),
        run.object("error").cell("message"),
    ]
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
            Self::List { filter, paging, watch } => loop {
                engine.list("/v1/runs", &filter.parameters()?, &paging, &HEAD, |run| row(engine, run)).await?;
                if !watch || out::is_unread() {
                    break;
                }
                tokio::time::sleep(LOOK).await;
                out::next_screen()?;
            },
            Self::Get { id } => {
                let id = engine.run_id(&id).await?;
                engine.show(&engine.get(&format!("/v1/runs/{}", escape(&id))).await?)?;
            }
            Self::Why { id } => why(engine, &id).await?,
            Self::Logs(logs) => return logs.run(engine).await,
            Self::Trigger(trigger) => return trigger.run(engine).await,
            Self::Cancel { which, manner } => {
                return match which.ids()? {
                    Some(ids) => bulk::each(engine, ids, "cancel", &serde_json::Value::Null).await,
                    None => bulk::job(engine, "cancel", &which.filter, None, &manner).await,
                };
            }
            Self::Replay { which, version, manner } => {
                let version = version.map(Version::word);
                return match which.ids()? {
                    Some(ids) => bulk::each(engine, ids, "replay", &bulk::replay_body(version)).await,
                    None => bulk::job(engine, "replay", &which.filter, version, &manner).await,
                };
            }
            Self::Unpark { ids } => return bulk::each(engine, &ids, "unpark", &serde_json::Value::Null).await,
            Self::Watch { id, timeout } => return watch(engine, &id, timeout).await,
        }
        Ok(None)
    }
}

/// The sentence, and when it may start where somebody can tell.
async fn why(engine: &Engine, id: &str) -> Result<()> {
    let id = &engine.run_id(id).await?;
    let response = engine.get(&format!("/v1/runs/{}/why", escape(id))).await?;
    if engine.json {
        return engine.show(&response);
    }
    let why = engine.object(&response)?;
    out::line(&out::plain(&why.cell("text")))?;
    let estimate = why.object("estimate");
    if estimate.raw("starts_in_ms").is_some() {
        let starts = time::length(i64::try_from(estimate.number("starts_in_ms")).unwrap_or(i64::MAX / 1_000) * 1_000);
        out::line(&format!("It may start in {starts}: {}", out::plain(&estimate.cell("basis"))))?;
    }
    Ok(())
}

/// A line for each change, on standard output: it is the answer here.
async fn watch(engine: &Engine, id: &str, timeout: Option<Duration>) -> Result<Option<Exit>> {
    let until = timeout.map(|timeout| engine.clock.instant() + timeout);
    let path = format!("/v1/runs/{}", escape(&engine.run_id(id).await?));
    let changed = |response: &helve_client::Response, run: &Object| {
        if engine.json { engine.show(response) } else { Ok(out::line(&standing(run))?) }
    };
    let (_, run) = engine.follow(&path, until, is_final, changed).await?;
    if let (false, Some(output)) = (engine.json, run.text("output")) {
        out::line(&out::plain(&output))?;
    }
    Ok(exit_of(&run))
}
