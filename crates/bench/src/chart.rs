//! Charts as SVG: lines over a logarithmic load, readable in light and in dark, without embedded fonts.

use std::fmt::Write as _;
use std::path::Path;

use helve_domain::error::Result;

use super::document::{Axis, Document, Record};
use super::report::number;
use super::{failure, real};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// The room around the plot: labels left and below, the legend on the right.
const LEFT: f64 = 74.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 56.0;

/// Colours with contrast on both backgrounds; the class of a line is its number.
const STYLE: &str = "\
svg{background:#fff;font-family:system-ui,sans-serif;font-size:12px}\
text{fill:#1f2937}.title{font-size:15px;font-weight:600}.note{fill:#6b7280}\
.ground{fill:#fff}.grid{stroke:#e5e7eb}.axis{stroke:#6b7280}\
.line{fill:none;stroke-width:2}.hollow{fill:#fff}\
.c0{stroke:#1d4ed8}.c1{stroke:#c2410c}.c2{stroke:#047857}.c3{stroke:#7e22ce}.c4{stroke:#be123c}.c5{stroke:#0f766e}\
.c0.dot{fill:#1d4ed8}.c1.dot{fill:#c2410c}.c2.dot{fill:#047857}.c3.dot{fill:#7e22ce}.c4.dot{fill:#be123c}\
.c5.dot{fill:#0f766e}\
@media(prefers-color-scheme:dark){svg{background:#111827}text{fill:#e5e7eb}.note{fill:#9ca3af}\
.ground{fill:#111827}.grid{stroke:#374151}.axis{stroke:#9ca3af}.hollow{fill:#111827}\
.c0{stroke:#60a5fa}.c1{stroke:#fb923c}.c2{stroke:#34d399}.c3{stroke:#c084fc}.c4{stroke:#fb7185}.c5{stroke:#2dd4bf}\
.c0.dot{fill:#60a5fa}.c1.dot{fill:#fb923c}.c2.dot{fill:#34d399}.c3.dot{fill:#c084fc}.c4.dot{fill:#fb7185}\
.c5.dot{fill:#2dd4bf}}";
const COLOURS: usize = 6;
const DASHES: [&str; 3] = ["", "7 4", "2 4"];

/// How an axis maps numbers to positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Starting at zero.
    Linear,
    Logarithmic,
}

/// One point of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// The interval that repeats give for the true value.
    pub(super) range: Option<(f64, f64)>,
    /// Drawn hollow: the load was not reached.
    pub(super) hollow: bool,
}

/// A chart, before it is drawn.
pub(super) struct Chart {
    pub(super) title: String,
    /// What a reader must know to trust it.
    pub(super) note: String,
    /// With their units.
    pub(super) x_label: String,
    pub(super) y_label: String,
    pub(super) x_scale: Scale,
    pub(super) y_scale: Scale,
    pub(super) lines: Vec<(String, Vec<Point>)>,
}

/// The numbers of one axis and their positions.
struct Ruler {
    scale: Scale,
    low: f64,
    high: f64,
    /// Positions of `low` and `high`.
    ends: (f64, f64),
    ticks: Vec<f64>,
}

impl Ruler {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, ends: (f64, f64)) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|v| v.is_finite() && (*v > 0.0 || scale == Scale::Linear)) {
            (least, most) = (least.min(value), most.max(value));
        }
        if most <= 0.0 {
            (least, most) = (1.0, 1.0);
        }
        match scale {
            Scale::Linear => {
                let step = step(most / 5.0);
                let high = (most / step).ceil() * step;
                let count = 0..=20_u32;
                let ticks = count.map(|n| f64::from(n) * step).filter(|t| *t <= high * 1.000_1).collect();
                Self { scale, low: 0.0, high, ends, ticks }
            }
            Scale::Logarithmic => {
                let powers = -6..=9_i32;
                let all: Vec<f64> = powers.flat_map(|p| [1.0, 2.0, 5.0].map(|m| m * 10_f64.powi(p))).collect();
                let low = all.iter().copied().rfind(|t| *t <= least).unwrap_or(least);
                let high = all.iter().copied().find(|t| *t >= most && *t > low).unwrap_or(most.max(low * 2.0));
                let ticks = all.into_iter().filter(|t| (low..=high).contains(t)).collect();
                Self { scale, low, high, ends, ticks }
            }
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.ends.0 + part.clamp(0.0, 1.0) * (self.ends.1 - self.ends.0)
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= least * 0.999).unwrap_or(power * 10.0)
}

/// Text escaped for XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Chart {
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let high = |p: &Point| p.range.map_or(p.y, |(_, high)| high.max(p.y));
        let x = Ruler::new(self.x_scale, points().map(|p| p.x), (LEFT, WIDTH - RIGHT));
        let y = Ruler::new(self.y_scale, points().flat_map(|p| [p.y, high(p)]), (HEIGHT - BOTTOM, TOP));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n<style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n",
            escape(&self.title),
            escape(&self.note)
        );
        text(&mut out, "title", (LEFT, 24.0), "start", &self.title);
        text(&mut out, "note", (LEFT, 44.0), "start", &self.note);
        self.axes(&mut out, &x, &y);
        for (n, (name, points)) in self.lines.iter().enumerate() {
            draw(&mut out, n, points, &x, &y);
            let at = TOP + 10.0 + 20.0 * real(n);
            let from = WIDTH - RIGHT + 14.0;
            stroke(&mut out, n, &format!("M{from} {at}H{}", from + 26.0));
            text(&mut out, "legend", (from + 32.0, at + 4.0), "start", name);
        }
        if points().any(|p| p.hollow) {
            let at = TOP + 14.0 + 20.0 * real(self.lines.len());
            text(&mut out, "note", (WIDTH - RIGHT + 14.0, at), "start", "hollow: load not reached");
        }
        out += "</svg>\n";
        out
    }

    fn axes(&self, out: &mut String, x: &Ruler, y: &Ruler) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in &x.ticks {
            let at = x.place(*tick);
            path(out, "grid", &format!("M{at:.1} {TOP}V{bottom}"));
            text(out, "tick", (at, bottom + 18.0), "middle", &number(*tick));
        }
        for tick in &y.ticks {
            let at = y.place(*tick);
            path(out, "grid", &format!("M{LEFT} {at:.1}H{right}"));
            text(out, "tick", (LEFT - 8.0, at + 4.0), "end", &number(*tick));
        }
        path(out, "axis", &format!("M{LEFT} {TOP}V{bottom}H{right}"));
        let middle = (LEFT + right) / 2.0;
        text(out, "label", (middle, HEIGHT - 14.0), "middle", &self.x_label);
        let middle = (TOP + bottom) / 2.0;
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<text class=\"label\" transform=\"translate(18 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escape(&self.y_label)
        );
    }
}

fn path(out: &mut String, class: &str, d: &str) {
    let _ = writeln!(out, "<path class=\"{class}\" fill=\"none\" d=\"{d}\"/>");
}

fn text(out: &mut String, class: &str, at: (f64, f64), anchor: &str, words: &str) {
    let (x, y, words) = (at.0, at.1, escape(words));
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// A line in its colour; once the colours are used up, lines differ by their dashes.
fn stroke(out: &mut String, n: usize, d: &str) {
    let dash = DASHES[n / 2 % DASHES.len()];
    let colour = n % COLOURS;
    let _ = writeln!(out, "<path class=\"line c{colour}\" stroke-dasharray=\"{dash}\" d=\"{d}\"/>");
}

fn draw(out: &mut String, n: usize, points: &[Point], x: &Ruler, y: &Ruler) {
    let colour = n % COLOURS;
    let places: Vec<_> = points.iter().map(|p| (x.place(p.x), y.place(p.y))).collect();
    let steps: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    if !steps.is_empty() {
        stroke(out, n, &format!("M{}", steps.join("L")));
    }
    for (point, (at_x, at_y)) in points.iter().zip(places) {
        if let Some((low, high)) = point.range {
            stroke(out, n, &format!("M{at_x:.1} {:.1}V{:.1}", y.place(low), y.place(high)));
        }
        let kind = if point.hollow { "hollow" } else { "dot" };
        let tip = escape(&format!("{}: {}", number(point.x), number(point.y)));
        let _ = writeln!(
            out,
            "<circle class=\"c{colour} {kind}\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3.5\" stroke-width=\"1.5\">\
             <title>{tip}</title></circle>"
        );
    }
}

/// The charts that can be drawn from the figures of a file; none without their rows.
pub(super) fn of(document: &Document) -> Vec<(&'static str, Chart)> {
    let durable = if document.durable { "every run durable" } else { "NOT DURABLE or unknown" };
    let build = if document.build == "debug" { ", DEBUG BUILD" } else { "" };
    let repeats =
        if document.repeats > 1 { format!(", bars: 95 % of {} repeats", document.repeats) } else { String::new() };
    let note = format!("helve {}, {} cores, {durable}{build}{repeats}", document.helve, document.machine.cores);
    let chart = |axis, title: &str, x: &str, y: &str, y_scale| {
        let lines = lines(&document.figures, axis);
        let (title, x_label, y_label) = (title.to_owned(), x.to_owned(), y.to_owned());
        Chart { title, note: note.clone(), x_label, y_label, x_scale: Scale::Logarithmic, y_scale, lines }
    };
    let rate = chart(
        Axis::Rate,
        "Latency over load: trigger to task at the worker",
        "offered load, triggers/s (open loop)",
        "latency from the intended time, ms",
        Scale::Logarithmic,
    );
    let clients = chart(
        Axis::Clients,
        "Throughput over clients: trigger to stored result",
        "clients, each with one run underway",
        "throughput, runs/s",
        Scale::Linear,
    );
    let all = [("latency-over-load.svg", rate), ("throughput-over-clients.svg", clients)];
    let with_soak = all.into_iter().chain(document.soak.iter().enumerate().map(|(n, soak)| {
        let name = if n == 0 { "soak-memory.svg" } else { "soak-memory-off.svg" };
        (name, soak.chart(&note))
    }));
    with_soak.filter(|(_, chart)| !chart.lines.is_empty()).collect()
}

fn lines(figures: &[Record], axis: Axis) -> Vec<(String, Vec<Point>)> {
    let mut lines: Vec<(String, Vec<Point>)> = Vec::new();
    for record in figures {
        let Some(curve) = record.curve.as_ref().filter(|curve| curve.axis == axis) else { continue };
        let name = format!("{}, optimistic {}", curve.line, record.optimistic);
        let range = record.interval.map(|i| (i.low, i.high));
        let point = Point { x: curve.x, y: record.value, range, hollow: !curve.reached };
        match lines.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    lines.iter_mut().for_each(|(_, points)| points.sort_by(|a, b| a.x.total_cmp(&b.x)));
    lines
}

/// Writes the charts below `dir`, which is created; returns the names of the files.
///
/// # Errors
/// If there is nothing to draw, or the directory cannot be written.
pub(super) fn write(document: &Document, dir: &Path) -> Result<Vec<String>> {
    let wrong = |err: std::io::Error| failure(format!("{} cannot be written: {err}", dir.display()));
    let charts = of(document);
    if charts.is_empty() {
        return Err(failure("there is nothing to draw: charts need the rows open-loop or throughput, or a soak"));
    }
    std::fs::create_dir_all(dir).map_err(wrong)?;
    for (name, chart) in &charts {
        std::fs::write(dir.join(name), chart.svg()).map_err(wrong)?;
    }
    Ok(charts.iter().map(|(name, _)| (*name).to_owned()).collect())
}

#[cfg(test)]
mod tests;
