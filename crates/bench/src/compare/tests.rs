//! Comparisons of invented files.

use super::super::machine::{Machine, Postgres};
use super::*;

fn file(figures: Vec<Record>) -> Document {
    let mut document = Document::new("2026-11-24T00:00:00Z".to_owned(), Machine::of_test());
    (document.sound, document.durable) = (true, true);
    document.postgres = Some(Postgres::of_test(&[]));
    document.figures = figures;
    document
}

fn latency(values: &[f64]) -> Record {
    Record::of_test("start latency p50", "ms", Some(Better::Lower), values)
}

fn rate(values: &[f64]) -> Record {
    Record::of_test("throughput", "runs/s", Some(Better::Higher), values)
}

fn verdict(before: Record, after: Record) -> (Verdict, f64) {
    let (before, after) = (file(vec![before]), file(vec![after]));
    let found = Comparison::new(&before, &after, false);
    (found.changes[0].verdict, found.changes[0].worse_by())
}

#[test]
fn the_direction_of_the_figure_decides_what_is_worse() {
    let (low, high) = ([1.0, 1.01, 0.99], [1.5, 1.51, 1.49]);
    let (found, by) = verdict(latency(&low), latency(&high));
    assert!(found == Verdict::Worse && (by - 50.0).abs() < 0.1, "{found:?} {by}");
    assert_eq!(verdict(rate(&low), rate(&high)).0, Verdict::Better);
    assert_eq!(verdict(latency(&high), latency(&low)), (Verdict::Better, 0.0));
    assert_eq!(verdict(rate(&high), rate(&low)).0, Verdict::Worse);
    let share = |values: &[f64]| Record::of_test("share", "%", None, values);
    assert_eq!(verdict(share(&low), share(&high)), (Verdict::Differs, 0.0));
}

#[test]
fn noise_hides_a_difference_and_is_never_held_against_it() {
    // 20 % apart on average, and far more among themselves.
    let (found, by) = verdict(latency(&[0.5, 1.5, 1.0]), latency(&[0.7, 1.9, 1.0]));
    assert_eq!((found, by), (Verdict::NoneShown, 0.0));
    let before = file(vec![latency(&[0.5, 1.5, 1.0])]);
    let after = file(vec![latency(&[0.7, 1.9, 1.0])]);
    let found = Comparison::new(&before, &after, false);
    assert!(found.text().contains("no difference shown") && found.over(5.0).count() == 0, "{}", found.text());
}

#[test]
fn what_was_measured_once_says_so_and_is_judged_by_itself() {
    let (before, after) = (file(vec![latency(&[1.0])]), file(vec![latency(&[1.2])]));
    let found = Comparison::new(&before, &after, false);
    assert!(found.text().contains("measured once: noise unknown"), "{}", found.text());
    assert_eq!((found.over(10.0).count(), found.over(30.0).count()), (1, 0));
}

#[test]
fn ratios_take_a_faster_disk_out() {
    let with = |values: &[f64], ratios: &[f64]| Record { ratios: ratios.to_vec(), ..latency(values) };
    let before = file(vec![with(&[1.0, 1.01, 0.99], &[2.0, 2.01, 1.99])]);
    let after = file(vec![with(&[1.5, 1.51, 1.49], &[2.0, 2.02, 1.98])]);
    let by = |ratios| Comparison::new(&before, &after, ratios).changes[0].verdict;
    assert_eq!((by(false), by(true)), (Verdict::Worse, Verdict::NoneShown));
    let text = Comparison::new(&before, &after, true).text();
    assert!(text.contains("x floor"), "{text}");
}

#[test]
fn zero_before_is_no_division() {
    assert_eq!(verdict(latency(&[0.0, 0.0]), latency(&[0.0, 0.0])), (Verdict::NoneShown, 0.0));
    let (found, by) = verdict(latency(&[0.0, 0.0]), latency(&[1.0, 1.0]));
    assert!(found == Verdict::Worse && by.is_infinite());
}

#[test]
fn what_else_changed_is_told() {
    let before = file(vec![latency(&[1.0]), rate(&[5.0])]);
    let mut after = file(vec![latency(&[1.0])]);
    after.machine.cores = 8;
    after.build = "other".to_owned();
    after.sound = false;
    (after.durable, after.postgres) = (false, Some(Postgres::of_test(&["fsync"])));
    let found = Comparison::new(&before, &after, false);
    for word in ["the machines differ", "the builds differ", "fsync differs: on and off", "durable", "exactly once"] {
        assert!(found.warnings.iter().any(|w| w.contains(word)), "{word}: {:?}", found.warnings);
    }
    assert_eq!(found.missing, ["only before: throughput"]);
    assert!(Comparison::new(&before, &before, false).warnings.is_empty());
}

#[test]
fn percentages() {
    assert_eq!((percent("10%"), percent("2.5"), percent("0")), (Ok(10.0), Ok(2.5), Ok(0.0)));
    for wrong in ["", "%", "-1", "ten", "NaN", "1001"] {
        assert!(percent(wrong).is_err(), "{wrong}");
    }
}
