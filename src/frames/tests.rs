//! Frames that are wrong in one way or another: what is read of them, and what is told.

use bytes::Bytes;
use helve_domain::delivery::{Incoming, Outcome};
use helve_domain::json::{Payload, SMALL};
use helve_domain::limits::Limits;
use helve_domain::run::{MAX_ERROR_MESSAGE, RunError};

use super::*;

const RUN: &str = "run_01890a5d96427774b3dc9d8e5f1a2b3c";

fn read(text: &str) -> Decoded {
    decode(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
}

fn results(text: &str) -> (Vec<Outcome>, Vec<Fault>) {
    let decoded = read(text);
    match decoded.frame {
        Some(Frame::Said(Incoming::Results(results))) => (results.into_iter().map(|r| r.1).collect(), decoded.faults),
        _ => (Vec::new(), decoded.faults),
    }
}

fn one(rest: &str) -> String {
    format!(r#"{{"type":"result","results":[{{"task_run":"{RUN}","attempt":1,{rest}}}]}}"#)
}

#[test]
fn what_is_not_a_frame_is_told_why() {
    for (text, told) in [
        ("", "it ends too early, at line 1 column 0"),
        ("nul", "line 1 column 3"),
        ("[]", "expected an object"),
        ("1", "expected an object"),
        ("\"x\"", "expected an object"),
        ("{", "line 1 column 1"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ("{}", "`type` is required"),
        (r#"{"type":1}"#, "expected a string"),
        (r#"{"type":null}"#, "expected a string"),
        (r#"{"type":NaN}"#, "line 1 column"),
    ] {
        let decoded = read(text);
        assert!(!decoded.is_frame && decoded.frame.is_none(), "{text}: {decoded:?}");
        assert!(decoded.faults[0].message.contains(told), "{text}: {:?}", decoded.faults);
    }
    let decoded = decode(&Bytes::from_static(b"{\"type\":\"\xff\"}"), &Limits::default());
    assert!(!decoded.is_frame && decoded.faults[0].message.contains("utf-8"), "{decoded:?}");
}

#[test]
fn an_output_passes_byte_for_byte_and_a_large_one_without_a_copy() {
    let large = format!(r#"{{"n":1e400, "s":"{}"}}"#, "x".repeat(SMALL));
    for (given, copied) in [(r#"{"n":1e400, "s":"\u0000\ud800"}"#, true), (large.as_str(), false)] {
        let text = Bytes::from(one(&format!(r#""outcome":"succeeded","output": {given}"#)));
        let decoded = decode(&text, &Limits::default());
        let Some(Frame::Said(Incoming::Results(results))) = decoded.frame else { panic!() };
        let Outcome::Succeeded(output) = &results[0].1 else { panic!() };
        assert_eq!(output.bytes(), given.as_bytes());
        assert_eq!(!text.as_ptr_range().contains(&output.bytes().as_ptr()), copied, "a small one keeps no frame");
    }
}

#[test]
fn an_absent_output_is_null() {
    let (outcomes, _) = results(&one(r#""outcome":"succeeded""#));
    assert!(matches!(&outcomes[..], [Outcome::Succeeded(p)] if *p == Payload::null()));
}

#[test]
fn a_bad_item_does_not_lose_its_neighbours() {
    let (outcomes, faults) = results(&format!(
        r#"{{"type":"result","results":[7,{{"task_run":"{RUN}","attempt":1,"outcome":"released"}},{{"task_run":"{RUN}","attempt":"x"}}]}}"#
    ));
    assert!(matches!(outcomes[..], [Outcome::Released]));
    let at: Vec<_> = faults.iter().map(|f| (f.code, f.pointer.as_deref().unwrap())).collect();
    assert_eq!(at, [(Code::BadFrame, "/results/0"), (Code::BadFrame, "/results/2/attempt")]);
}

#[test]
fn endless_faults_are_counted_not_listed() {
    let text = format!(r#"{{"type":"received","tasks":[{}1]}}"#, "1,".repeat(100_000));
    let faults = read(&text).faults;
    assert_eq!(faults.len(), MAX_FAULTS + 1);
    assert_eq!(faults.last().unwrap().message, "99985 more items of this frame are wrong");
}

#[test]
fn an_output_over_a_limit_fails_the_attempt_for_good() {
    let large = format!(r#""outcome":"succeeded","output":"{}""#, "x".repeat(1 << 20));
    let deep = format!(r#""outcome":"succeeded","output":{}{}"#, "[".repeat(129), "]".repeat(129));
    for (rest, fault, code) in [(large, Code::TooLarge, "output_too_large"), (deep, Code::TooDeep, "output_too_deep")] {
        let (outcomes, faults) = results(&one(&rest));
        assert_eq!((faults[0].code, faults[0].pointer.as_deref()), (fault, Some("/results/0/output")));
        let [Outcome::Failed(error)] = &outcomes[..] else { panic!() };
        assert_eq!((error.code.as_deref(), error.retryable), (Some(code), Some(false)));
    }
}

#[test]
fn a_failure_is_kept_in_bounds() {
    let message = format!("a\\u0000{}", "é".repeat(10_000));
    let rest = format!(r#""outcome":"failed","error":{{"message":"{message}","code":"x","retry_after_ms":500}}"#);
    let (outcomes, _) = results(&one(&rest));
    let [Outcome::Failed(error)] = &outcomes[..] else { panic!() };
    assert_eq!(error.message.len(), MAX_ERROR_MESSAGE - 1);
    assert!(error.message.starts_with("aé"));
    assert_eq!((error.retryable, error.retry_after_ms), (None, Some(500)));
}

#[test]
fn wrong_fields_are_named() {
    for (text, code, pointer) in [
        (r#"{"type":"jump"}"#.to_owned(), Code::UnknownFrame, "/type"),
        (r#"{"type":"result"}"#.to_owned(), Code::BadFrame, "/results"),
        (r#"{"type":"result","results":{}}"#.to_owned(), Code::BadFrame, "/results"),
        (r#"{"type":"ping","tasks":1,"tasks":2}"#.to_owned(), Code::BadFrame, ""),
        (r#"{"type":"capacity"}"#.to_owned(), Code::BadFrame, "/slots"),
        (r#"{"type":"capacity","slots":{"default":-1}}"#.to_owned(), Code::BadFrame, "/slots/default"),
        (r#"{"type":"capacity","slots":{"default":100001}}"#.to_owned(), Code::BadFrame, "/slots/default"),
        (r#"{"type":"labels"}"#.to_owned(), Code::BadFrame, "/labels"),
        (r#"{"type":"labels","labels":["a"]}"#.to_owned(), Code::BadFrame, "/labels"),
        (r#"{"type":"labels","labels":{"a":1}}"#.to_owned(), Code::BadFrame, "/labels/a"),
        (r#"{"type":"labels","labels":{"a":"\u0000"}}"#.to_owned(), Code::BadFrame, "/labels/a"),
        (r#"{"type":"free_slot"}"#.to_owned(), Code::BadFrame, "/tasks"),
        (r#"{"type":"free_slot","tasks":[{"attempt":1}]}"#.to_owned(), Code::BadFrame, "/tasks/0/task_run"),
        (one(r#""outcome":"done""#), Code::BadFrame, "/results/0/outcome"),
        (one(r#""outcome":"failed""#), Code::BadFrame, "/results/0/error"),
        (one(r#""outcome":"failed","error":"boom""#), Code::BadFrame, "/results/0/error"),
        (one(r#""outcome":"failed","error":{}"#), Code::BadFrame, "/results/0/error/message"),
        (one(r#""outcome":"failed","error":{"message":"\udc80"}"#), Code::BadFrame, "/results/0/error/message"),
        (one(r#""outcome":"failed","error":{"message":"m","code":""}"#), Code::BadFrame, "/results/0/error/code"),
        (
            r#"{"type":"received","tasks":[{"task_run":"evt_x","attempt":1}]}"#.to_owned(),
            Code::BadFrame,
            "/tasks/0/task_run",
        ),
        (
            format!(r#"{{"type":"received","tasks":[{{"task_run":"{RUN}","attempt":0}}]}}"#),
            Code::BadFrame,
            "/tasks/0/attempt",
        ),
        (
            format!(r#"{{"type":"extend","tasks":[{{"task_run":"{RUN}","attempt":1,"timeout_ms":0}}]}}"#),
            Code::BadFrame,
            "/tasks/0/timeout_ms",
        ),
    ] {
        let faults = read(&text).faults;
        assert_eq!((faults[0].code, faults[0].pointer.as_deref()), (code, Some(pointer)), "{text}: {faults:?}");
    }
}

/// Whoever writes `result` for `output` loses the output: the frame counts, and its worker is told.
#[test]
fn a_field_that_nobody_knows_is_named_and_everything_else_counts() {
    for (rest, pointer, told) in [
        (
            r#""outcome":"succeeded","result":1"#,
            "/results/0/result",
            "known are `task_run`, `attempt`, `outcome`, `output`",
        ),
        (r#""outcome":"succeeded","outptu":1"#, "/results/0/outptu", "did you mean `output`?"),
        (r#""outcome":"failed","error":{"message":"m","cod":"x"}"#, "/results/0/error/cod", "did you mean `code`?"),
    ] {
        let decoded = read(&one(rest));
        let Some(Frame::Said(Incoming::Results(results))) = &decoded.frame else { panic!("{rest}") };
        assert_eq!((results.len(), decoded.faults.len(), decoded.unknown.len()), (1, 0, 1), "{rest}: {decoded:?}");
        let unknown = &decoded.unknown[0];
        assert_eq!((unknown.code, unknown.pointer.as_deref()), (Code::UnknownField, Some(pointer)));
        assert!(unknown.message.contains(told), "{unknown:?}");
    }
    let items: Vec<_> = (0..50).map(|n| format!(r#"{{"task_run":"{RUN}","attempt":1,"x{n}":0}}"#)).collect();
    let many = read(&format!(r#"{{"type":"received","tasks":[{}]}}"#, items.join(",")));
    assert_eq!((many.faults.len(), many.unknown.len()), (0, MAX_UNKNOWN));
}

fn bad_result(outcome: &Outcome) -> &str {
    let Outcome::Failed(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!((error.code.as_deref(), error.retryable), (Some("bad_result"), None));
    &error.message
}

#[test]
fn an_output_that_is_not_json_ends_its_attempt_and_no_other() {
    let item = |n: u8, output: &str| {
        format!(r#"{{"output":{output},"attempt":{n},"task_run":"{RUN}","outcome":"succeeded"}}"#)
    };
    let items = [item(1, "1"), item(2, "[1, NaN]"), item(3, "\"a\nb\""), item(4, "{\"Infinity\":0}")].join(",");
    let decoded = read(&format!(r#"{{"results":[{items}],"took":NaN,"type":"result"}}"#));
    assert!(decoded.is_frame);
    let Some(Frame::Said(Incoming::Results(results))) = decoded.frame else { panic!() };
    let numbers: Vec<_> = results.iter().map(|(attempt, _)| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(matches!(&results[0].1, Outcome::Succeeded(output) if output.bytes() == "1"));
    assert!(bad_result(&results[1].1).contains("/results/1/output: this is not JSON: it has `NaN`"));
    assert!(bad_result(&results[2].1).contains(r"it has `\n`"));
    assert!(matches!(&results[3].1, Outcome::Succeeded(_)), "in a string it is text");
    let at: Vec<_> = decoded.faults.iter().map(|f| f.pointer.as_deref()).collect();
    assert_eq!(at, [None, Some("/results/1/output"), Some("/results/2/output")]);
    assert!(decoded.faults[0].message.contains("at line 1 column"), "the parser's words: {:?}", decoded.faults[0]);
}

#[test]
fn a_text_beyond_repair_ends_the_only_attempt_that_it_names() {
    let decoded = read(&one(r#""outcome":"succeeded","output":"say "hi"""#));
    let Some(Frame::Said(Incoming::Results(results))) = decoded.frame else { panic!() };
    assert!(decoded.is_frame && bad_result(&results[0].1).contains("this is not"), "{results:?}");
    assert!(!read(&one(r#""output":"say "hi"""#).replace("\"attempt\":1", "\"attempt\":x")).is_frame);
}

#[test]
fn what_a_worker_says_of_itself_is_not_guessed_at() {
    let decoded = read(r#"{"type":"hello","protocol":1,"name":"w","actions":["a"],"slots":{"default":Infinity}}"#);
    let Some(Frame::Hello(Err(fault))) = decoded.frame else { panic!("{:?}", decoded.frame) };
    assert!(fault.message.contains("`Infinity`"));
}

#[test]
fn a_result_that_names_its_attempt_ends_it_whatever_is_wrong() {
    for (rest, at, told) in [
        (r#""outcome":"done""#, "/results/0/outcome", "got `done`"),
        (r#""output":1"#, "/results/0/outcome", "`outcome` is required"),
        (r#""outcome":"succeeded","output":1,"output":2"#, "/results/0", "`output` stands twice"),
        (r#""outcome":"failed","error":{"code":1,"code":2}"#, "/results/0/error", "`code` stands twice"),
    ] {
        let (outcomes, faults) = results(&one(rest));
        let message = bad_result(&outcomes[0]);
        assert!(message.contains(told) && message.contains(at), "{message}");
        assert_eq!((faults.len(), faults[0].pointer.as_deref()), (1, Some(at)), "{rest}");
    }
    let twice = one(r#""attempt":2,"outcome":"released""#);
    assert!(results(&twice).0.is_empty(), "two attempts are none");
}

#[test]
fn a_failure_that_is_slightly_wrong_is_kept() {
    let error = |message: &str, code: Option<&str>| RunError {
        message: message.to_owned(),
        code: code.map(str::to_owned),
        retryable: None,
        retry_after_ms: None,
    };
    let long = "é".repeat(200);
    let cut = "é".repeat(127);
    let nothing = "the worker gave no message";
    for (given, kept, told) in [
        (r#"{"message":"half \ud83d"}"#, error("half \u{fffd}", None), Some("/message")),
        (r#"{"message":null}"#, error(nothing, None), Some("/message")),
        (r#"{"message":"","code":"x"}"#, error(nothing, Some("x")), Some("/message")),
        (r#"{"code":"x"}"#, error(nothing, Some("x")), Some("/message")),
        (r#"{"message":["a",1]}"#, error(r#"["a",1]"#, None), Some("/message")),
        (r#"{"message":"m","code":503}"#, error("m", Some("503")), Some("/code")),
        (r#"{"message":"m","code":""}"#, error("m", None), Some("/code")),
        (r#"{"message":"m","code":null}"#, error("m", None), None),
        (r#"{"message":"m","code":"a\nb"}"#, error("m", Some("ab")), Some("/code")),
        (r#"{"message":"m","code":"\ud83dx"}"#, error("m", Some("\u{fffd}x")), Some("/code")),
        (&format!(r#"{{"message":"m","code":"{long}"}}"#), error("m", Some(&cut)), Some("/code")),
        (
            r#"{"message":"m","retry_after_ms":1500.0}"#,
            RunError { retry_after_ms: Some(1_500), ..error("m", None) },
            None,
        ),
        (
            r#"{"message":"m","retryable":"False"}"#,
            RunError { retryable: Some(false), ..error("m", None) },
            Some("/retryable"),
        ),
        (r#""boom""#, error("boom", None), Some("")),
        ("null", error(nothing, None), Some("")),
    ] {
        let (outcomes, faults) = results(&one(&format!(r#""outcome":"failed","error":{given}"#)));
        assert!(matches!(&outcomes[..], [Outcome::Failed(error)] if *error == kept), "{given}: {outcomes:?}");
        let at: Vec<_> = faults.into_iter().map(|f| f.pointer.unwrap()).collect();
        let told: Vec<_> = told.map(|field| format!("/results/0/error{field}")).into_iter().collect();
        assert_eq!(at, told, "{given}");
    }
    assert!(matches!(&results(&one(r#""outcome":"failed""#)).0[0], Outcome::Failed(e) if e.message == nothing));
}

#[test]
fn a_failure_beyond_repair_tells_what_it_was() {
    for (field, at) in [
        (r#""retryable":"perhaps""#, "/retryable"),
        (r#""code":{"http":503}"#, "/code"),
        (r#""retry_after_ms":-1"#, "/retry_after_ms"),
    ] {
        let (outcomes, faults) =
            results(&one(&format!(r#""outcome":"failed","error":{{"message":"no paper",{field}}}"#)));
        let message = bad_result(&outcomes[0]);
        assert!(message.ends_with("; its message was: no paper") && message.contains(at), "{message}");
        assert_eq!(faults[0].pointer.clone().unwrap(), format!("/results/0/error{at}"));
    }
}

#[test]
fn whole_floats_name_attempts_and_times() {
    let attempt = format!(r#"{{"task_run":"{RUN}","attempt":3.0,"timeout_ms":1500.5}}"#);
    for (kind, expected) in [("received", 3), ("extend", 3), ("free_slot", 3)] {
        let decoded = read(&format!(r#"{{"type":"{kind}","tasks":[{attempt}]}}"#));
        assert_eq!(decoded.faults, [], "{kind}: 3.0 is 3");
        let number = match decoded.frame.unwrap() {
            Frame::Said(Incoming::Received(attempts) | Incoming::FreeSlot(attempts)) => attempts[0].number,
            Frame::Said(Incoming::Extend(extensions)) => {
                assert_eq!(extensions[0].1.as_millis(), 1_501);
                extensions[0].0.number
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(number, expected);
    }
    let half = read(&format!(r#"{{"type":"received","tasks":[{{"task_run":"{RUN}","attempt":1.5}}]}}"#));
    assert_eq!(half.faults[0].pointer.as_deref(), Some("/tasks/0/attempt"));
}

#[test]
fn the_log_has_nothing_that_a_worker_said() {
    for (pointer, message, at, why) in [
        (
            Some("/name"),
            "expected a whole number; got the string \"hush\"",
            "/name",
            "expected a whole number; got the string \"..\"",
        ),
        (Some("/slots/hush"), "at most 3; got 4", "/slots", "at most 3; got 4"),
        (Some("/workflows/0/tasks/1/labels/hush"), "x", "/workflows/0/tasks/1/labels", "x"),
        (Some("/workflows/0"), "unknown field `hush`, expected `a` or `b`", "/workflows/0", "unknown field `..`"),
        (None, "string \"hush \\\" hush\" and `hush", "", "string \"..\" and `..`"),
    ] {
        let fault = Fault { pointer: pointer.map(str::to_owned), ..Fault::whole(Code::BadFrame, message) };
        assert_eq!(logged(&fault), (at.to_owned(), why.to_owned()));
    }
}
