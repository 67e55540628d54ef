//! The arguments of `helve bench`, and what can be measured.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum as _;
use helve_terminal::args::{pg_setting, span};

use super::{compare, faults};

/// Arguments of `helve bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Without --url a private PostgreSQL and engine are started below --data-dir and removed at the end.
Exit codes: 0 done; 1 failed, or a run was lost, doubled or never accepted; 2 wrong usage.

  helve bench                                             the usual rows, some minutes
  helve bench --only start,open-loop --seconds 10         only these
  helve bench --repeat 5 --json after.json --chart charts for a comparison, and charts
  helve bench compare before.json after.json --fail-over 10%
  helve bench --soak 30m                                  does anything grow?")]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    /// Base URL of a running engine; without it a private one is started
    #[arg(long, requires = "token")]
    pub(super) url: Option<String>,
    /// Token of the running engine, with the scopes read, write and worker
    #[arg(long, env = "HELVE_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// Database of the running engine; without it there is no floor, no ratio and no cost
    #[arg(long, requires = "url")]
    pub(super) database_url: Option<String>,
    /// Optimistic scheduling of the private engine
    #[arg(long, value_enum, default_value_t = Optimistic::Both)]
    pub(super) optimistic: Optimistic,
    /// List what can be measured, and exit
    #[arg(long)]
    pub(super) list: bool,
    /// Measure only these rows
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROW,..")]
    pub(super) only: Vec<Row>,
    /// Measure all rows, including those that take long or fill the disk
    #[arg(long, conflicts_with = "only")]
    pub(super) all: bool,
    /// Seconds to measure each row
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
    /// Measure everything this many times, each on a fresh engine: figures get intervals
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) repeat: u32,
    /// Write everything to this file, for programs and for `compare`
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Draw charts (SVG) into this directory
    #[arg(long, value_name = "DIR")]
    pub(super) chart: Option<PathBuf>,
    #[command(flatten)]
    pub(super) sizes: Sizes,
    /// In place of the rows: run a load for this long (30m, 2h) and say whether memory, p99 or throughput change
    #[arg(long, value_name = "DURATION", value_parser = soak_span, conflicts_with_all = ["only", "all", "churn", "repeat"])]
    pub(super) soak: Option<Duration>,
    /// Triggers a second of the soak
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(super) soak_rate: u32,
    /// In place of the rows: fill and empty the table of open runs for this long, and fail if it gets slower
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(6..=86_400))]
    pub(super) churn: Option<u64>,
    /// In place of the rows: inject this many kills and cuts under load, and fail if anything is lost, stuck or doubled
    #[arg(long, value_name = "engine=N,postgres=N,cut=N", conflicts_with_all = ["url", "churn", "soak", "only", "all", "chart", "repeat"])]
    pub(super) faults: Option<faults::Wanted>,
    /// Where the private engine's data is kept while it runs: the disk to measure
    #[arg(long, value_name = "DIR", default_value = "/var/tmp", conflicts_with = "url")]
    pub(super) data_dir: PathBuf,
    /// A setting of the private PostgreSQL, such as wal_compression=on; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pg_setting, conflicts_with = "url")]
    pub(super) pg_setting: Vec<(String, String)>,
}

/// The amounts to measure with.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Sizes {
    /// Triggers a second of the row `open-loop`
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [100, 500, 2_000, 10_000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) rates: Vec<u32>,
    /// Events a second of the row `events`
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) event_rate: u32,
    /// Events in one request of the row `events`, with one measurement for each number
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 100])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) event_bulks: Vec<u32>,
    /// Numbers of clients of the row `throughput`
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [8, 64, 256])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(super) clients: Vec<u32>,
    /// Queued runs that the backlog rows drain
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..=50_000))]
    pub(super) backlog: u32,
    /// Idle sockets of the row `sockets`
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 1_000, 10_000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub(super) sockets: Vec<u32>,
    /// Tenants of the row `tenants`
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 100, 10_000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) tenants: Vec<u32>,
    /// Open runs that the row `memory` creates
    #[arg(long, value_name = "N", default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1_000..=400_000))]
    pub(super) held_runs: u32,
    /// Open runs that exist when the row `recovery` starts
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=5_000_000))]
    pub(super) open_runs: u32,
    /// Numbers of engines of the row `replicas`, which has as many clients as the two largest numbers of --clients
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 2, 3])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=6))]
    pub(super) engines: Vec<u32>,
    /// Seconds to watch an idle engine
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(super) idle_seconds: u64,
}

/// What to do with files written before.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compare two files of --json, with intervals if they have repeats
    Compare(compare::Args),
    /// Draw the charts (SVG) of a file of --json
    Chart {
        /// The file
        #[arg(value_name = "FILE.json")]
        file: PathBuf,
        /// The directory for the charts
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// How the private engine assigns runs to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Optimistic {
    /// Assigned by the statement that creates them
    On,
    /// Queued first, then assigned
    Off,
    /// Both, one after the other
    Both,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Row {
    /// From a trigger to its task at the worker, one at a time, beside the floor
    Start,
    /// The same at fixed rates: counted from the intended time, even if the engine falls behind
    OpenLoop,
    /// Events at a fixed rate, alone and in bulk, until each one's task is at the worker
    Events,
    /// From a trigger to its result, one at a time, beside the floor
    RoundTrip,
    /// Closed loops of 8, 64 and 256 clients, and the cost of a run with the most of them
    Throughput,
    /// Bulk triggers of 100 and of 1,000 runs
    Bulk,
    /// A backlog behind a single slot
    OneSlot,
    /// A backlog drained by 1 and then by 4 workers
    Backlog,
    /// Statements per run, counted by PostgreSQL on a separate engine
    Statements,
    /// Statements, commits, row changes and WAL per run: alone, 64 clients, bulks of 100, started by events
    Counts,
    /// Statements per minute when nothing happens, without and with a connected worker
    Idle,
    /// 1, 1,000 and 10,000 idle sockets: memory of each, and the time of a start beside them
    Sockets,
    /// Memory of a queued, a running and a scheduled run; bytes of a run in the table
    Memory,
    /// Single triggers while another tenant floods the engine
    Fairness,
    /// 1, 100 and 10,000 tenants, 10 of them active: memory, statements when idle, start
    Tenants,
    /// The first task after a kill, with many open runs
    Recovery,
    /// 1, 2 and 3 engines on one database, all on this machine: throughput, and a start through another engine
    Replicas,
}

/// What the benchmark plans to measure and the product does not have yet.
pub(super) const ABSENT: &[(&str, &str)] =
    &[("chain, fan-out, diamond", "workflows of several tasks"), ("limits", "concurrency keys and rate limits")];

impl Row {
    /// All but the rows that take minutes or fill the disk, which are measured only on request.
    const fn is_usual(self) -> bool {
        !matches!(
            self,
            Self::Counts
                | Self::Idle
                | Self::Sockets
                | Self::Memory
                | Self::Fairness
                | Self::Tenants
                | Self::Recovery
                | Self::Replicas
        )
    }

    /// Rows that start their own databases and engines.
    const fn needs_private(self) -> bool {
        matches!(
            self,
            Self::Statements
                | Self::Counts
                | Self::Idle
                | Self::Sockets
                | Self::Memory
                | Self::Fairness
                | Self::Tenants
                | Self::Recovery
                | Self::Replicas
        )
    }

    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }

    fn help(self) -> String {
        self.to_possible_value().and_then(|v| v.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}

/// What can be measured, for `--list`.
pub(super) fn list() -> String {
    let line = |name: &str, when: &str, help: &str| format!("{name:<24} {when:<22} {help}");
    let when = |row: &Row| if row.is_usual() { "usual" } else { "when asked for" };
    let rows = Row::value_variants().iter().map(|row| line(&row.name(), when(row), &row.help()));
    let absent = ABSENT.iter().map(|(name, why)| line(name, "not in this version", &format!("needs {why}")));
    rows.chain(absent).collect::<Vec<_>>().join("\n")
}

/// A duration long enough to fit a line through its samples.
fn soak_span(text: &str) -> Result<Duration, String> {
    span(text).and_then(|d| if d < Duration::from_secs(6) { Err("at least 6s".to_owned()) } else { Ok(d) })
}

impl Args {
    /// `None`: a running engine, as it is.
    pub(super) fn modes(&self) -> Vec<Option<bool>> {
        match self.optimistic {
            _ if self.url.is_some() => vec![None],
            Optimistic::On => vec![Some(true)],
            Optimistic::Off => vec![Some(false)],
            Optimistic::Both if self.churn.is_some() || self.soak.is_some() => vec![Some(true)],
            Optimistic::Both => vec![Some(true), Some(false)],
        }
    }

    /// The requested rows, in their order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let usual = |row: &Row| (self.all || row.is_usual()) && (self.url.is_none() || !row.needs_private());
        let wanted = |row: &Row| if self.only.is_empty() { usual(row) } else { self.only.contains(row) };
        Row::value_variants().iter().copied().filter(wanted).collect()
    }

    /// Finds arguments that contradict each other although each is valid.
    ///
    /// # Errors
    /// With a message for the person at the terminal.
    pub fn check(&self) -> Result<(), String> {
        if self.command.is_some() || self.list {
            return Ok(());
        }
        let rows = self.rows();
        if let Some(row) = rows.iter().find(|row| row.needs_private() && self.url.is_some()) {
            return Err(format!("the row {} needs a private engine: leave --url out", row.name()));
        }
        let (rate, most) = (self.sizes.event_rate, self.sizes.event_bulks.iter().copied().max());
        if let Some(most) = most.filter(|most| *most > rate && rows.contains(&Row::Events)) {
            return Err(format!("{rate} events a second in bulks of {most} are fewer than one request a second"));
        }
        let drawn = self.soak.is_some() || rows.contains(&Row::OpenLoop) || rows.contains(&Row::Throughput);
        if self.chart.is_some() && (!drawn || self.churn.is_some()) {
            return Err(
                "--chart draws the rows open-loop and throughput, and a soak: none of them is asked for".to_owned()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &str) -> Result<Args, String> {
        let words = std::iter::once("bench").chain(words.split_whitespace());
        let args = Line::try_parse_from(words).map_err(|err| err.to_string())?.args;
        args.check().map(|()| args)
    }

    #[test]
    fn rows_that_take_long_are_left_to_those_who_ask() {
        let usual = parse("").unwrap().rows();
        assert!(usual.contains(&Row::OpenLoop) && !usual.contains(&Row::Recovery));
        assert_eq!(parse("--all").unwrap().rows(), Row::value_variants());
        assert_eq!(parse("--only tenants,start").unwrap().rows(), [Row::Start, Row::Tenants]);
        let running = parse("--url http://h --token t --all").unwrap().rows();
        assert!(running.contains(&Row::Backlog) && !running.contains(&Row::Memory));
    }

    #[test]
    fn contradictions_are_named() {
        for (line, word) in [
            ("--only memory --url http://h --token t", "leave --url out"),
            ("--only start --chart x", "none of them is asked for"),
            ("--only nothing", "open-loop"),
            ("--rates 0", "0 is not in 1..=100000"),
            ("--rates 5,x", "invalid"),
            ("--event-rate 0", "0 is not in 1..=100000"),
            ("--event-bulks 1,1001", "1001 is not in 1..=1000"),
            ("--event-rate 50 --event-bulks 1,100", "fewer than one request a second"),
            ("--repeat 0", "0 is not in"),
            ("--soak 1s", "at least 6s"),
            ("--soak soon", "soon"),
            ("--soak 10s --churn 6", "cannot be used with"),
            ("--faults engine=1 --repeat 2", "cannot be used with"),
            ("--pg-setting wal_compression", "NAME=VALUE"),
            ("compare one.json", "AFTER.json"),
            ("compare a b --fail-over much", "not a percentage"),
        ] {
            let Err(said) = parse(line) else { panic!("{line} is accepted") };
            assert!(said.contains(word), "{line}: {said}");
        }
    }

    #[test]
    fn the_list_names_every_row_and_what_is_absent() {
        let list = list();
        assert_eq!(list.lines().count(), Row::value_variants().len() + ABSENT.len());
        assert!(list.contains("open-loop") && list.contains("not in this version"), "{list}");
    }
}
