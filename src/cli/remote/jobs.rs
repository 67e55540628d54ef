//! `helve jobs`: bulk work on runs.

use std::process::ExitCode;

use clap::Subcommand;

use super::Common;
use super::engine::{Engine, escape};
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

/// `helve runs cancel` and `helve runs replay` create jobs.
#[derive(Debug, Subcommand)]
enum Command {
    /// List jobs, newest first
    List {
        /// cancel or replay
        #[arg(long)]
        kind: Option<String>,
        /// In one of these states: queued, running, cancelling, finished, cancelled
        #[arg(long, value_delimiter = ',')]
        status: Vec<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a job
    Get {
        /// Its id, `job_..`
        id: String,
    },
    /// Follow a job until it ends; one with failures ends the command with 1
    Watch {
        /// Its id
        id: String,
    },
    /// List what became of each run
    Runs {
        /// The job's id
        id: String,
        /// Only these: pending, done, skipped, failed
        #[arg(long)]
        outcome: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// End a job early; what it has done stays
    Cancel {
        /// Its id
        id: String,
    },
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
            Self::List { kind, status, paging } => {
                let kind = kind.map(|kind| ("kind", kind));
                let parameters: Vec<_> = kind.into_iter().chain(status.into_iter().map(|s| ("status", s))).collect();
                let head = ["id", "kind", "status", "done", "skipped", "failed", "total", "created"];
                let fields = ["id", "kind", "status", "done", "skipped", "failed", "total"];
                let row = |job: &Object| {
                    let cells = fields.iter().map(|field| job.cell(field));
                    cells.chain([engine.time(job, "created_at")]).collect()
                };
                engine.list("/v1/jobs", &parameters, &paging, &head, row).await?;
            }
            Self::Get { id } => engine.show(&engine.get(&path(&id)).await?)?,
            Self::Watch { id } => return engine.follow_job(&id).await,
            Self::Runs { id, outcome, paging } => {
                let parameters: Vec<_> = outcome.map(|outcome| ("outcome", outcome)).into_iter().collect();
                let head = ["run", "outcome", "replay", "error"];
                let row = |item: &Object| {
                    vec![
                        item.cell("run"),
                        item.cell("outcome"),
                        item.cell("replay"),
                        item.object("error").cell("message"),
                    ]
                };
                engine.list(&format!("{}/runs", path(&id)), &parameters, &paging, &head, row).await?;
            }
            Self::Cancel { id } => engine.show(&engine.post(&format!("{}/cancel", path(&id)), None).await?)?,
        }
        Ok(None)
    }
}

fn path(id: &str) -> String {
    format!("/v1/jobs/{}", escape(id))
}
