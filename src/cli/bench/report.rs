//! Figures, what they must be, and how they are shown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::probe::Machine;

/// What a figure must be; the ratio to the floor is judged where there is one, else the value.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// One measured number.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    mode: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    ratio: Option<f64>,
    must: Option<Must>,
    detail: Option<String>,
    ledger: bool,
}

impl Figure {
    pub(super) fn new(mode: &'static str, name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { mode, name: name.into(), value, unit, ratio: None, must: None, detail: None, ledger: false }
    }

    /// Against the floor's p50 of the same row.
    pub(super) fn ratio(self, ratio: f64) -> Self {
        Self { ratio: Some(ratio), ..self }
    }

    pub(super) fn must(self, must: Must) -> Self {
        Self { must: Some(must), ..self }
    }

    pub(super) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// A figure that says whether the others can be believed.
    pub(super) fn of_ledger(self) -> Self {
        Self { ledger: true, ..self }
    }

    fn judged(&self) -> f64 {
        self.ratio.unwrap_or(self.value)
    }

    /// What it must be, it is.
    pub(super) fn is_met(&self) -> bool {
        self.must.is_none_or(|must| must.is_met(self.judged()))
    }

    /// `ok`, `below`, or nothing where nothing is demanded. A figure of a machine that is not durable is
    /// not measured against a target that is; the ledger holds everywhere.
    fn verdict(&self, durable: bool) -> &'static str {
        match self.must {
            None => "",
            Some(_) if !durable && !self.ledger => "not durable",
            Some(_) if self.is_met() => "ok",
            Some(_) if self.ledger => "broken",
            Some(_) => "below",
        }
    }
}

/// Everything of one call.
#[derive(Debug, Default)]
pub(super) struct Report {
    machine: Option<Machine>,
    figures: Vec<Figure>,
}

impl Report {
    pub(super) fn set_machine(&mut self, machine: Machine) {
        self.machine = Some(machine);
    }

    pub(super) fn add(&mut self, figures: Vec<Figure>) {
        self.figures.extend(figures);
    }

    /// The ledger is without a loss and without a repetition.
    pub(super) fn is_sound(&self) -> bool {
        self.figures.iter().filter(|f| f.ledger).all(Figure::is_met)
    }

    /// Durability is claimed only where it was seen.
    fn is_durable(&self) -> bool {
        self.machine.as_ref().is_some_and(|m| m.not_durable.is_empty())
    }

    fn headline(&self) -> String {
        let Some(machine) = &self.machine else {
            return "settings of PostgreSQL unknown (no --database-url): nothing here is called durable".to_owned();
        };
        let settings = machine.settings();
        if machine.not_durable.is_empty() {
            return format!("{settings}: every run counted is durable");
        }
        format!("{settings}: NOT DURABLE, {}", machine.not_durable.join(", "))
    }

    /// For a person.
    pub(super) fn table(&self) -> String {
        let durable = self.is_durable();
        let mut out = format!("{}\n", self.headline());
        let mut mode = "";
        for figure in &self.figures {
            if figure.mode != mode {
                mode = figure.mode;
                // Writing to a string cannot fail.
                let _ = writeln!(out, "\noptimistic scheduling {mode:<19} {:>22} {:>8}  {:<9} ", "", "floor", "must");
            }
            let value = format!("{} {}", number(figure.value), figure.unit);
            let ratio = figure.ratio.map(|r| format!("{r:.2}x")).unwrap_or_default();
            let must = figure.must.map(|must| match must {
                Must::AtMost(n) => format!("<= {}", number(n)),
                Must::AtLeast(n) => format!(">= {}", number(n)),
            });
            let line = format!(
                "{:<42} {value:>20} {ratio:>8}  {:<9} {:<11} {}",
                figure.name,
                must.unwrap_or_default(),
                figure.verdict(durable),
                figure.detail.as_deref().unwrap_or_default()
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out
    }

    /// For a program.
    pub(super) fn json(&self) -> Value {
        let durable = self.is_durable();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|f| {
                let must = f.must.map(|must| match must {
                    Must::AtMost(n) => json!({"at_most": n}),
                    Must::AtLeast(n) => json!({"at_least": n}),
                });
                json!({"optimistic": f.mode, "name": f.name, "value": f.value, "unit": f.unit,
                    "ratio_to_floor": f.ratio, "must": must, "verdict": f.verdict(durable), "detail": f.detail})
            })
            .collect();
        let version = env!("CARGO_PKG_VERSION");
        json!({"helve": version, "durable": durable, "machine": self.machine, "sound": self.is_sound(),
            "figures": figures})
    }
}

/// Three digits that mean something, thousands apart.
fn number(n: f64) -> String {
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
    use super::*;

    fn report(not_durable: &[&str]) -> Report {
        let mut report = Report::default();
        report.set_machine(Machine::of_test(not_durable));
        report
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
        let figure = Figure::new("on", "start latency p50", 0.5, "ms").ratio(2.0).must(Must::AtMost(1.9));
        assert_eq!(figure.verdict(true), "below");
        assert_eq!(figure.clone().ratio(1.9).verdict(true), "ok");
        assert_eq!(figure.verdict(false), "not durable");
    }

    #[test]
    fn what_is_not_durable_meets_no_target_and_says_why() {
        let mut report = report(&["fsync is off"]);
        report.add(vec![Figure::new("on", "throughput", 99_999.0, "runs/s").must(Must::AtLeast(1.0))]);
        let table = report.table();
        assert!(table.contains("NOT DURABLE, fsync is off"), "{table}");
        assert!(!table.contains(" ok"), "{table}");
        assert_eq!(report.json()["durable"], false);
    }

    #[test]
    fn only_the_ledger_decides_whether_a_report_is_sound() {
        let mut report = report(&[]);
        report.add(vec![Figure::new("on", "throughput", 1.0, "runs/s").must(Must::AtLeast(2.0))]);
        assert!(report.is_sound());
        report.add(vec![Figure::new("on", "lost", 1.0, "runs").must(Must::AtMost(0.0)).of_ledger()]);
        assert!(!report.is_sound());
        assert_eq!(report.json()["sound"], false);
    }
}
