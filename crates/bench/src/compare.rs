//! `helve bench compare`: what changed from one file to another, and whether the change is more than noise.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use helve_domain::error::Result;
use helve_terminal::out;

use super::document::{Better, Document, Record};
use super::failure;
use super::report::number;
use super::stats::{self, Interval};

/// The exit code if something got worse by more than is allowed; 1 is a failure of the command itself.
const WORSE: u8 = 3;

/// Arguments of `helve bench compare`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Written by `helve bench --json`, before the change; with `--repeat` it knows its own noise
    #[arg(value_name = "BEFORE.json")]
    before: PathBuf,
    /// Written in the same way after the change
    #[arg(value_name = "AFTER.json")]
    after: PathBuf,
    /// Exit with 3 if a figure got worse by more than this, and by more than noise
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_over: Option<f64>,
    /// Compare ratios to the floor where available: for another disk, or one whose speed varies
    #[arg(long)]
    ratios: bool,
}

/// `10%` or `10`.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number.filter(|n| (0.0..=1_000.0).contains(n)).ok_or_else(|| format!("`{text}` is not a percentage from 0 to 1000"))
}

/// What can be said about one figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    /// Changed, and neither direction is good.
    Differs,
    NoneShown,
    /// Measured once: its noise is unknown.
    Once,
}

impl Verdict {
    const fn text(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Differs => "differs",
            Self::NoneShown => "no difference shown",
            Self::Once => "measured once: noise unknown",
        }
    }
}

/// One figure in both files.
#[derive(Debug)]
struct Change<'a> {
    after: &'a Record,
    what: &'static str,
    from: f64,
    to: f64,
    /// Relative to `from`; 0 if both are 0.
    percent: f64,
    /// The same with its noise.
    interval: Option<Interval>,
    verdict: Verdict,
}

impl<'a> Change<'a> {
    fn new(before: &Record, after: &'a Record, ratios: bool) -> Self {
        let by_ratio = ratios && !before.ratios.is_empty() && !after.ratios.is_empty();
        let (a, b) = if by_ratio { (&before.ratios, &after.ratios) } else { (&before.values, &after.values) };
        let (from, to) = (stats::mean(a), stats::mean(b));
        let part = |difference: f64| match (from == 0.0, difference == 0.0) {
            (_, true) => 0.0,
            (true, false) => f64::INFINITY.copysign(difference),
            (false, false) => difference / from.abs() * 100.0,
        };
        let difference = stats::difference(a, b);
        let verdict = match (difference, after.better) {
            (None, _) => Verdict::Once,
            (Some(i), _) if i.holds(0.0) => Verdict::NoneShown,
            (Some(_), None) => Verdict::Differs,
            // The ratio of a rate is one of rates, so its direction is the same.
            (Some(_), Some(better)) if (to > from) == (better == Better::Higher) => Verdict::Better,
            (Some(_), Some(_)) => Verdict::Worse,
        };
        let interval = difference.map(|i| Interval { low: part(i.low), high: part(i.high) });
        let what = if by_ratio { "x floor" } else { "" };
        Self { after, what, from, to, percent: part(to - from), interval, verdict }
    }

    /// By how many percent it got worse beyond noise; without repeats, the difference itself.
    fn worse_by(&self) -> f64 {
        let worse = match self.after.better {
            Some(Better::Lower) => self.percent,
            Some(Better::Higher) => -self.percent,
            None => 0.0,
        };
        if matches!(self.verdict, Verdict::Worse | Verdict::Once) { worse } else { 0.0 }
    }

    fn line(&self) -> String {
        let unit = if self.what.is_empty() { &self.after.unit } else { self.what };
        let change = format!("{:+.1} %", self.percent);
        let range = self.interval.map(|i| format!("[{:+.1}, {:+.1}]", i.low, i.high)).unwrap_or_default();
        let name = format!("{}: {}", self.after.optimistic, self.after.name);
        let (from, to, verdict) = (number(self.from), number(self.to), self.verdict.text());
        format!("{name:<60} {from:>12} {to:>12} {unit:<11} {change:>10} {range:>18}  {verdict}").trim_end().to_owned()
    }
}

/// The whole comparison.
#[derive(Debug)]
struct Comparison<'a> {
    warnings: Vec<String>,
    changes: Vec<Change<'a>>,
    /// In one file only.
    missing: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn new(before: &Document, after: &'a Document, ratios: bool) -> Self {
        let key = |r: &Record| (r.optimistic.clone(), r.name.clone(), r.unit.clone());
        let pair = |r: &'a Record| before.figures.iter().find(|b| key(b) == key(r)).map(|b| (b, r));
        let of_ledger = |r: &Record| r.name.starts_with("ledger:");
        let pairs = after.figures.iter().filter(|r| !of_ledger(r)).filter_map(pair);
        let lacks = |all: &Document, r: &&Record| !of_ledger(r) && !all.figures.iter().any(|o| key(o) == key(r));
        let missing = before.figures.iter().filter(|r| lacks(after, r)).map(|r| format!("only before: {}", r.name));
        let added = after.figures.iter().filter(|r| lacks(before, r)).map(|r| format!("only after: {}", r.name));
        Self {
            warnings: warnings(before, after),
            changes: pairs.map(|(b, a)| Change::new(b, a, ratios)).collect(),
            missing: missing.chain(added).collect(),
        }
    }

    fn over(&self, allowed: f64) -> impl Iterator<Item = &Change<'a>> {
        self.changes.iter().filter(move |c| c.worse_by() > allowed)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "! {warning}");
        }
        let _ =
            writeln!(text, "{:<60} {:>12} {:>12} {:<11} {:>10} {:>18}", "", "before", "after", "", "change", "95 %");
        for change in &self.changes {
            let _ = writeln!(text, "{}", change.line());
        }
        for missing in &self.missing {
            let _ = writeln!(text, "{missing}");
        }
        let count = |verdict| self.changes.iter().filter(|c| c.verdict == verdict).count();
        let _ = writeln!(
            text,
            "{} figures: {} better, {} worse, {} no difference shown, {} measured once",
            self.changes.len(),
            count(Verdict::Better),
            count(Verdict::Worse),
            count(Verdict::NoneShown),
            count(Verdict::Once)
        );
        text
    }
}

/// Reasons why a difference may not come from the change.
fn warnings(before: &Document, after: &Document) -> Vec<String> {
    let mut found = Vec::new();
    if before.machine.differs(&after.machine) {
        found.push("the machines differ: times do not carry over, ratios (--ratios) and counts do".to_owned());
    }
    if before.build != after.build {
        found.push(format!("the builds differ: {} and {}", before.build, after.build));
    }
    if before.durable != after.durable {
        found.push("one of them is durable and the other is not".to_owned());
    }
    let empty = super::machine::Postgres::default();
    let (a, b) = (before.postgres.as_ref().unwrap_or(&empty), after.postgres.as_ref().unwrap_or(&empty));
    if a.version != b.version {
        found.push(format!("PostgreSQL differs: {} and {}", a.version, b.version));
    }
    let names: std::collections::BTreeSet<_> = a.settings.keys().chain(b.settings.keys()).collect();
    for name in names.into_iter().filter(|name| a.settings.get(*name) != b.settings.get(*name)) {
        let value =
            |all: &super::machine::Postgres| all.settings.get(name).map_or("unknown", String::as_str).to_owned();
        found.push(format!("PostgreSQL's {name} differs: {} and {}", value(a), value(b)));
    }
    if before.engine != after.engine {
        found.push("the engine's settings differ".to_owned());
    }
    for (name, document) in [("before", before), ("after", after)] {
        if !document.sound {
            found.push(format!("{name}: not every accepted run was executed exactly once"));
        }
        if let Some(noise) = document.machine.noise() {
            found.push(format!("{name}: {noise}"));
        }
        let limited = document.figures.iter().filter(|r| r.generator.as_ref().is_some_and(|g| g.limit.is_some()));
        let limited = limited.count();
        if limited > 0 {
            found.push(format!("{name}: the load generator had its part in {limited} figures"));
        }
    }
    found
}

/// Compares and prints.
///
/// # Errors
/// If a file cannot be read, or the two have no figure in common.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let (before, after) = (Document::read(&args.before)?, Document::read(&args.after)?);
    let comparison = Comparison::new(&before, &after, args.ratios);
    if comparison.changes.is_empty() {
        return Err(failure("the two files have no figure in common"));
    }
    out::line(comparison.text().trim_end())?;
    if !after.sound {
        return Ok(ExitCode::FAILURE);
    }
    let Some(allowed) = args.fail_over else { return Ok(ExitCode::SUCCESS) };
    let over: Vec<_> = comparison.over(allowed).map(|c| c.after.name.as_str()).collect();
    if over.is_empty() {
        out::line(&format!("nothing is worse by more than {allowed} %"))?;
        return Ok(ExitCode::SUCCESS);
    }
    out::line(&format!("WORSE by more than {allowed} %: {}", over.join("; ")))?;
    Ok(ExitCode::from(WORSE))
}

#[cfg(test)]
mod tests;
