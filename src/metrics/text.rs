//! The text format that Prometheus reads.

use std::fmt::{Display, Write};

use super::Histogram;

/// What kind of number a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often a value lay below each bound.
    Histogram,
}

/// What the answer calls itself.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of families, each with its samples.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Begins a family. The samples that follow are its own.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.name = name;
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let (below, all) = histogram.cumulative();
        for (bound, count) in below {
            self.line("_bucket", labels, Some(&bound.to_string()), count);
        }
        self.line("_bucket", labels, Some("+Inf"), all);
        self.line("_sum", labels, None, histogram.sum());
        self.line("_count", labels, None, all);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        for (at, (name, value)) in all.enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{name}=\"{}\"", Escaped(value));
        }
        if !labels.is_empty() || bound.is_some() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// The whole page.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// The value of a label between quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let rows = Histogram::new(Unit::Rows);
        rows.record(2);
        let mut page = Page::default();
        page.family("a", Kind::Gauge, "One.").sample(&[], 1.5).sample(&[("x", "a\"b\\c\nd"), ("y", "")], 2);
        page.family("h", Kind::Histogram, "Many.").histogram(&[("lane", "create")], &rows);
        let text = page.into_text();
        assert!(
            text.starts_with("# HELP a One.\n# TYPE a gauge\na 1.5\na{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("h_bucket{lane=\"create\",le=\"1\"} 0\nh_bucket{lane=\"create\",le=\"2\"} 1\n"),
            "{text}"
        );
        let end = "h_bucket{lane=\"create\",le=\"+Inf\"} 1\nh_sum{lane=\"create\"} 2\nh_count{lane=\"create\"} 1\n";
        assert!(text.ends_with(end), "{text}");
    }
}
