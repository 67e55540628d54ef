//! What a schema may be, what it lets through, and that no schema can keep the engine busy.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::*;

fn compile(schema: &Value) -> Result<()> {
    InputSchema::validate("/input_schema", schema)
}

fn check(schema: &Value, input: &str) -> Result<(), (String, String)> {
    let payload = Payload::trusted(Bytes::copy_from_slice(input.as_bytes()));
    compile(schema).unwrap();
    let input = Input { at: "/input", workflow: "w", payload: &payload };
    InputSchema::stored(schema).check(input, &Arc::default()).map_err(|error| {
        assert_eq!(error.code(), Code::SchemaMismatch);
        (error.pointer().unwrap().to_owned(), error.client_text())
    })
}

#[track_caller]
fn refused(schema: &Value, input: &str, pointer: &str, part: &str) {
    let (at, text) = check(schema, input).unwrap_err();
    let input: String = input.chars().take(100).collect();
    assert!(at == pointer && text.contains(part), "{schema} of {input}: {at} {text}");
}

#[test]
fn an_input_is_judged_and_the_fault_is_named() {
    let schema = json!({
        "type": "object",
        "properties": {
            "url": {"type": "string", "pattern": "^https://", "maxLength": 20},
            "size": {"$ref": "#/$defs/size"},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": true},
            "a/b": {"const": 1}
        },
        "required": ["url"],
        "additionalProperties": false,
        "$defs": {"size": {"type": "integer", "minimum": 1, "maximum": 10}}
    });
    assert_eq!(check(&schema, r#"{"url":"https://a","size":3.0,"tags":["a","b"],"a/b":1.0}"#), Ok(()));
    for (input, pointer, part) in [
        ("null", "/input", "object"),
        ("{}", "/input", r#"expected a property "url""#),
        (r#"{"url":"http://a"}"#, "/input/url", "expected text that matches"),
        (r#"{"url":"https://aaaaaaaaaaaaaaaaaaaaa"}"#, "/input/url", "longer than 20"),
        (r#"{"url":"https://a","size":11}"#, "/input/size", "10"),
        (r#"{"url":"https://a","size":1.5}"#, "/input/size", "integer"),
        (r#"{"url":"https://a","tags":["a","c"]}"#, "/input/tags/1", r#"expected one of ["a","b"]"#),
        (r#"{"url":"https://a","tags":["a","a"]}"#, "/input/tags", "unique"),
        (r#"{"url":"https://a","a/b":2}"#, "/input/a~1b", "expected 1"),
        (r#"{"url":"https://a","x":2}"#, "/input", "expected no property `x`"),
        (r#"{"url":"https://a","size":1e999}"#, "/input", "1.8e308"),
    ] {
        refused(&schema, input, pointer, part);
    }
}

#[test]
fn the_dialect_is_2020_12() {
    assert_eq!(check(&json!({"prefixItems": [{"type": "string"}], "items": false}), r#"["a"]"#), Ok(()));
    assert!(check(&json!({"prefixItems": [{"type": "string"}], "items": false}), r#"["a", 1]"#).is_err());
    let schema = json!({"allOf": [{"properties": {"a": true}}], "unevaluatedProperties": false});
    assert_eq!(check(&schema, r#"{"a":1}"#), Ok(()));
    refused(&schema, r#"{"b":1}"#, "/input", "`b`");
    assert_eq!(
        check(
            &json!({"$schema": walk_dialect(), "$id": "https://a/b", "if": {"type": "string"}, "then": {"maxLength": 1}}),
            "\"a\""
        ),
        Ok(())
    );
    let dynamic = json!({"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}, "type": "array"});
    assert_eq!(check(&dynamic, "[[],[[]]]"), Ok(()));
    refused(&dynamic, "[[],[1]]", "/input/1/0", "array");
    // A format is an annotation, as the dialect has it.
    assert_eq!(check(&json!({"format": "email"}), "\"x\""), Ok(()));
}

fn walk_dialect() -> &'static str {
    "https://json-schema.org/draft/2020-12/schema"
}

#[test]
fn what_is_no_usable_schema_is_refused_with_its_place() {
    let mut deep = json!({});
    for _ in 0..70 {
        deep = json!({"not": deep});
    }
    let many: Vec<Value> = (0..101).map(|i| json!({"pattern": format!("{i}")})).collect();
    for (schema, pointer, part) in [
        (json!(true), "", "JSON object"),
        (json!({"type": "word"}), "/type", "not a JSON Schema"),
        (json!({"properties": {"a": 7}}), "/properties/a", "not a JSON Schema"),
        (json!({"properties": {"a": {"$ref": "http://h/x"}}}), "/properties/a/$ref", "are not fetched"),
        (json!({"items": {"$ref": "other.json"}}), "/items/$ref", "are not fetched"),
        (json!({"$ref": "file:///etc/passwd"}), "/$ref", "are not fetched"),
        (json!({"$ref": 1}), "/$ref", "begins with `#`"),
        (json!({"not": {"$ref": "#/$defs/a"}}), "/not/$ref", "no schema of this document"),
        (json!({"allOf": [{"$ref": "#/x"}], "x": {}}), "/allOf/0/$ref", "no schema of this document"),
        (json!({"$ref": "#nowhere"}), "", "nowhere"),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "/$schema", "2020-12"),
        (json!({"$defs": {"a/b": {"$id": "x"}}}), "/$defs/a~1b/$id", "at the top"),
        (json!({"properties": {"a": {"pattern": "(?=a)"}}}), "/properties/a/pattern", "look-around"),
        (json!({"pattern": "(a"}), "/pattern", "regular expression"),
        (json!({"pattern": "((a{100}){100}){100}"}), "/pattern", "small"),
        (json!({"patternProperties": {"(a": true}}), "/patternProperties", "regular expression"),
        (json!({"allOf": many}), "", "at most 100 patterns"),
        (json!({"description": "x".repeat(70_000)}), "", "65536 bytes"),
        (deep, "", "64 levels"),
    ] {
        let error = compile(&schema).err().unwrap_or_else(|| panic!("{schema} compiles"));
        let (at, text) = (error.pointer().unwrap(), error.client_text());
        assert_eq!(error.code(), Code::InvalidField);
        assert!(at.starts_with(&format!("/input_schema{pointer}")) && text.contains(part), "{schema}: {at} {text}");
    }
    // Values are not schemas.
    compile(&json!({"const": {"$ref": "http://h/x"}, "properties": {"$ref": {"type": "string"}}})).unwrap();
}

/// A chain in which each link is visited twice from the one before.
fn doubling(links: usize, keyword: &str, last: Value) -> Value {
    let mut defs = Map::new();
    for i in 0..links {
        let next = json!({"$ref": format!("#/$defs/a{}", i + 1)});
        defs.insert(format!("a{i}"), json!({keyword: [next, next]}));
    }
    defs.insert(format!("a{links}"), last);
    json!({"$defs": defs, "$ref": "#/$defs/a0"})
}

fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn no_schema_keeps_the_engine_busy() {
    let long = format!("\"{}b\"", "a".repeat(500_000));
    let objects = format!("[{}]", vec![r#"{"a":[1,2,3]}"#; 20_000].join(","));
    let patterns: Vec<Value> = (0..100).map(|i| json!({"pattern": format!("(a|b|aa)+x{i}$")})).collect();
    let list = json!({"type": "array", "items": {"$ref": "#"}});
    let list_too = json!({"type": "array", "prefixItems": [{"$ref": "#"}]});
    let began = crate::clock::Clock::system().instant();
    let mut judged = 0;
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for last in [json!(true), json!(false), json!({}), json!({"type": "integer"}), json!({"type": "string"})] {
            for input in ["1", "[]", "{\"a\":1}"] {
                let _ = check(&doubling(60, keyword, last.clone()), input);
                judged += 1;
            }
        }
    }
    for (schema, input) in [
        (json!({"$ref": "#"}), "1".to_owned()),
        (json!({"not": {"$ref": "#"}}), "1".to_owned()),
        (json!({"allOf": [{"$ref": "#"}], "unevaluatedProperties": false}), "{\"a\":1}".to_owned()),
        (json!({"items": {"$ref": "#"}, "contains": {"$ref": "#"}}), nested(120)),
        (json!({"anyOf": [list, list_too, {"type": "string"}]}), nested(120)),
        (json!({"oneOf": [list, list_too, {"type": "integer"}]}), nested(120)),
        (
            json!({"anyOf": [{"items": {"$ref": "#"}}, {"prefixItems": [{"$ref": "#"}]}], "unevaluatedItems": {"$ref": "#"}}),
            nested(120),
        ),
        (json!({"pattern": "^(a+)+$"}), long.clone()),
        (json!({"not": {"anyOf": patterns}}), long),
        (json!({"uniqueItems": true}), objects),
        (json!({"enum": [nested(50)], "not": {"anyOf": vec![json!({"uniqueItems": false}); 500]}}), nested(100)),
    ] {
        let _ = check(&schema, &input);
        judged += 1;
    }
    assert_eq!(judged, 56);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_deep_chain_does_not_take_the_stack() {
    let mut defs = Map::new();
    for i in 0..1_000 {
        defs.insert(format!("a{i}"), json!({"not": {"not": {"$ref": format!("#/$defs/a{}", i + 1)}}}));
    }
    defs.insert("a1000".to_owned(), json!({"items": {"$ref": "#/$defs/a0"}}));
    let schema = json!({"$defs": defs, "$ref": "#/$defs/a0"});
    let (_, text) = check(&schema, &nested(100)).unwrap_err();
    assert!(text.contains("takes too long"), "{text}");
    assert_eq!(
        check(&json!({"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "integer"}]}), &nested(120)),
        Ok(())
    );
}

#[test]
fn a_large_ordinary_input_is_cheap_enough() {
    let numbers = format!("[{}]", (0..150_000).map(|i| i.to_string()).collect::<Vec<_>>().join(","));
    assert_eq!(check(&json!({"type": "array", "items": {"type": "integer", "minimum": 0}}), &numbers), Ok(()));
    let item = json!({"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}, "required": ["id"], "additionalProperties": false});
    let objects =
        format!("[{}]", (0..20_000).map(|i| format!(r#"{{"id":{i},"name":"n{i}"}}"#)).collect::<Vec<_>>().join(","));
    assert_eq!(check(&json!({"items": item, "uniqueItems": true}), &objects), Ok(()));
    let wrong = objects.replace("\"n19999\"", "7");
    refused(&json!({"items": item}), &wrong, "/input/19999/name", "string");
}

#[test]
fn a_pattern_of_thousands_of_states_is_charged_for_each_byte() {
    let began = crate::clock::Clock::system().instant();
    let text = "ab".repeat(500_000);
    let heavy = "[ab]*a[ab]{2000}c";
    for (schema, input) in [
        (json!({"pattern": heavy}), format!("\"{text}\"")),
        (json!({"not": {"pattern": heavy}}), format!("\"{text}\"")),
        (json!({"propertyNames": {"pattern": heavy}}), format!("{{\"{text}\":1}}")),
        (json!({"patternProperties": {heavy: true}}), format!("{{\"{text}\":1}}")),
        (
            json!({"properties": {"a": {"patternProperties": {heavy: true}}}, "unevaluatedProperties": false}),
            format!("{{\"a\":{{\"{text}\":1}}}}"),
        ),
    ] {
        let (_, why) = check(&schema, &input).unwrap_err();
        assert!(why.contains("takes too long"), "{schema}: {why}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    // A short text may have the same pattern, and a long one a light pattern.
    assert_eq!(check(&json!({"pattern": heavy}), &format!("\"{}c\"", "a".repeat(2_001))), Ok(()));
    assert_eq!(check(&json!({"pattern": r"^[\w.+-]+$"}), &format!("\"{text}\"")), Ok(()));
}

#[test]
fn only_a_check_that_is_sure_to_be_quick_is_done_at_once() {
    let quickly = |schema: &InputSchema, input: &str| {
        let payload = Payload::trusted(Bytes::copy_from_slice(input.as_bytes()));
        schema.check_quickly(Input { at: "/input", workflow: "w", payload: &payload }).map(|checked| checked.is_ok())
    };
    let schema = InputSchema::stored(&json!({"pattern": "[ab]*a[ab]{200}c"}));
    assert_eq!(quickly(&schema, "1"), None, "it is not compiled");
    let payload = Payload::null();
    schema.check(Input { at: "", workflow: "w", payload: &payload }, &Arc::default()).unwrap();
    assert_eq!(quickly(&schema, "1"), Some(true));
    assert_eq!(quickly(&schema, "\"ab\""), Some(false));
    assert_eq!(quickly(&schema, &format!("\"{}\"", "a".repeat(1_000))), None, "a thousand bytes, two hundred states");
    assert_eq!(quickly(&schema, &format!("[{}1]", "1,".repeat(10_000))), None, "a large input");
    schema.forget();
    assert_eq!(quickly(&schema, "1"), None);
}

#[test]
fn a_check_ends_when_nobody_waits_for_it() {
    let schema = InputSchema::stored(&doubling(40, "allOf", json!(true)));
    let payload = Payload::trusted(Bytes::from(format!("[{}1]", "1,".repeat(100_000))));
    let input = Input { at: "", workflow: "w", payload: &payload };
    let began = crate::clock::Clock::system().instant();
    let stop = Arc::new(AtomicBool::new(true));
    schema.check(input, &stop).unwrap_err();
    let left = began.elapsed();
    schema.check(input, &Arc::default()).unwrap_err();
    assert!(left * 3 < began.elapsed(), "{left:?} of {:?}", began.elapsed());
}
