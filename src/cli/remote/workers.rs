//! `helve workers`.

use std::process::ExitCode;

use clap::Subcommand;

use super::Common;
use super::engine::Engine;
use super::failure::{Exit, Result};
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
    /// List workers with their slots in use
    List {
        #[command(flatten)]
        paging: Paging,
    },
}

impl Args {
    pub(crate) async fn run(self) -> ExitCode {
        let Self { common, command: Command::List { paging } } = self;
        let list = async |engine: &Engine| -> Result<Option<Exit>> {
            let head = ["id", "name", "state", "slots", "actions", "labels"];
            engine.list("/v1/workers", &[], &paging, &head, |worker| row(engine, worker)).await?;
            Ok(None)
        };
        common.run(list).await
    }
}

fn row(engine: &Engine, worker: &Object) -> Vec<String> {
    let is = |field| worker.raw(field) == Some("true");
    let state = match (worker.raw("lost_at"), is("connected"), is("draining")) {
        (Some(_), _, _) => format!("lost {}", engine.time(worker, "lost_at")),
        (None, false, _) => "not connected".to_owned(),
        (None, true, true) => "draining".to_owned(),
        (None, true, false) => "connected".to_owned(),
    };
    let slots = worker.object("slots");
    let slot = |(kind, _): (&str, &str)| {
        let use_ = slots.object(kind);
        format!("{kind} {}/{}", use_.number("used"), use_.number("total"))
    };
    let labels = worker.object("labels");
    let labels: Vec<_> = labels.fields().map(|(name, _)| format!("{name}={}", labels.cell(name))).collect();
    vec![
        worker.cell("id"),
        worker.cell("name"),
        state,
        slots.fields().map(slot).collect::<Vec<_>>().join(" "),
        worker.words("actions"),
        labels.join(","),
    ]
}
