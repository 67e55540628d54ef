//! The command line: the only place that reads flags and the environment.

pub mod database;
mod dev;
mod files;
mod internal;
mod kept;
mod migrate;
mod openapi;
mod pages;
mod port;
mod remote;
mod serve;
mod settings;
mod tenant;
mod token;
mod traces;
mod values;
mod version;
mod wrong;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use helve_domain::error::{Error, Result};
use helve_terminal::out;

use crate::telemetry::{self, Format};
use wrong::usage;

/// A durable task and workflow engine over PostgreSQL
#[derive(Debug, Parser)]
#[command(name = "helve", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// What to log: a level or directives such as `info,helve::sched=debug`
    #[arg(long, env = "HELVE_LOG", default_value = "info", global = true, value_name = "FILTER")]
    log: String,
    /// How log lines look
    #[arg(long, env = "HELVE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine: a private PostgreSQL, the engine, a tenant and a token
    Dev(Box<dev::Args>),
    /// Run the engine on your PostgreSQL
    Serve(Box<serve::Args>),
    /// Bring the database's schema up to this version
    Migrate(migrate::Args),
    /// Create and list tenants
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Create, list and revoke API tokens
    #[command(subcommand)]
    Token(token::Token),
    /// List, trigger, cancel, replay and watch runs, and ask why one waits
    Runs(Box<remote::runs::Args>),
    /// Register and look at workflows
    Workflows(remote::workflows::Args),
    /// Push, list and replay events
    Events(Box<remote::events::Args>),
    /// See the workers
    Workers(remote::workers::Args),
    /// Pause workflows, actions and workers, and resume them
    Pauses(remote::pauses::Args),
    /// See and end bulk jobs
    Jobs(remote::jobs::Args),
    /// Show which engine the commands talk to, and how it is
    Status(remote::status::Args),
    /// Send any request of the REST interface
    Api(remote::api::Args),
    /// Keep engines and their tokens by name, for the commands that talk to an engine
    #[command(subcommand)]
    Profile(remote::profile::Command),
    /// Print the OpenAPI document of the REST interface
    Openapi,
    /// Show the version, the worker protocol and the schema of this program
    #[command(disable_version_flag = true)]
    Version(version::Args),
    /// Print a script that completes the commands of a shell
    Completion(pages::Completion),
    /// Print the manual page, or write one for each command
    Man(pages::Man),
    /// Measure this machine, or a running engine
    Bench(Box<helve_bench::Args>),
    /// What Helve starts itself with
    #[command(subcommand, hide = true)]
    Internal(internal::Internal),
}

/// Runs the program: 0 done, 1 failed, 2 wrong usage; commands that talk to an engine have more.
pub fn main() -> ExitCode {
    let cli = wrong::parse();
    let command = match cli.command {
        // Before anything else is started: it becomes another program.
        Command::Internal(internal) => return finish(internal.run().map(|()| ExitCode::SUCCESS)),
        command => command,
    };
    let format = match cli.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    // Until the end: what was logged last is still written.
    let _logs = telemetry::start(&cli.log, format).unwrap_or_else(|wrong| usage(wrong));
    if matches!(command, Command::Dev(_) | Command::Serve(_)) {
        wrong::misspelt().iter().for_each(|told| tracing::warn!("{told}"));
    }
    let runtime = match runtime(&command) {
        Ok(runtime) => runtime,
        Err(e) => return finish(Err(Error::Internal(format!("no threads: {e}")))),
    };
    let code = finish(runtime.block_on(run(command)));
    // A start that was interrupted may still be making a database: nobody waits for it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// The runtime of everything that has none of its own. An engine's scheduler has a thread for itself, so that the others
/// are one fewer: with one for each processor besides, each start costs a wake-up more (docs/decisions/0018).
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let is_set = std::env::var_os("TOKIO_WORKER_THREADS").is_some();
    if matches!(command, Command::Dev(_) | Command::Serve(_)) && !is_set {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        builder.worker_threads(processors.saturating_sub(1).max(1));
    }
    builder.enable_all().build()
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Dev(args) => dev::run(*args).await?,
        Command::Serve(args) => serve::run(*args).await?,
        Command::Migrate(args) => migrate::run(args).await?,
        Command::Tenant(tenant) => tenant.run().await?,
        Command::Token(token) => token.run().await?,
        Command::Runs(args) => return Ok(args.run().await),
        Command::Workflows(args) => return Ok(args.run().await),
        Command::Events(args) => return Ok(args.run().await),
        Command::Workers(args) => return Ok(args.run().await),
        Command::Pauses(args) => return Ok(args.run().await),
        Command::Jobs(args) => return Ok(args.run().await),
        Command::Status(args) => return Ok(args.run().await),
        Command::Api(args) => return Ok(args.run().await),
        Command::Profile(command) => return Ok(command.run().await),
        Command::Openapi => openapi::run()?,
        Command::Version(args) => version::run(&args)?,
        Command::Completion(args) => pages::completion(&args)?,
        Command::Man(args) => pages::man(&args)?,
        Command::Bench(args) => {
            args.check().unwrap_or_else(|wrong| usage(wrong));
            return helve_bench::run(*args).await;
        }
        Command::Internal(internal) => internal.run()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn finish(result: Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(e) => {
            out::note(&format!("helve: {}", text(&e)));
            ExitCode::FAILURE
        }
    }
}

/// What a person at a terminal should read. Here the operator is the caller: nothing is held back.
fn text(e: &Error) -> String {
    match e {
        Error::Internal(text) => text.clone(),
        other => other.client_text(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_help_shows_a_secret_of_the_environment() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                let name = arg.get_env().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
                let secret = ["URL", "TOKEN"].iter().any(|word| name.contains(word));
                assert!(!secret || arg.is_hide_env_values_set(), "{} shows {name}", command.get_name());
            }
        }
    }
}
