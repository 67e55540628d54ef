//! Logs: to standard error, as text for a person or as JSON for a collector.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the process. `filter` is a level or directives such as `info,helve::sched=debug`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str, format: Format) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("HELVE_LOG=`{filter}`: {e}"))?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second start, in a process that has one already, changes nothing.
    let _ = match format {
        Format::Text => logs.with_target(false).try_init(),
        Format::Json => logs.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    Ok(())
}
