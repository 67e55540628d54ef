//! The file that `--json` writes and that `compare` and `chart` read.

use std::path::Path;

use helve_domain::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure;
use super::load::Distribution;
use super::machine::{Machine, Postgres};
use super::meter::Generator;
use super::report::Must;
use super::soak::Soak;
use super::stats::Interval;

/// The kind of file.
const FORMAT: &str = "helve-bench";
/// Raised when a field changes its meaning or is removed; new fields do not raise it.
const VERSION: u32 = 1;

/// Everything that one call measured, and on which machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Document {
    format: String,
    version: u32,
    /// The version of the program, and how it was built: `release` or `debug`.
    pub(super) helve: String,
    pub(super) build: String,
    /// When it began, RFC 3339.
    pub(super) started_at: String,
    /// For how many seconds each row was measured.
    pub(super) seconds: f64,
    /// How often everything was measured.
    pub(super) repeats: u32,
    /// Every commit was on disk when it was answered.
    pub(super) durable: bool,
    /// Everything accepted was executed once, and nothing else was.
    pub(super) sound: bool,
    pub(super) machine: Machine,
    /// `None`: no database was given.
    pub(super) postgres: Option<Postgres>,
    /// Every setting of a private engine; null if somebody else runs the engine.
    #[serde(default)]
    pub(super) engine: Value,
    pub(super) figures: Vec<Record>,
    #[serde(default)]
    pub(super) soak: Vec<Soak>,
}

/// One figure: the mean of its repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// `on`, `off`, or `as it runs`.
    pub(super) optimistic: String,
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: String,
    /// Which direction is good; absent if neither is.
    #[serde(default)]
    pub(super) better: Option<Better>,
    /// One for each repeat.
    #[serde(default)]
    pub(super) values: Vec<f64>,
    /// Of the mean, at 95 %; absent without repeats.
    #[serde(default)]
    pub(super) interval: Option<Interval>,
    #[serde(default)]
    pub(super) ratio_to_floor: Option<f64>,
    #[serde(default)]
    pub(super) ratios: Vec<f64>,
    #[serde(default)]
    pub(super) must: Option<Must>,
    #[serde(default)]
    pub(super) verdict: String,
    #[serde(default)]
    pub(super) detail: Option<String>,
    #[serde(default)]
    pub(super) curve: Option<Curve>,
    /// Of the last repeat.
    #[serde(default)]
    pub(super) distribution: Option<Distribution>,
    /// Of the last repeat.
    #[serde(default)]
    pub(super) generator: Option<Generator>,
}

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Better {
    Lower,
    Higher,
}

/// The position of a figure in a chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Curve {
    pub(super) axis: Axis,
    pub(super) x: f64,
    /// The line of the chart; each mode has its own.
    pub(super) line: String,
    /// False: the load was not reached, so the figure says how far behind the engine was.
    pub(super) reached: bool,
}

/// The horizontal axis of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Axis {
    /// Triggers a second in an open loop; the figure is a latency.
    Rate,
    /// Clients of a closed loop; the figure is runs a second.
    Clients,
}

impl Document {
    /// An empty document of this program.
    pub(super) fn new(started_at: String, machine: Machine) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            helve: env!("CARGO_PKG_VERSION").to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            started_at,
            seconds: 0.0,
            repeats: 1,
            durable: false,
            sound: false,
            machine,
            postgres: None,
            engine: Value::Null,
            figures: Vec::new(),
            soak: Vec::new(),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// If there is none, if it is something else, or of a version that this program does not know.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let wrong = |why: String| failure(format!("{}: {why}", file.display()));
        let text = std::fs::read(file).map_err(|err| wrong(err.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let other = || "this is not a file of `helve bench --json`".to_owned();
        let head: Head = serde_json::from_slice(text).map_err(|_| other())?;
        if head.format != FORMAT {
            return Err(other());
        }
        if head.version != VERSION {
            let version = head.version;
            return Err(format!("it has version {version} of the format, and this program reads version {VERSION}"));
        }
        serde_json::from_slice(text).map_err(|err| format!("it is damaged: {err}"))
    }

    /// Writes it, indented for human readers.
    pub(super) async fn write(&self, file: &Path) -> Result<()> {
        let wrong = |why: String| failure(format!("{} cannot be written: {why}", file.display()));
        let mut text = serde_json::to_vec_pretty(self).map_err(|err| wrong(err.to_string()))?;
        text.push(b'\n');
        tokio::fs::write(file, text).await.map_err(|err| wrong(err.to_string()))
    }
}

#[cfg(test)]
impl Record {
    /// A figure with these repeats.
    pub(super) fn of_test(name: &str, unit: &str, better: Option<Better>, values: &[f64]) -> Self {
        Self {
            optimistic: "on".to_owned(),
            name: name.to_owned(),
            value: super::stats::mean(values),
            unit: unit.to_owned(),
            better,
            values: values.to_vec(),
            interval: super::stats::interval(values),
            ratio_to_floor: None,
            ratios: Vec::new(),
            must: None,
            verdict: String::new(),
            detail: None,
            curve: None,
            distribution: None,
            generator: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let mut document = Document::new("2026-11-24T00:00:00Z".to_owned(), Machine::of_test());
        document.figures.push(Record::of_test("round trip p50", "ms", Some(Better::Lower), &[1.0, 2.0]));
        let text = serde_json::to_vec(&document).unwrap();
        let read = Document::parse(&text).unwrap();
        assert_eq!(read.figures, document.figures);
        assert_eq!((read.version, read.machine), (VERSION, document.machine));
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let document = Document::new(String::new(), Machine::of_test());
        let mut newer = serde_json::to_value(&document).unwrap();
        newer["version"] = 99.into();
        let mut damaged = serde_json::to_value(&document).unwrap();
        damaged["figures"] = "none".into();
        for (text, word) in [
            ("{}".to_owned(), "not a file of"),
            ("nonsense".to_owned(), "not a file of"),
            (r#"{"format": "helve-faults", "version": 1}"#.to_owned(), "not a file of"),
            (newer.to_string(), "version 99"),
            (damaged.to_string(), "damaged"),
        ] {
            let why = Document::parse(text.as_bytes()).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
