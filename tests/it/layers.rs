//! Rules about the code itself: who imports whom, how long a file is, what is written nowhere.

use std::path::{Path, PathBuf};

/// Usable from everywhere.
const BASE: &[&str] = &["id", "clock", "error", "config", "supervisor", "telemetry", "metrics", "failpoint", "share"];
/// Each module with what it may import besides itself and the base. What is not listed here fails.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("cli", &["app", "api", "client", "oracle", "traces", "sched", "ops", "hub", "db", "domain"]),
    ("app", &["api", "ws", "jobs", "forward", "sched", "traces", "ops", "hub", "db", "domain"]),
    ("api", &["jobs", "forward", "sched", "traces", "ops", "hub", "db", "domain"]),
    ("ws", &["forward", "sched", "ops", "hub", "db", "domain"]),
    // Both entries pass on what another engine owns, and do not know each other.
    ("forward", &["sched"]),
    ("sched", &["traces", "ops", "hub", "db", "domain"]),
    ("jobs", &["sched", "ops", "db", "domain"]),
    ("ops", &["db", "domain"]),
    ("hub", &["domain"]),
    ("db", &["domain"]),
    ("client", &["domain"]),
    // The exporter is a client of the collector.
    ("traces", &["client", "domain"]),
    ("oracle", &["client", "domain"]),
    ("domain", &[]),
    // The limits of what clients may send are a concept of the domain, and a part of the settings.
    ("config", &["domain"]),
    ("telemetry", &[]),
    ("metrics", &[]),
    ("supervisor", &[]),
    ("error", &[]),
    ("failpoint", &[]),
    ("share", &[]),
    ("clock", &[]),
    ("id", &[]),
];
/// Words that stand in some places only: the word, where it may stand, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("axum", &["api", "ws", "app.rs", "dashboard.rs"], "HTTP belongs to the entries"),
    ("diesel_async", &["db"], "SQL belongs to db"),
    ("diesel::", &["db"], "SQL belongs to db"),
    ("tokio::spawn(", &["supervisor.rs"], "background work has an owner"),
    ("Instant::now(", &["clock.rs"], "time comes from the clock"),
    ("SystemTime::now(", &["clock.rs"], "time comes from the clock"),
    ("Utc::now(", &["clock.rs"], "time comes from the clock"),
];
/// Words that the pure modules must not contain.
const NOT_PURE: &[&str] = &["tokio::", "axum", "diesel", "Clock::system"];
const PURE: &[&str] = &["domain", "sched/core"];
const MAX_LINES: usize = 400;

struct Source {
    /// Relative to `src`.
    path: PathBuf,
    /// The whole file.
    text: String,
}

impl Source {
    /// The code before the unit tests, which stand last in a file, without comment lines.
    fn code(&self) -> String {
        let mut code = Vec::new();
        let mut lines = self.text.lines().peekable();
        while let Some(line) = lines.next() {
            let tests = lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
            if line == "#[cfg(test)]" && tests {
                break;
            }
            if !line.trim_start().starts_with("//") {
                code.push(line);
            }
        }
        code.join("\n")
    }

    /// Files that this one includes for tests only: `#[cfg(test)]` before `mod name;`.
    fn test_files(&self) -> Vec<PathBuf> {
        let stem = self.path.with_extension("");
        let folder = if stem.ends_with("mod") { stem.parent().unwrap() } else { &stem };
        let pieces = self.text.split("#[cfg(test)]\n").skip(1);
        let names = pieces.filter_map(|p| p.lines().next()?.split_once("mod ")?.1.strip_suffix(';'));
        names.map(|name| folder.join(name)).collect()
    }

    fn module(&self) -> &str {
        self.path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs")
    }

    fn is_under(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), text });
            }
        }
    }
    assert!(found.len() > 20, "the sources are found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The sources without files that exist for unit tests only.
fn shipped() -> Vec<Source> {
    let mut all = sources();
    let tests: Vec<_> = all.iter().flat_map(Source::test_files).collect();
    all.retain(|s| !tests.iter().any(|test| s.path.starts_with(test) || s.path == test.with_extension("rs")));
    all
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn modules_import_only_downwards() {
    let mut wrong = Vec::new();
    for source in shipped() {
        let module = source.module();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: add the module `{module}` to the layers", source.path.display()));
            continue;
        };
        for used in imports(&source.code()) {
            if used != module && !BASE.contains(&used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: `{module}` may not import `{used}`", source.path.display()));
            }
        }
    }
    wrong.dedup();
    assert_none(&wrong);
}

#[test]
fn some_words_stand_in_one_place_only() {
    let mut wrong = Vec::new();
    for source in shipped() {
        let code = source.code();
        for (word, places, why) in ONLY_IN {
            if code.contains(word) && !source.is_under(places) {
                wrong.push(format!("{}: `{word}` ({why})", source.path.display()));
            }
        }
        for word in NOT_PURE.iter().filter(|w| source.is_under(PURE) && code.contains(**w)) {
            wrong.push(format!("{}: `{word}` in a pure module", source.path.display()));
        }
        if code.contains(".unwrap()") {
            wrong.push(format!("{}: `unwrap()` outside tests", source.path.display()));
        }
    }
    assert_none(&wrong);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        // The schema is generated.
        let generated = source.path.ends_with("db/schema.rs");
        if lines > MAX_LINES && !generated {
            wrong.push(format!("{}: {lines} lines, at most {MAX_LINES}: look for a cut", source.path.display()));
        }
        if !source.text.starts_with("//! ") && !generated {
            wrong.push(format!("{}: starts with one `//!` line that says what it is", source.path.display()));
        }
    }
    assert_none(&wrong);
}

/// First segments of all paths into this crate: `crate::a::b`, `crate::{a::b, c}`, `helve::a`.
fn imports(code: &str) -> Vec<String> {
    let pieces = code.split("crate::").skip(1).chain(code.split("use helve::").skip(1));
    pieces.flat_map(first_segments).map(str::to_owned).collect()
}

fn first_segments(piece: &str) -> Vec<&str> {
    let Some(list) = piece.strip_prefix('{') else {
        let name = ident(piece);
        // A macro of the crate stands at its root, wherever it is written.
        return if piece[name.len()..].starts_with('!') { Vec::new() } else { vec![name] };
    };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(ident(list[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|s| !s.is_empty());
    found
}

fn ident(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::db::Pool;\nuse crate::{ops::tokens, sched::{self, core::step}, api};\n\
                crate::invariant!(x);\nlet x = crate::hub::outbox();";
    assert_eq!(imports(code), ["db", "ops", "sched", "api", "hub"]);
    assert_eq!(imports("use helve::{cli, app::App};"), ["cli", "app"]);
}
