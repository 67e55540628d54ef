//! The commands for people: they talk to a running engine over REST, as any other client.

pub(super) mod api;
mod bulk;
mod engine;
pub(super) mod events;
mod failure;
mod follow;
mod input;
pub(super) mod jobs;
mod list;
mod logs;
mod object;
pub(super) mod pauses;
pub(super) mod profile;
pub(super) mod runs;
pub(super) mod status;
mod target;
mod time;
mod trigger;
pub(super) mod workers;
pub(super) mod workflows;

use std::process::ExitCode;

use engine::Engine;
use failure::{Exit, Result};

/// What every command for people takes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// The profile to use, before HELVE_URL and HELVE_TOKEN
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// Print the answer as it is: the JSON of the interface
    #[arg(long, global = true)]
    json: bool,
    /// Show times in UTC instead of how long ago they were
    #[arg(long, global = true)]
    utc: bool,
}

impl Common {
    /// Runs a command against the engine that is meant, and says what went wrong.
    async fn run(&self, command: impl AsyncFnOnce(&Engine) -> Result<Option<Exit>>) -> ExitCode {
        let done = async { command(&Engine::open(self)?).await };
        finish(self.json, done.await)
    }
}

fn finish(json: bool, done: Result<Option<Exit>>) -> ExitCode {
    match done {
        Ok(exit) => exit.map_or(ExitCode::SUCCESS, ExitCode::from),
        Err(failure) => {
            failure.print(json);
            failure.exit.into()
        }
    }
}
