//! What a definition may say, and what it compiles to.

use super::*;

fn parse(text: &str) -> Result<WorkflowDefinition, String> {
    let definition: WorkflowDefinition = serde_json::from_str(text).map_err(|e| e.to_string())?;
    definition.check("", &Limits::default()).map_err(|e| e.to_string())?;
    Ok(definition)
}

#[test]
fn the_documented_example_compiles() {
    let text =
        r#"{"tasks":[{"name":"resize","action":"resize","retries":3,"execution_timeout":"30s"}],"events":["image.*"]}"#;
    let spec = parse(text).unwrap().compile("resize", 1).unwrap();
    assert_eq!((&*spec.action, spec.retry.count, spec.slot_cost), ("resize", 3, 1));
    assert_eq!(spec.execution_timeout, Duration::from_secs(30));
    assert_eq!(spec.priority, Priority::DEFAULT);
}

#[test]
fn a_policy_keeps_what_it_says_and_fills_in_the_rest() {
    let text = r#"{"tasks":[{"name":"a","retries":{"count":2,"base":"5s","rules":[{"codes":["x"],"retry":false}]},"slots":{"gpu":2}}]}"#;
    let spec = parse(text).unwrap().compile("w", 7).unwrap();
    assert_eq!((spec.retry.base, spec.retry.factor), (Duration::from_secs(5), 2.0));
    assert!(!spec.retry.rules[0].retry);
    assert_eq!((&*spec.slot_kind, spec.slot_cost, spec.version), ("gpu", 2, 7));
}

#[test]
fn a_first_wait_is_never_cut_by_a_cap_that_nobody_gave() {
    let caps = [
        (r#"{"count":1}"#, 300),
        (r#"{"count":1,"base":"1h"}"#, 3_600),
        (r#"{"count":1,"rules":[{"codes":["x"],"base":"2h"}]}"#, 7_200),
        (r#"{"count":1,"base":"1h","cap":"90m"}"#, 5_400),
    ];
    for (retries, cap) in caps {
        let text = format!(r#"{{"tasks":[{{"name":"a","retries":{retries}}}]}}"#);
        assert_eq!(parse(&text).unwrap().compile("w", 1).unwrap().retry.cap, Duration::from_secs(cap), "{retries}");
    }
}

#[test]
fn wrong_definitions_name_the_field() {
    for (text, part) in [
        (r#"{"tasks":[]}"#, "exactly one task"),
        (r#"{"tasks":[{"name":"a"},{"name":"b"}]}"#, "exactly one task"),
        (r#"{"tasks":[{"name":""}]}"#, "a name has 1 to 255 bytes"),
        (r#"{"tasks":[{"name":"a","retrys":3}]}"#, "unknown field `retrys`"),
        (r#"{"tasks":[{"name":"a","retries":10001}]}"#, "at most 10000 retries"),
        (r#"{"tasks":[{"name":"a","retries":-1}]}"#, "expected 0 to 10000 retries"),
        (r#"{"tasks":[{"name":"a","retries":{"count":-1}}]}"#, "expected 0 to 10000 retries"),
        (r#"{"tasks":[{"name":"a","retries":{"count":1,"base":"2m","cap":"1m"}}]}"#, "`cap` is 1m"),
        (
            r#"{"tasks":[{"name":"a","retries":{"count":1,"cap":"1m","rules":[{"codes":["x"],"base":"2m"}]}}]}"#,
            "`cap` is 1m",
        ),
        (r#"{"tasks":[{"name":"a","retries":{"count":1,"factor":0.5}}]}"#, "a factor is 1 to 100"),
        (r#"{"tasks":[{"name":"a","retries":{"base":"1s"}}]}"#, "missing field `count`"),
        (r#"{"tasks":[{"name":"a","execution_timeout":"soon"}]}"#, "a number of seconds, or text"),
        (r#"{"tasks":[{"name":"a","execution_timeout":0}]}"#, "at least 1ms"),
        (r#"{"tasks":[{"name":"a","priority":5}]}"#, "1 to 4"),
        (r#"{"tasks":[{"name":"a","slots":{"a":1,"b":1}}]}"#, "one kind of slot"),
        (r#"{"tasks":[{"name":"a"}],"events":["a b"]}"#, "a name has"),
    ] {
        let err = parse(text).unwrap_err();
        assert!(err.contains(part), "{text}: {err}");
    }
}
