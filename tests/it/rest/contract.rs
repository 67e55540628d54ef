//! `openapi/openapi.json` is what the code generates, and what client generators can read.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

fn generated() -> String {
    String::from_utf8(helve::api::openapi_text().to_vec()).unwrap()
}

fn document() -> Value {
    serde_json::from_str(&generated()).unwrap()
}

/// Every operation: path, method, and what the document says of it.
pub(super) fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, op)| (path.clone(), method.to_uppercase(), op.clone()))
    });
    operations.collect()
}

#[test]
fn the_committed_document_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json");
    if std::env::var_os("HELVE_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, generated()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated(), "openapi/openapi.json is old: run the tests with HELVE_UPDATE=1 and commit it");
}

#[test]
fn every_operation_is_described_for_generators() {
    let mut ids = BTreeSet::new();
    for (path, method, op) in operations() {
        let at = format!("{method} {path}");
        let id = op["operationId"].as_str().unwrap_or_else(|| panic!("{at} has no operationId"));
        assert!(ids.insert(id.to_owned()), "{id} stands there twice");
        let camel = id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(camel, "{id} is not camelCase");
        assert_eq!(op["tags"].as_array().map(Vec::len), Some(1), "{at}");
        assert!(op["summary"].as_str().is_some_and(|s| !s.is_empty()), "{at} has no summary");
        let responses = op["responses"].as_object().unwrap();
        assert!(responses.contains_key("default"), "{at}");
        for (status, response) in responses {
            let described = response["description"].as_str().is_some_and(|d| !d.is_empty());
            assert!(described, "{at}: {status} has no description");
            assert!(!status.contains('X'), "{at}: generators do not read {status}");
        }
        let problem = serde_json::json!({"schema": {"$ref": "#/components/schemas/Problem"}});
        for (status, response) in responses.iter().filter(|(s, _)| *s == "default" || s.as_str() >= "400") {
            assert_eq!(response["content"], serde_json::json!({"application/problem+json": problem}), "{at}: {status}");
        }
        for status in ["413", "415"] {
            let body = op.get("requestBody").is_some();
            assert_eq!(responses.contains_key(status), body, "{at}: {status} is what becomes of some bodies");
        }
        let tenant = path.starts_with("/v1/");
        let open = op["security"] == serde_json::json!([{}]);
        assert_eq!(tenant, !open, "{at}: only what is under /v1 needs a token");
        assert_eq!(tenant, responses.contains_key("401"), "{at}");
        for parameter in op["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].as_str().is_some_and(|d| !d.is_empty()), "{at}: {parameter}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_described() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                    found.insert(target.to_owned());
                }
                map.values().for_each(|v| references(v, found));
            }
            Value::Array(list) => list.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for target in &found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "{name} is not used");
        let global = ["Blob", "Error", "Event", "Response", "Request", "Date", "Map", "Object"];
        assert!(!global.contains(&name.as_str()), "{name} collides with a name of some language");
        if schema["type"] == "object" {
            assert!(schema["description"].as_str().is_some_and(|d| !d.is_empty()), "{name} has no description");
        }
    }
}

#[test]
fn what_a_response_always_has_is_required_there() {
    let document = document();
    let run = &document["components"]["schemas"]["Run"];
    let required: BTreeSet<_> = run["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for (name, property) in run["properties"].as_object().unwrap() {
        assert_eq!(
            required.contains(name.as_str()),
            !["deduplicated", "last_loss", "progress"].contains(&name.as_str()),
            "{name}: {property}"
        );
    }
    let nullable = |name: &str| run["properties"][name].to_string().contains("null");
    for name in ["output", "error", "worker", "event", "run_at", "started_at", "finished_at"] {
        assert!(nullable(name) || name == "output", "{name}");
    }
    assert!(!nullable("created_at"));
}

/// A value can fit one member of `allOf` and never the other: a described field beside an inlined enum becomes that, and
/// no client could send it.
#[test]
fn no_schema_is_made_of_several_at_once() {
    fn look(at: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                assert!(!fields.contains_key("allOf"), "{at} has `allOf`: refer to the schema instead of inlining it");
                fields.iter().for_each(|(name, field)| look(&format!("{at}/{name}"), field));
            }
            Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| look(&format!("{at}/{i}"), item)),
            _ => {}
        }
    }
    look("", &document());
}
