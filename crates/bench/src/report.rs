//! Figures, their targets, and how they are shown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::document::{Axis, Better, Curve, Document, Record};
use super::load::Distribution;
use super::machine::Postgres;
use super::meter::Generator;
use super::stats;

/// The target of a figure. It applies to the ratio to the floor if there is one, otherwise to the value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Must {
    AtMost(f64),
    AtLeast(f64),
}

impl Must {
    fn is_met(self, n: f64) -> bool {
        match self {
            Self::AtMost(most) => n <= most,
            Self::AtLeast(least) => n >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(n) => format!("<= {}", number(n)),
            Self::AtLeast(n) => format!(">= {}", number(n)),
        }
    }
}

/// One measured number.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    mode: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    better: Option<Better>,
    ratio: Option<f64>,
    must: Option<Must>,
    detail: Option<String>,
    curve: Option<Curve>,
    distribution: Option<Distribution>,
    generator: Option<Generator>,
    ledger: bool,
    summed: bool,
}

impl Figure {
    /// Which direction is good follows from the unit: more runs per second, less of everything else.
    pub(super) fn new(mode: &'static str, name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let better = match unit {
            "%" | "runs" => None,
            "runs/s" => Some(Better::Higher),
            _ => Some(Better::Lower),
        };
        Self {
            mode,
            name: name.into(),
            value,
            unit,
            better,
            ratio: None,
            must: None,
            detail: None,
            curve: None,
            distribution: None,
            generator: None,
            ledger: false,
            summed: false,
        }
    }

    /// Relative to the floor's p50 of the same row.
    pub(super) fn ratio(self, ratio: f64) -> Self {
        Self { ratio: Some(ratio), ..self }
    }

    pub(super) fn must(self, must: Must) -> Self {
        Self { must: Some(must), ..self }
    }

    pub(super) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    pub(super) fn distribution(self, distribution: Distribution) -> Self {
        Self { distribution: Some(distribution), ..self }
    }

    pub(super) fn generator(self, generator: &Generator) -> Self {
        Self { generator: Some(generator.clone()), ..self }
    }

    /// Adds it to a chart.
    pub(super) fn curve(self, axis: Axis, x: f64, line: &str, reached: bool) -> Self {
        Self { curve: Some(Curve { axis, x, line: line.to_owned(), reached }), ..self }
    }

    /// A figure that says whether the others can be trusted.
    pub(super) fn of_ledger(self) -> Self {
        Self { ledger: true, summed: true, ..self }
    }

    /// Repeats are added up, not averaged.
    pub(super) fn summed(self) -> Self {
        Self { summed: true, ..self }
    }

    /// Whether it meets its target.
    pub(super) fn is_met(&self) -> bool {
        self.must.is_none_or(|must| must.is_met(self.ratio.unwrap_or(self.value)))
    }
}

/// A figure and its repeats.
#[derive(Debug)]
struct Series {
    /// The last one.
    figure: Figure,
    values: Vec<f64>,
    ratios: Vec<f64>,
}

impl Series {
    fn value(&self) -> f64 {
        if self.figure.summed { self.values.iter().sum() } else { stats::mean(&self.values) }
    }

    fn ratio(&self) -> Option<f64> {
        (!self.ratios.is_empty()).then(|| stats::mean(&self.ratios))
    }

    fn is_met(&self) -> bool {
        self.figure.must.is_none_or(|must| must.is_met(self.ratio().unwrap_or_else(|| self.value())))
    }

    /// `ok`, `below` or `above`, or nothing if there is no target. A figure of a machine that is not durable is not
    /// compared with a target for durable ones; the ledger applies everywhere.
    fn verdict(&self, durable: bool) -> &'static str {
        match self.figure.must {
            None => "",
            Some(_) if !durable && !self.figure.ledger => "not durable",
            Some(_) if self.is_met() => "ok",
            Some(_) if self.figure.ledger => "broken",
            Some(Must::AtMost(_)) => "above",
            Some(_) => "below",
        }
    }

    fn record(&self, durable: bool) -> Record {
        let f = &self.figure;
        Record {
            optimistic: f.mode.to_owned(),
            name: f.name.clone(),
            value: self.value(),
            unit: f.unit.to_owned(),
            better: f.better,
            values: self.values.clone(),
            interval: if f.summed { None } else { stats::interval(&self.values) },
            ratio_to_floor: self.ratio(),
            ratios: self.ratios.clone(),
            must: f.must,
            verdict: self.verdict(durable).to_owned(),
            detail: f.detail.clone(),
            curve: f.curve.clone(),
            distribution: f.distribution,
            generator: f.generator.clone(),
        }
    }
}

/// The results of one call.
#[derive(Debug, Default)]
pub(super) struct Report {
    postgres: Option<Postgres>,
    figures: Vec<Series>,
}

impl Report {
    pub(super) fn set_postgres(&mut self, postgres: Postgres) {
        self.postgres = Some(postgres);
    }

    /// Adds figures; one that already exists in its mode is a repeat.
    pub(super) fn add(&mut self, figures: Vec<Figure>) {
        for figure in figures {
            let same = |s: &&mut Series| (s.figure.mode, &s.figure.name) == (figure.mode, &figure.name);
            let (value, ratio) = (figure.value, figure.ratio);
            match self.figures.iter_mut().find(same) {
                Some(series) => {
                    series.values.push(value);
                    series.ratios.extend(ratio);
                    series.figure = figure;
                }
                None => {
                    let ratios = ratio.into_iter().collect();
                    self.figures.push(Series { figure, values: vec![value], ratios });
                }
            }
        }
    }

    /// The ledger shows neither a loss nor a repetition.
    pub(super) fn is_sound(&self) -> bool {
        self.figures.iter().filter(|s| s.figure.ledger).all(Series::is_met)
    }

    /// Durability is claimed only if it was observed.
    fn is_durable(&self) -> bool {
        self.postgres.as_ref().is_some_and(|p| p.not_durable.is_empty())
    }

    /// Puts everything into the document.
    pub(super) fn fill(&self, document: &mut Document) {
        let durable = self.is_durable();
        document.durable = durable;
        document.sound = self.is_sound();
        document.postgres.clone_from(&self.postgres);
        document.figures = self.figures.iter().map(|s| s.record(durable)).collect();
    }
}

/// What a reader must know before any figure.
pub(super) fn headline(document: &Document) -> String {
    let mut out = format!("{}\n", document.machine.text());
    // Writing to a string cannot fail.
    let _ = match &document.postgres {
        None => writeln!(out, "settings of PostgreSQL unknown (no --database-url): nothing here is called durable"),
        Some(p) if p.not_durable.is_empty() => writeln!(out, "{}: every run counted is durable", p.text()),
        Some(p) => writeln!(out, "{}: NOT DURABLE, {}", p.text(), p.not_durable.join(", ")),
    };
    if document.build == "debug" {
        let _ = writeln!(out, "DEBUG BUILD: THESE FIGURES SAY NOTHING ABOUT HELVE. Build with --release to measure.");
    }
    if let Some(noise) = document.machine.noise() {
        let _ = writeln!(out, "{noise}");
    }
    let _ = writeln!(
        out,
        "helve {}, begun {}, measured {} x {} s",
        document.helve, document.started_at, document.repeats, document.seconds
    );
    out
}

/// For a person.
pub(super) fn table(document: &Document) -> String {
    let mut out = headline(document);
    let (mut mode, mut said) = ("", None);
    for r in &document.figures {
        if r.optimistic != mode {
            mode = &r.optimistic;
            let _ = writeln!(out, "\noptimistic scheduling {mode:<30} {:>29} {:>8}  {:<9} ", "", "floor", "must");
        }
        let spread = r.interval.map(|i| format!(" ± {}", number(i.half()))).unwrap_or_default();
        let value = format!("{}{spread} {}", number(r.value), r.unit);
        let ratio = r.ratio_to_floor.map(|r| format!("{r:.2}x")).unwrap_or_default();
        let must = r.must.map(Must::text).unwrap_or_default();
        let detail = r.detail.as_deref().unwrap_or_default();
        let line = format!("{:<53} {value:>27} {ratio:>8}  {must:<9} {:<11} {detail}", r.name, r.verdict);
        let _ = writeln!(out, "{}", line.trim_end());
        // The figures of one measurement share it, so it is printed once, below the first.
        let limit = r.generator.as_ref().and_then(|g| g.limit.as_ref());
        if let Some(limit) = limit.filter(|limit| said != Some(*limit)) {
            let _ = writeln!(out, "    ^ {limit}");
        }
        said = limit;
    }
    out
}

/// Three significant digits, thousands separated.
pub(super) fn number(n: f64) -> String {
    match n.abs() {
        a if a >= 1_000.0 => {
            let digits = format!("{n:.0}");
            let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |d| ("-", d));
            let first = (digits.len() - 1) % 3 + 1;
            let mut out = format!("{sign}{}", &digits[..first]);
            for group in digits.as_bytes()[first..].chunks(3) {
                out.push(',');
                out.extend(group.iter().map(|b| char::from(*b)));
            }
            out
        }
        a if a >= 100.0 || n.fract() == 0.0 => format!("{n:.0}"),
        a if a >= 10.0 => format!("{n:.1}"),
        a if a < 0.1 => format!("{n:.3}"),
        _ => format!("{n:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::*;

    fn document(figures: Vec<Vec<Figure>>, off: &[&str]) -> Document {
        let mut report = Report::default();
        report.set_postgres(Postgres::of_test(off));
        figures.into_iter().for_each(|f| report.add(f));
        let mut document = Document::new("2026-11-24T00:00:00Z".to_owned(), Machine::of_test());
        report.fill(&mut document);
        document
    }

    #[test]
    fn numbers_for_people() {
        let cases = [(0.0, "0"), (0.0123, "0.012"), (0.314, "0.31"), (4.0, "4"), (12.34, "12.3"), (212.4, "212")];
        cases.into_iter().for_each(|(n, text)| assert_eq!(number(n), text));
        assert_eq!(number(12_345.6), "12,346");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(-1_234.0), "-1,234");
    }

    #[test]
    fn a_ratio_is_judged_before_the_value() {
        let figure = Figure::new("on", "start latency p50", 0.5, "ms").must(Must::AtMost(1.9));
        let verdict = |ratio, off| {
            let all = document(vec![vec![figure.clone().ratio(ratio)]], off);
            all.figures[0].verdict.clone()
        };
        assert_eq!(verdict(2.0, &[]), "above");
        assert_eq!(verdict(1.9, &[]), "ok");
        assert_eq!(verdict(1.9, &["fsync"]), "not durable");
    }

    #[test]
    fn what_is_not_durable_meets_no_target_and_says_why() {
        let figure = Figure::new("on", "throughput", 99_999.0, "runs/s").must(Must::AtLeast(1.0));
        let document = document(vec![vec![figure]], &["fsync"]);
        let table = table(&document);
        assert!(table.contains("NOT DURABLE, fsync is off"), "{table}");
        assert!(!table.contains(" ok"), "{table}");
        assert!(!document.durable);
    }

    #[test]
    fn a_debug_build_is_shouted_and_a_release_is_not() {
        let mut document = document(Vec::new(), &[]);
        document.build = "debug".to_owned();
        assert!(headline(&document).contains("DEBUG BUILD"));
        document.build = "release".to_owned();
        assert!(!headline(&document).contains("DEBUG"));
    }

    #[test]
    fn repeats_become_a_mean_with_an_interval_and_the_ledger_a_sum() {
        let one = |value, lost| {
            vec![
                Figure::new("on", "throughput", value, "runs/s"),
                Figure::new("on", "lost", lost, "runs").must(Must::AtMost(0.0)).of_ledger(),
            ]
        };
        let document = document(vec![one(90.0, 0.0), one(110.0, 0.0), one(100.0, 1.0)], &[]);
        let [rate, lost] = &document.figures[..] else { panic!("{:?}", document.figures) };
        assert_eq!((rate.value, rate.values.len()), (100.0, 3));
        assert!(rate.interval.unwrap().holds(90.0) && table(&document).contains("100 ± 24.8 runs/s"));
        assert_eq!((lost.value, lost.verdict.as_str(), lost.interval), (1.0, "broken", None));
        assert!(!document.sound);
    }

    #[test]
    fn only_the_ledger_decides_whether_a_report_is_sound() {
        let slow = Figure::new("on", "throughput", 1.0, "runs/s").must(Must::AtLeast(2.0));
        assert!(document(vec![vec![slow]], &[]).sound);
        let lost = Figure::new("on", "lost", 1.0, "runs").must(Must::AtMost(0.0)).of_ledger();
        assert!(!document(vec![vec![lost]], &[]).sound);
    }
}
