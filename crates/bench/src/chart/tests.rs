//! Charts are XML, and contain what they should show.

use roxmltree::Node;

use super::super::document::{Better, Curve};
use super::super::machine::Machine;
use super::*;

fn figure(mode: &str, axis: Axis, x: f64, line: &str, values: &[f64]) -> Record {
    let mut record = Record::of_test(&format!("{line} at {x}"), "ms", Some(Better::Lower), values);
    record.optimistic = mode.to_owned();
    record.curve = Some(Curve { axis, x, line: line.to_owned(), reached: x < 10_000.0 });
    record
}

fn document() -> Document {
    let mut document = Document::new("2026-11-24T00:00:00Z".to_owned(), Machine::of_test());
    for mode in ["on", "off"] {
        for (n, rate) in [10_000.0, 100.0, 500.0, 2_000.0].into_iter().enumerate() {
            let n = real(n);
            document.figures.push(figure(mode, Axis::Rate, rate, "p50", &[0.4 + n, 0.5 + n]));
            document.figures.push(figure(mode, Axis::Rate, rate, "p99", &[2.0 + n]));
        }
    }
    for clients in [8.0, 64.0, 256.0] {
        document.figures.push(figure("on", Axis::Clients, clients, "runs/s", &[clients * 50.0]));
    }
    document.repeats = 2;
    document
}

fn count(svg: &str, wanted: impl Fn(&Node<'_, '_>) -> bool) -> usize {
    let parsed = roxmltree::Document::parse(svg).unwrap_or_else(|err| panic!("{err}\n{svg}"));
    parsed.descendants().filter(|node| node.is_element() && wanted(node)).count()
}

fn has(node: &Node<'_, '_>, tag: &str, class: &str) -> bool {
    node.has_tag_name(("http://www.w3.org/2000/svg", tag))
        && node.attribute("class").is_some_and(|all| all.split(' ').any(|c| c == class))
}

#[test]
fn every_point_is_drawn_and_labelled() {
    let document = document();
    let charts = of(&document);
    let [("latency-over-load.svg", latency), ("throughput-over-clients.svg", rate)] = &charts[..] else {
        panic!("{} charts", charts.len());
    };
    let svg = latency.svg();
    assert_eq!(count(&svg, |n| n.has_tag_name(("http://www.w3.org/2000/svg", "circle"))), 16);
    assert_eq!(count(&svg, |n| has(n, "circle", "hollow")), 4, "each line has one rate that was not reached");
    assert_eq!(count(&svg, |n| has(n, "text", "legend")), 4);
    for words in ["triggers/s", "intended time, ms", "p99, optimistic off", "hollow: load not reached", "10,000: 0.45"]
    {
        assert!(svg.contains(words), "{words}\n{svg}");
    }
    let svg = rate.svg();
    assert_eq!(count(&svg, |n| has(n, "circle", "dot")), 3);
    assert!(svg.contains("throughput, runs/s") && svg.contains("256: 12,800") && !svg.contains("hollow:"), "{svg}");
}

#[test]
fn lines_go_from_left_to_right_and_both_grounds_have_colours() {
    let found = lines(&document().figures, Axis::Rate);
    assert_eq!(found.len(), 4);
    for (_, points) in &found {
        assert_eq!(points.iter().map(|p| p.x).collect::<Vec<_>>(), [100.0, 500.0, 2_000.0, 10_000.0]);
    }
    let bars = found[0].1.iter().filter(|p| p.range.is_some()).count();
    assert_eq!(bars, 4, "repeats have intervals");
    assert!(STYLE.contains("prefers-color-scheme:dark"));
}

#[test]
fn everything_lies_inside_the_plot() {
    for values in [vec![0.0], vec![1e-9, 5e8], vec![f64::NAN, 3.0], vec![7.0, 7.0], Vec::new()] {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let ruler = Ruler::new(scale, values.iter().copied(), (10.0, 110.0));
            assert!(ruler.high > ruler.low && (2..=50).contains(&ruler.ticks.len()), "{values:?} {:?}", ruler.ticks);
            for value in values.iter().chain(&ruler.ticks).filter(|v| !v.is_nan()) {
                let place = ruler.place(*value);
                assert!((10.0..=110.0).contains(&place), "{value} of {values:?} at {place}");
            }
        }
    }
    let ruler = Ruler::new(Scale::Logarithmic, [1.0, 100.0].into_iter(), (0.0, 100.0));
    assert!((ruler.place(10.0) - 50.0).abs() < 1e-9);
    let down = Ruler::new(Scale::Linear, [90.0].into_iter(), (100.0, 0.0));
    assert_eq!((down.high, down.place(50.0), down.ticks.len()), (100.0, 50.0, 6));
}

#[test]
fn words_of_the_machine_cannot_break_the_file() {
    let chart = Chart {
        title: "a < b & \"c\"".to_owned(),
        note: "<script>".to_owned(),
        x_label: "x > y".to_owned(),
        y_label: "&amp;".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        lines: vec![("<line>".to_owned(), Vec::new())],
    };
    let svg = chart.svg();
    assert_eq!(count(&svg, |n| n.has_tag_name("script") || n.tag_name().name() == "line"), 0);
    let parsed = roxmltree::Document::parse(&svg).unwrap();
    let title = parsed.descendants().find(|n| n.tag_name().name() == "title").unwrap();
    assert_eq!(title.text(), Some("a < b & \"c\""));
}

#[test]
fn nothing_to_draw_is_an_error_and_leaves_no_directory() {
    let dir = std::env::temp_dir().join(format!("helve-charts-{}", std::process::id()));
    let mut document = document();
    document.figures.clear();
    assert!(write(&document, &dir).is_err() && !dir.exists());
}
