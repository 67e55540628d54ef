//! `helve bench` as users run it: short, so that what it does is checked, not what it measures.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::helve;

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.0.join(name)).unwrap()).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bench(args: &[&str]) -> Output {
    helve().arg("bench").args(args).output().unwrap()
}

fn done(args: &[&str]) -> (String, String) {
    let out = bench(args);
    let (said, told) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(out.status.success(), "{args:?}: {}\n{said}\n{told}", out.status);
    (said, told)
}

fn value(document: &Value, mode: &str, name: &str) -> f64 {
    let all = document["figures"].as_array().unwrap();
    let found = all.iter().find(|f| f["optimistic"] == mode && f["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in mode {mode}: {document:#}"))["value"].as_f64().unwrap()
}

/// Of 200-byte runs nothing may cost less than its row, and nothing what a page full of them costs.
fn is_plausible(bytes: f64) -> bool {
    (100.0..20_000.0).contains(&bytes)
}

#[test]
fn the_rows_give_figures_a_file_and_charts_that_can_be_compared() {
    let dir = Dir::new("rows");
    let (file, charts) = (dir.file("a.json"), dir.file("charts"));
    let sizes = ["--seconds", "1", "--rates", "50,20000", "--clients", "1,4", "--repeat", "2", "--optimistic", "on"];
    let rows = ["--only", "start,open-loop,round-trip,throughput", "--json", &file, "--chart", &charts];
    let (said, told) = done(&[&sizes[..], &rows[..]].concat());
    assert!(told.contains("repeat 2 of 2") && told.contains("open loop, 20000/s"), "{told}");
    assert!(said.contains("every run counted is durable") && said.contains("DEBUG BUILD"), "{said}");
    assert!(said.contains("NOT REACHED"), "no debug build does 20,000/s: {said}");

    let all = dir.json("a.json");
    assert_eq!((&all["format"], &all["version"]), (&"helve-bench".into(), &1.into()));
    assert_eq!((&all["durable"], &all["sound"], &all["repeats"]), (&true.into(), &true.into(), &2.into()));
    assert_eq!((&all["build"], &all["postgres"]["settings"]["fsync"]), (&"debug".into(), &"on".into()));
    assert!(all["machine"]["cores"].as_u64().unwrap() > 0 && all["engine"]["scheduling"]["window"].is_u64());
    assert!(!all.to_string().contains("helve_"), "no token");
    let figures = all["figures"].as_array().unwrap();
    let named = |name: &str| figures.iter().find(|f| f["name"] == name).unwrap();
    let start = named("open loop 50/s: start latency p50");
    assert_eq!(start["values"].as_array().unwrap().len(), 2);
    assert!(start["interval"]["low"].is_f64() && start["ratio_to_floor"].is_f64() && start["generator"].is_object());
    assert_eq!(start["curve"]["reached"], true);
    let fast = named("open loop 20,000/s: start latency p50");
    assert_eq!(fast["curve"]["reached"], false);
    // The intended time counts: on average a request of an unreached rate has waited for long.
    assert!(fast["value"].as_f64().unwrap() > 10.0 * named("start latency p50")["value"].as_f64().unwrap());
    let wal = value(&all, "on", "WAL per run");
    assert!((500.0..4_000.0).contains(&wal), "{wal}");

    for (name, points) in [("latency-over-load.svg", 4), ("throughput-over-clients.svg", 2)] {
        let svg = std::fs::read_to_string(dir.0.join("charts").join(name)).unwrap();
        let parsed = roxmltree::Document::parse(&svg).unwrap();
        let drawn = parsed.descendants().filter(|n| n.tag_name().name() == "circle").count();
        assert_eq!(drawn, points, "{name}");
    }
    let again = dir.file("again");
    done(&["chart", &file, &again]);
    assert!(dir.0.join("again/latency-over-load.svg").exists());
    let (said, _) = done(&["compare", &file, &file, "--fail-over", "1%"]);
    assert!(said.contains("no difference shown") && said.contains("0 better, 0 worse"), "{said}");
    made_slower(&dir, all);
}

/// The same file with throughput halved: it is found, and the exit code says so.
fn made_slower(dir: &Dir, mut all: Value) {
    for figure in all["figures"].as_array_mut().unwrap() {
        if figure["name"] == "throughput, 4 clients" {
            figure["values"] = serde_json::json!([10.0, 10.1]);
        }
    }
    std::fs::write(dir.file("slower.json"), all.to_string()).unwrap();
    let out = bench(&["compare", &dir.file("slower.json"), &dir.file("a.json"), "--fail-over", "10"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(0), "more throughput is not worse: {said}");
    for figure in all["figures"].as_array_mut().unwrap() {
        if figure["name"] == "throughput, 4 clients" {
            figure["values"] = serde_json::json!([0.10, 0.11]);
        }
    }
    std::fs::write(dir.file("slowest.json"), all.to_string()).unwrap();
    let out = bench(&["compare", &dir.file("slower.json"), &dir.file("slowest.json"), "--fail-over", "10%"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(said.contains("WORSE by more than 10 %: throughput, 4 clients"), "{said}");
}

#[test]
fn costs_and_scale_are_counted_on_engines_of_their_own() {
    let dir = Dir::new("scale");
    let file = dir.file("a.json");
    let sizes = ["--seconds", "1", "--optimistic", "off", "--idle-seconds", "3", "--json", &file];
    // Fewer runs than these would drown in what an allocator keeps or gives back.
    let small = ["--sockets", "1,150", "--tenants", "1,60", "--held-runs", "20000"];
    let rows = ["--only", "statements,idle,sockets,memory,tenants"];
    done(&[&sizes[..], &small[..], &rows[..]].concat());
    let all = dir.json("a.json");
    let value = |name: &str| value(&all, "off", name);
    // Not optimistic: created, assigned and ended by a statement each, and housekeeping.
    let statements = value("statements per run, 1 client");
    assert!((2.0..5.0).contains(&statements), "{statements}");
    assert!(value("statements per run, 64 clients") < statements);
    for with in ["no worker", "a connected worker"] {
        let idle = value(&format!("statements a minute when idle, {with}"));
        // Of three seconds: the target is another test's, here only something sane must be counted.
        assert!((1.0..600.0).contains(&idle), "{with}: {idle}");
    }
    assert!(value("150 idle sockets: memory of the engine") > value("1 idle socket: memory of the engine") - 5.0);
    assert!(value("150 idle sockets: memory of each") < 1_024.0);
    assert!(is_plausible(value("memory of a queued run in the window")));
    assert!(is_plausible(value("memory of a running run")));
    assert!(is_plausible(value("disk of an open run")));
    assert!(value("60 tenants: memory of the engine") > 1.0);
    assert_eq!(all["sound"], true);
}

#[test]
fn events_come_to_workers_once_each_alone_and_in_bulk() {
    let dir = Dir::new("events");
    let file = dir.file("a.json");
    let rate = ["--event-rate", "60", "--event-bulks", "1,20", "--seconds", "2", "--json", &file];
    let (said, _) = done(&[&["--only", "events"], &rate[..]].concat());
    let all = dir.json("a.json");
    assert_eq!(all["sound"], true, "{said}");
    for mode in ["on", "off"] {
        // A second to warm up and two to measure, in both ways; a busy machine may miss a few.
        let accepted = value(&all, mode, "ledger: accepted");
        assert!((200.0..=360.0).contains(&accepted), "{said}");
        for way in ["alone", "in bulks of 20"] {
            let [p50, p99] =
                ["p50", "p99"].map(|p| value(&all, mode, &format!("60 events/s {way}: start latency {p}")));
            assert!(p50 > 0.0 && p50 <= p99, "{said}");
            assert!(value(&all, mode, &format!("60 events/s {way}: came to workers")) > 10.0, "{said}");
        }
    }
}

#[test]
fn replicas_work_together_and_for_each_other() {
    let dir = Dir::new("replicas");
    let file = dir.file("a.json");
    let sizes = ["--engines", "1,2", "--clients", "1,6,24", "--seconds", "1", "--optimistic", "on", "--json", &file];
    let (said, _) = done(&[&["--only", "replicas"], &sizes[..]].concat());
    let all = dir.json("a.json");
    assert_eq!(all["sound"], true, "{said}");
    let value = |name: &str| value(&all, "on", name);
    for engines in ["1 engine", "2 engines"] {
        for clients in [6, 24] {
            assert!(value(&format!("{engines}: throughput, {clients} clients")) > 10.0, "{said}");
        }
        assert!(value(&format!("{engines}: start latency at the owner, p50")) > 0.0, "{said}");
    }
    assert!(value("2 engines: throughput, 24 clients, to any engine") > 10.0, "{said}");
    assert!(value("2 engines: start latency through another engine, p99") > 0.0, "{said}");
    assert!(
        !said.contains("1 engine: start latency through another")
            && said.contains("engines, PostgreSQL and load share")
    );
}

#[test]
fn a_soak_reports_over_time() {
    let dir = Dir::new("soak");
    let (file, charts) = (dir.file("a.json"), dir.file("charts"));
    let (said, _) = done(&["--soak", "6s", "--soak-rate", "20", "--json", &file, "--chart", &charts]);
    assert!(said.contains("too short to judge") && said.matches(" runs/s  start p50").count() >= 5, "{said}");
    let all = dir.json("a.json");
    let samples = all["soak"][0]["samples"].as_array().unwrap();
    assert!(samples.len() >= 5);
    for sample in samples {
        assert!(sample["engine_mib"].as_f64().unwrap() > 1.0 && sample["open_run_mib"].is_f64(), "{sample}");
    }
    let accepted = value(&all, "on", "ledger: accepted");
    assert!((100.0..=140.0).contains(&accepted), "7 s of 20 a second: {accepted}");
    assert!(std::fs::read_to_string(dir.0.join("charts/soak-memory.svg")).unwrap().contains("minutes"));
}

#[test]
fn an_unsafe_server_is_not_called_durable() {
    let (said, _) = done(&["--only", "start", "--seconds", "1", "--optimistic", "on", "--pg-setting", "fsync=off"]);
    assert!(said.contains("NOT DURABLE, fsync is off") && said.contains("not durable"), "{said}");
    assert!(!said.contains("every run counted is durable"), "{said}");
}

#[test]
fn wrong_files_and_wrong_usage_end_differently() {
    let dir = Dir::new("wrong");
    std::fs::write(dir.file("other.json"), r#"{"modes": []}"#).unwrap();
    let (other, none) = (dir.file("other.json"), dir.file("none.json"));
    for (args, code, word) in [
        (vec!["compare", &other, &other], 1, "not a file of `helve bench --json`"),
        (vec!["compare", &none, &other], 1, "none.json"),
        (vec!["chart", &other, &none], 1, "not a file of"),
        (vec!["compare", &other], 2, "AFTER.json"),
        (vec!["--only", "start", "--chart", &none], 2, "none of them is asked for"),
        (vec!["--only", "memory", "--url", "http://h", "--token", "t"], 2, "leave --url out"),
        (vec!["--pg-setting", "Fsync=off"], 2, "not the name of a setting"),
        (vec!["--soak", "1s"], 2, "at least 6s"),
    ] {
        let out = bench(&args);
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(word) && out.stdout.is_empty(), "{args:?}: {told}");
    }
    let (said, _) = done(&["--list"]);
    assert!(said.contains("open-loop") && said.contains("not in this version"), "{said}");
}
