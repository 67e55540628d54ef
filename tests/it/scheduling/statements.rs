//! Every statement that stands in a file is prepared by a real server, with the types that the code binds, and its
//! plan is looked at: what grows is never read from end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

use crate::support::{fresh_database, sql};

/// Tables that grow with what tenants do.
const GROWS: [&str; 8] =
    ["open_run", "run_history", "event", "payload", "run_transition", "run_log", "idempotency", "job_item"];

/// A statement as the code declares it.
struct Declared {
    files: Vec<PathBuf>,
    /// The PostgreSQL type of each `$n`.
    types: BTreeMap<usize, String>,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/db"))
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files(&entry, extension, found);
        } else if entry.extension().is_some_and(|e| e == extension) {
            found.push(entry);
        }
    }
}

/// `Array<Nullable<Text>>` is `text[]`.
fn pg_type(sql_type: &str) -> String {
    let inner = |outer: &str| sql_type.strip_prefix(outer)?.strip_suffix('>').map(str::to_owned);
    if let Some(of) = inner("Array<") {
        return format!("{}[]", pg_type(&of));
    }
    if let Some(of) = inner("Nullable<") {
        return pg_type(&of);
    }
    let name = match sql_type.rsplit("::").next().unwrap() {
        "SqlUuid" => "uuid",
        "Text" => "text",
        "BigInt" => "bigint",
        "Integer" => "integer",
        "SmallInt" => "smallint",
        "Timestamptz" => "timestamptz",
        "Binary" => "bytea",
        "Bool" => "boolean",
        "Double" => "double precision",
        other => panic!("which type of PostgreSQL is {other}?"),
    };
    name.to_owned()
}

/// What `statement! { .. Name("file", ..) { "1" => field: Rust as Sql, .. } }` says.
fn declared(source: &Path) -> Vec<Declared> {
    let text = std::fs::read_to_string(source).unwrap();
    let blocks = text.split("\nstatement! {").skip(1).map(|rest| rest.split("\n}\n").next().unwrap());
    let of_block = |block: &str| {
        let lines: Vec<&str> = block.lines().map(str::trim).collect();
        let head = lines.iter().find(|line| line.contains(".sql\"")).unwrap();
        let quoted = head.split('"').skip(1).step_by(2);
        let files = quoted.map(|file| source.parent().unwrap().join(file)).collect();
        let binds = lines.iter().filter_map(|line| line.strip_prefix('"')?.split_once("\" => "));
        let types = binds.map(|(n, bind)| {
            let sql_type = bind.rsplit_once(" as ").unwrap().1.trim_end_matches(',');
            (n.parse().unwrap(), pg_type(sql_type))
        });
        Declared { files, types: types.collect() }
    };
    blocks.map(of_block).collect()
}

fn nodes<'a>(plan: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(plan);
    plan["Plans"].as_array().into_iter().flatten().for_each(|child| nodes(child, found));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_in_a_file_prepares_and_reads_no_growing_table_from_end_to_end() {
    let mut sources = Vec::new();
    files(root(), "rs", &mut sources);
    let all: Vec<Declared> = sources.iter().flat_map(|source| declared(source)).collect();
    assert!(all.len() > 50, "{} statements were found", all.len());
    let client = sql(&fresh_database().await).await;
    // With empty tables the planner has no reason to use an index: what is left is what no index can serve.
    let pin = "set enable_seqscan = off; set enable_mergejoin = off; set enable_hashjoin = off; \
        set plan_cache_mode = force_generic_plan";
    client.batch_execute(pin).await.unwrap();
    for (n, statement) in all.iter().enumerate() {
        let texts = statement.files.iter().map(|file| std::fs::read_to_string(file).unwrap());
        let (text, file) = (texts.collect::<String>(), statement.files.last().unwrap().display().to_string());
        let types: Vec<&str> = statement.types.values().map(String::as_str).collect();
        assert!(statement.types.keys().copied().eq(1..=types.len()), "{file}: the binds are $1 to ${}", types.len());
        let list = if types.is_empty() { String::new() } else { format!("({})", types.join(", ")) };
        let prepare = format!("prepare s{n}{list} as {text}");
        client.batch_execute(&prepare).await.unwrap_or_else(|e| panic!("{file}: {e:?}"));
        let nulls =
            if types.is_empty() { String::new() } else { format!("({})", vec!["null"; types.len()].join(", ")) };
        let explain = format!("explain (format json) execute s{n}{nulls}");
        let rows = client.simple_query(&explain).await.unwrap_or_else(|e| panic!("{file}: {e:?}"));
        let lines = rows.iter().filter_map(|row| match row {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let plan: Value = serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        let mut found = Vec::new();
        nodes(&plan[0]["Plan"], &mut found);
        for scan in found.iter().filter(|node| reads_all(node)) {
            let table = scan["Relation Name"].as_str().unwrap();
            let grows = GROWS.iter().any(|name| table == *name || table.starts_with(&format!("{name}_2")));
            assert!(!grows, "{file} reads all of {table}: {plan}");
        }
    }
}

/// A scan of a table, or of an index without a place in it to begin at.
fn reads_all(node: &Value) -> bool {
    match node["Node Type"].as_str().unwrap() {
        "Seq Scan" => true,
        "Index Scan" | "Index Only Scan" => node["Index Cond"].is_null(),
        _ => false,
    }
}

#[test]
fn every_file_of_sql_is_used() {
    let mut sources = Vec::new();
    files(root(), "rs", &mut sources);
    let code: String = sources.iter().map(|source| std::fs::read_to_string(source).unwrap()).collect();
    let mut texts = Vec::new();
    files(&root().join("sql"), "sql", &mut texts);
    let unused: BTreeSet<String> = texts
        .iter()
        .map(|file| file.strip_prefix(root()).unwrap().display().to_string())
        .filter(|file| !code.contains(&format!("{file}\"")))
        .collect();
    assert!(unused.is_empty(), "nothing reads {unused:?}");
}
