//! What a run costs PostgreSQL, held to its limits: statements, commits, row changes and bytes of WAL.

use serde_json::Value;

use crate::support::helve;

#[path = "../../limits.rs"]
#[allow(dead_code, reason = "benches/counts measures the other figures")]
mod limits;

/// Figures of `helve bench --only counts` with the mode before them.
fn measured(document: &Value) -> Vec<(String, f64)> {
    let figures = document["figures"].as_array().unwrap().iter();
    let figures = figures.filter(|f| !f["name"].as_str().unwrap().starts_with("ledger"));
    let mode = |f: &Value| if f["optimistic"] == "on" { "optimistic" } else { "queued" };
    let name = |f: &Value| format!("{}, {}", mode(f), f["name"].as_str().unwrap());
    figures.map(|f| (name(f), f["value"].as_f64().unwrap())).collect()
}

#[test]
fn what_a_run_costs_the_database_is_within_its_limits() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("counts-{}.json", std::process::id()));
    let out = helve()
        // How long a commit takes decides how many meet in a batch: without fsync it depends least on the machine.
        .args(["bench", "--only", "counts", "--pg-setting", "fsync=off", "--json"])
        .arg(&file)
        .output()
        .unwrap();
    let (said, told) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}\n{said}\n{told}", out.status);
    let document: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    let measured = measured(&document);
    println!("{measured:#?}");
    limits::check(limits::DATABASE, &measured, 0.0).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn a_figure_outside_its_limit_is_named_with_what_to_do() {
    let name = limits::DATABASE[0].figure;
    let as_expected: Vec<_> = limits::DATABASE.iter().map(|l| (l.figure.to_owned(), l.expected)).collect();
    limits::check(limits::DATABASE, &as_expected, 0.0).unwrap();
    for (change, why) in [(1.5, "(+50.0 %)"), (0.5, "(-50.0 %)")] {
        let mut other = as_expected.clone();
        other[0].1 *= change;
        let wrong = limits::check(limits::DATABASE, &other, 0.0).unwrap_err();
        assert!(wrong.contains(name) && wrong.contains(why) && wrong.contains("tests/limits.rs"), "{wrong}");
        assert_eq!(wrong.lines().count(), 3, "{wrong}");
    }
    let wrong = limits::check(limits::DATABASE, &as_expected[1..], 0.0).unwrap_err();
    assert!(wrong.contains(name) && wrong.contains("not measured"), "{wrong}");
    let more = [as_expected, vec![("new".to_owned(), 1.0)]].concat();
    assert!(limits::check(limits::DATABASE, &more, 0.0).unwrap_err().contains("new: measured 1.000, has no limit"));
}
