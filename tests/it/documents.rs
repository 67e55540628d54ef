//! The documents say what the code says: links, names, codes, settings and frames.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use helve::config::{Http, Retention, Scheduling, Traces};
use helve_domain::duration;
use helve_domain::error::Code;
use helve_domain::limits::Limits;
use helve_postgres::Database;
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file below these folders with this ending, relative to the repository.
fn files(folders: &[&str], ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|f| root().join(f)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files(&["docs", "examples"], ".md");
    pages.extend(["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"].map(PathBuf::from));
    pages
}

/// What stands between back-ticks outside fenced blocks.
fn quoted(text: &str) -> Vec<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    prose.join(" ").split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The cells of a row of a table, without their back-ticks.
fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect()
}

/// The anchor of a heading, as the usual viewers make it.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(root().join(&file).exists(), "{}: {target} leads nowhere", page.display());
            assert!(
                anchor.is_empty() || anchors(&read(&file)).contains(anchor),
                "{}: {target}: no such heading",
                page.display()
            );
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}

#[test]
fn every_code_stands_in_the_table_of_errors_with_its_status() {
    // The table itself is private; its snapshot, which another test holds, is not.
    let snapshot = read("src/api/problem.rs");
    let page = read("docs/guide/errors.md");
    for code in Code::ALL.iter().map(|code| code.as_str()) {
        let of_code = |line: &&str| line.trim().len() == code.len() + 4 && line.trim().ends_with(&format!(" {code}"));
        let line = snapshot.lines().find(of_code).unwrap_or_else(|| panic!("no status of {code}"));
        let row = format!("| `{code}` | {} |", &line.trim()[..3]);
        assert!(page.contains(&row), "errors.md lacks the row `{row}`");
    }
}

/// The value of a setting as the page shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
        Value::Null => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Object(span) => {
            let part = |name: &str| span[name].as_u64().unwrap();
            duration::format(std::time::Duration::new(part("secs"), part("nanos").try_into().unwrap()))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn every_setting_stands_in_its_page_with_its_default() {
    let page = read("docs/guide/configuration.md");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    let row = |name: &str| {
        let found = rows.iter().find(|row| row[0] == name);
        found.unwrap_or_else(|| panic!("configuration.md lacks {name}"))
    };
    let settings = json!({
        "DATABASE": Database::at(""), "HTTP": Http::default(), "LIMIT": Limits::default(),
        "SCHEDULING": Scheduling::default(), "RETENTION": Retention::default(),
    });
    for (part, fields) in settings.as_object().unwrap() {
        for (field, value) in fields.as_object().unwrap() {
            let name = match (part.as_str(), field.as_str()) {
                ("DATABASE", "url") => continue,
                ("HTTP", "listen") => "HELVE_LISTEN".to_owned(),
                _ => format!("HELVE_{part}_{}", field.to_uppercase()),
            };
            assert_eq!(row(&name)[1], shown(value), "the default of {name}");
        }
    }
    // And every other variable that the command line reads; nothing that it does not.
    let read_by_cli: BTreeSet<String> =
        files(&["src/cli"], ".rs").iter().flat_map(|file| variables(&read(file))).collect();
    for name in &read_by_cli {
        row(name);
    }
    for row in rows.iter().filter(|row| row[0].starts_with("HELVE_")) {
        assert!(read_by_cli.contains(row[0]), "nothing reads {}", row[0]);
    }
}

#[test]
fn every_variable_of_opentelemetry_stands_in_its_page() {
    let (page, source) = (read("docs/guide/traces.md"), read("src/cli/traces.rs"));
    let table: Vec<_> = page.lines().filter(|line| line.starts_with("| `OTEL_")).collect();
    let in_page: BTreeSet<String> =
        table.iter().flat_map(|row| quoted(row.split(" | ").next().unwrap_or(row))).collect();
    let words = source.split('"').filter(|word| word.starts_with("OTEL_"));
    let read_by_cli = words.filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '_')).map(str::to_owned);
    assert_eq!(in_page, read_by_cli.collect());
    let defaults = Traces::default();
    for (name, value) in [
        ("OTEL_SERVICE_NAME", defaults.service_name),
        ("OTEL_BSP_MAX_QUEUE_SIZE", defaults.queue.to_string()),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", defaults.batch.to_string()),
        ("OTEL_BSP_SCHEDULE_DELAY", defaults.delay.as_millis().to_string()),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", defaults.timeout.as_millis().to_string()),
    ] {
        let row = table.iter().find(|row| row.contains(&format!("`{name}`"))).unwrap();
        assert_eq!(cells(row)[1], value, "the default of {name}");
    }
}

/// Variables of the environment that stand in a source file as text.
fn variables(source: &str) -> Vec<String> {
    let words = source.split('"').filter(|word| word.starts_with("HELVE_"));
    let name = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    words.filter(name).map(str::to_owned).collect()
}

#[test]
fn the_protocol_shows_every_frame_as_its_vector_and_every_close_code() {
    let page = read("docs/protocol.md");
    let shown: Vec<Value> = page
        .split("```json\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).expect("an example is JSON"))
        .collect();
    let vectors = files(&["openapi/worker/vectors"], ".json");
    assert_eq!(shown.len(), vectors.len());
    for file in &vectors {
        let vector: Value = serde_json::from_str(&read(file)).unwrap();
        assert!(shown.contains(&vector), "protocol.md shows {} otherwise", file.display());
    }
    let codes: Vec<String> = read("crates/domain/src/delivery.rs")
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("Self::")?.split_once(" => ")?.1.strip_suffix(',').map(str::to_owned)
        })
        .filter(|code| code.len() == 4 && code.parse::<u16>().is_ok())
        .collect();
    assert!(codes.len() >= 10, "{codes:?}");
    for code in codes {
        assert!(page.contains(&format!("\n| {code} |")), "protocol.md lacks the close code {code}");
    }
}

#[test]
fn every_test_and_file_that_is_named_exists() {
    let sources: String = files(&["src", "crates", "tests"], ".rs").iter().map(read).collect();
    let page = read("docs/guarantees.md");
    let tests: BTreeSet<_> = quoted(&page).into_iter().filter(|name| name.matches('_').count() >= 2).collect();
    let tests: Vec<_> = tests.iter().filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect();
    assert!(tests.len() > 40, "{}", tests.len());
    for test in tests.into_iter().filter(|name| *name != "full_page_writes" && *name != "run_history") {
        assert!(sources.contains(&format!("fn {test}(")), "guarantees.md names a test that is not there: {test}");
    }
    for page in ["ARCHITECTURE.md", "docs/guarantees.md"]
        .into_iter()
        .map(PathBuf::from)
        .chain(files(&["docs/decisions"], ".md"))
    {
        for name in quoted(&read(&page)).iter().filter(|name| name.ends_with(".rs") && !name.contains(['*', '<', ' ']))
        {
            // Named from the top, from `src`, or from the folder that is spoken of.
            let places = ["", "src", "src/sched", "crates/core/src", "src/frames", "tests/it/faults"];
            assert!(places.iter().any(|at| root().join(at).join(name).exists()), "{}: no {name}", page.display());
        }
    }
}

#[test]
fn the_side_by_side_server_is_set_as_the_private_one() {
    let ours = read("crates/postgres/src/cluster.rs");
    let ours = ours.split("fn settings(").nth(1).and_then(|rest| rest.split("if !durable").next()).unwrap();
    let theirs = read("benches/peers/harness/postgres.py");
    let mut settings = 0;
    for setting in ours.lines().filter_map(|line| line.trim().strip_prefix("(\"")) {
        let (name, value) = setting.split_once("\", ").unwrap();
        let line = theirs.lines().find(|line| line.trim().starts_with(&format!("\"{name}\": ")));
        let line = line.unwrap_or_else(|| panic!("postgres.py does not set {name}"));
        // What is computed from the machine's memory is computed there too.
        if let Some(text) = value.strip_suffix(".to_owned()),") {
            assert!(line.contains(&format!(": {text},")), "postgres.py has {line}, and not {text}");
        }
        settings += 1;
    }
    assert!(settings > 10, "{settings}");
    assert_eq!(theirs.lines().filter(|line| line.starts_with("        \"") && line.contains("\": ")).count(), settings);
}
