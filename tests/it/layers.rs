//! Rules about the code itself: who imports whom, how long a file is, what is written nowhere.

use std::path::{Path, PathBuf};

/// Usable from everywhere in the engine.
const BASE: &[&str] = &["helve_domain", "helve_supervisor", "config", "telemetry", "metrics", "failpoint", "share"];
/// Each module of the engine with what it may import besides itself and the base: other modules, and crates of this
/// workspace. What is not listed here fails.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    (
        "cli",
        &[
            "app",
            "api",
            "traces",
            "sched",
            "ops",
            "hub",
            "frames",
            "db",
            "helve_bench",
            "helve_client",
            "helve_postgres",
            "helve_terminal",
        ],
    ),
    ("app", &["api", "ws", "housekeeping", "forward", "sched", "traces", "ops", "hub", "db", "helve_postgres"]),
    ("api", &["housekeeping", "forward", "sched", "cluster", "live", "traces", "ops", "hub", "db", "helve_core"]),
    ("ws", &["worker", "forward", "frames", "sched", "cluster", "ops", "hub", "db"]),
    // What a worker says, whatever carries it, and how it is judged.
    ("worker", &["frames"]),
    // How it is written.
    ("frames", &[]),
    // Both entries pass on what another engine owns, and do not know each other.
    ("forward", &["cluster", "sched"]),
    ("sched", &["cluster", "live", "traces", "ops", "hub", "db", "helve_core", "helve_postgres"]),
    // They know no runs' rules: which engine has which shard, and who watches what.
    ("cluster", &["ops", "db", "helve_postgres"]),
    ("live", &["db"]),
    ("housekeeping", &["sched", "cluster", "ops", "db"]),
    ("ops", &["db"]),
    ("hub", &[]),
    ("db", &["helve_postgres"]),
    // The exporter is a client of the collector.
    ("traces", &["helve_client"]),
    ("config", &["helve_postgres"]),
    ("telemetry", &[]),
    ("metrics", &[]),
    ("failpoint", &[]),
    ("share", &[]),
];
/// Each crate beside the engine with the crates of this workspace that it may depend on. None knows the engine.
const CRATES: &[(&str, &[&str])] = &[
    ("bench", &["client", "domain", "postgres", "supervisor", "terminal"]),
    ("client", &["domain"]),
    ("core", &["domain"]),
    ("domain", &[]),
    ("postgres", &["domain"]),
    ("supervisor", &["domain"]),
    ("terminal", &["domain"]),
];
/// Words that stand in some places only: the word, where it may stand, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("axum", &["src/api", "src/ws", "src/app.rs", "src/dashboard.rs"], "HTTP belongs to the entries"),
    ("diesel_async", &["src/db"], "SQL belongs to db"),
    ("diesel::", &["src/db"], "SQL belongs to db"),
    ("tokio::spawn(", &["crates/supervisor"], "background work has an owner"),
    ("Instant::now(", &["crates/domain/src/clock.rs"], "time comes from the clock"),
    ("SystemTime::now(", &["crates/domain/src/clock.rs"], "time comes from the clock"),
    ("Utc::now(", &["crates/domain/src/clock.rs"], "time comes from the clock"),
];
/// Crates that are pure, and what they depend on in no way: the core is judged in seconds, and by a model checker.
const PURE: &[&str] = &["core", "domain"];
const NOT_PURE: &[&str] = &["tokio", "axum", "diesel", "hyper"];
const MAX_LINES: usize = 400;

struct Source {
    /// Relative to the repository.
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
        let folder = if stem.ends_with("mod") || stem.ends_with("lib") { stem.parent().unwrap() } else { &stem };
        let pieces = self.text.split("#[cfg(test)]\n").skip(1);
        let names = pieces.filter_map(|p| p.lines().next()?.split_once("mod ")?.1.strip_suffix(';'));
        names.map(|name| folder.join(name)).collect()
    }

    /// The engine's module that it belongs to; `None`: it is in another crate.
    fn module(&self) -> Option<&str> {
        let inner = self.path.strip_prefix("src").ok()?;
        Some(inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs"))
    }

    fn is_under(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join("src")]);
    folders.extend(CRATES.iter().map(|(name, _)| root.join("crates").join(name).join("src")));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(root).unwrap().to_owned(), text });
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
        let Some(module) = source.module() else { continue };
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
        let pure = PURE.iter().any(|name| source.path.starts_with(Path::new("crates").join(name)));
        if pure && code.contains("Clock::system") && !source.path.ends_with("clock.rs") {
            wrong.push(format!("{}: the machine's clock in a pure crate", source.path.display()));
        }
        if code.contains(".unwrap()") {
            wrong.push(format!("{}: `unwrap()` outside tests", source.path.display()));
        }
    }
    assert_none(&wrong);
}

#[test]
fn crates_depend_only_downwards() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let mut wrong = Vec::new();
    let mut there: Vec<_> = std::fs::read_dir(&crates).unwrap().map(|e| e.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, CRATES.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "every crate has its place");
    for (name, allowed) in CRATES {
        let manifest = std::fs::read_to_string(crates.join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        for used in dependencies.lines().take_while(|line| !line.starts_with('[')) {
            let used = used.split('.').next().unwrap();
            if PURE.contains(name) && NOT_PURE.iter().any(|word| used.starts_with(word)) {
                wrong.push(format!("{name}: `{used}` in a pure crate"));
            }
            let ours = used.strip_prefix("helve");
            if ours.is_some_and(|ours| !allowed.contains(&ours.trim_start_matches('-'))) {
                wrong.push(format!("the crate {name} may not depend on {used}"));
            }
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

/// First segments of all paths into this crate, `crate::a::b`, `crate::{a::b, c}`, `helve::a`, and the other crates
/// of the workspace that it names.
fn imports(code: &str) -> Vec<String> {
    let pieces = code.split("crate::").skip(1).chain(code.split("use helve::").skip(1));
    let used = code.split("helve_").skip(1).filter(|piece| piece[ident(piece).len()..].starts_with("::"));
    let crates = used.map(ident).filter(|name| CRATES.iter().any(|(known, _)| known == name));
    let crates = crates.map(|name| format!("helve_{name}"));
    pieces.flat_map(first_segments).map(str::to_owned).chain(crates).collect()
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
                crate::invariant!(x);\nlet x = crate::hub::outbox(helve_core::Lane::Create, helve_audit::edge);";
    assert_eq!(imports(code), ["db", "ops", "sched", "api", "hub", "helve_core"]);
    assert_eq!(imports("use helve::{cli, app::App};"), ["cli", "app"]);
}
