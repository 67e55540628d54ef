//! Logs: to standard error, as text for a person or as JSON for a collector.
//!
//! Nobody who logs waits for the reader of standard error: lines go through a bounded queue to a thread that writes
//! them (`telemetry/queue.rs`).

mod filter;
mod json;
mod queue;

use std::io::IsTerminal;
use std::time::Duration;

use tracing_subscriber::fmt;

pub use queue::dropped;

/// How long the end of the process waits for the last lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// The logs of the process. Its end waits a moment for the lines that are not written yet.
#[must_use]
pub struct Logs(());

impl Drop for Logs {
    fn drop(&mut self) {
        flush();
    }
}

/// Waits a moment for the lines that are not written yet: before an end of the process that drops nothing.
pub fn flush() {
    queue::LINES.flush(LAST_WORDS);
}

/// Starts logging for the process. `filter` is a level or directives such as `info,helve::sched=debug`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str, format: Format) -> Result<Logs, String> {
    let filter = filter::parse(filter).map_err(|wrong| format!("HELVE_LOG=`{filter}`: {wrong}"))?;
    queue::LINES.start().map_err(|e| format!("the log has no thread: {e}"))?;
    let logs = fmt()
        .with_env_filter(filter)
        .with_writer(|| queue::Writer(&queue::LINES))
        .with_ansi(std::io::stderr().is_terminal())
        // It would say so on standard error itself, and wait for it.
        .log_internal_errors(false);
    // A second start, in a process that has one already, changes nothing.
    let _ = match format {
        Format::Text => logs.with_target(false).try_init(),
        Format::Json => logs.fmt_fields(fmt::format::JsonFields::new()).event_format(json::Lines).try_init(),
    };
    log_panics();
    Ok(Logs(()))
}

/// A panic is a line of the log as any other: the hook of the standard library writes to standard error, and waits.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(%backtrace, "panicked at {place}: {message}");
        } else {
            tracing::error!("panicked at {place}: {message}");
        }
    }));
}
