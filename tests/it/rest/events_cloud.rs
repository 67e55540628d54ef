//! CloudEvents 1.0: structured, batched, binary.

use serde_json::{Value, json};

use super::{pages, post, problem};
use crate::both_ways;
use crate::support::{Engine, Http, Response};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

async fn workflow(engine: &Engine) {
    let definition = json!({"tasks": [{"name": "w"}], "events": ["com.shop.*"]});
    assert_eq!(engine.put("/v1/workflows/w", definition).await.0, 200);
}

async fn push(client: &Http, kind: &str, body: &Value) -> Response {
    client.request("POST", "/v1/events", &[("content-type", kind)], body.to_string()).await
}

fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/shop/1", "type": "com.shop.order_placed",
        "time": "2026-01-31T12:00:00Z", "subject": "order 7", "dataschema": "https://shop/order",
        "datacontenttype": "application/json", "tier": "gold", "count": 3, "test": true, "none": null,
        "data": {"total": 12}
    })
}

both_ways! {
    async fn the_three_forms_are_one_event(engine) {
        workflow(&engine).await;
        let structured = push(&engine, "application/cloudevents+json; charset=utf-8", &event("1")).await;
        let first = structured.json();
        assert_eq!(structured.status, 201, "{first}");
        assert_eq!(structured.header("location"), format!("/v1/events/{}", first["id"].as_str().unwrap()));
        assert_eq!(
            (&first["key"], &first["source"], &first["source_id"], &first["payload"]),
            (&json!("com.shop.order_placed"), &json!("/shop/1"), &json!("1"), &json!({"total": 12}))
        );
        assert_eq!(first["metadata"], json!({
            "ce-time": "2026-01-31T12:00:00Z", "ce-subject": "order 7", "ce-dataschema": "https://shop/order",
            "ce-tier": "gold", "ce-count": "3", "ce-test": "true"
        }));
        let run = engine.run(&first["runs"][0]).await;
        assert_eq!((&run["input"], &run["metadata"]), (&first["payload"], &first["metadata"]));

        let binary = [
            ("content-type", "application/json"), ("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop/1"),
            ("CE-Type", "com.shop.order_placed"), ("ce-time", "2026-01-31T12:00:00Z"), ("ce-subject", "order%207"),
            ("ce-dataschema", "https://shop/order"), ("ce-tier", "gold"), ("ce-count", "3"), ("ce-test", "true"),
        ];
        let again = engine.request("POST", "/v1/events", &binary, r#"{"total":12}"#).await;
        assert_eq!((again.status, &again.json()["id"]), (200, &first["id"]), "{}", again.json());
        let batch = push(&engine, BATCH, &json!([event("1"), event("2")])).await.json();
        let results = batch["results"].as_array().unwrap();
        assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(200), &json!(201)), "{batch}");
        assert_eq!((&results[0]["event"]["id"], &results[0]["event"]["runs"]), (&first["id"], &first["runs"]));
        // Our own form of the same event is the same event, too.
        let own = json!({"key": first["key"], "payload": first["payload"], "metadata": first["metadata"],
                         "source": "/shop/1", "source_id": "1"});
        assert_eq!(engine.post("/v1/events", own).await.1["id"], first["id"]);
        assert_eq!(pages(&engine, "/v1/runs", 100).await.len(), 2);
        let mut other = event("1");
        other["data"] = json!(7);
        assert_eq!(problem(&push(&engine, STRUCTURED, &other).await, 409, "idempotency_conflict")["existing"], first["id"]);
    }
}

both_ways! {
    async fn data_that_is_no_json_is_text(engine) {
        let head = |kind: &'static str, id: &'static str| [
            ("content-type", kind), ("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "s"), ("ce-type", "t"),
        ];
        let (_, empty) = (0, engine.request("POST", "/v1/events", &head("application/json", "0"), "").await.json());
        assert_eq!((&empty["payload"], &empty["metadata"]), (&Value::Null, &json!({})));
        let text = engine.request("POST", "/v1/events", &head("text/plain", "1"), "a \"b\"").await.json();
        assert_eq!((&text["payload"], &text["metadata"]), (&json!("a \"b\""), &json!({"ce-datacontenttype": "text/plain"})));
        let bytes = engine.request("POST", "/v1/events", &head("image/png", "2"), &[0_u8, 255][..]).await.json();
        assert_eq!(bytes["payload"], "AP8=");
        assert_eq!(bytes["metadata"], json!({"ce-datacontenttype": "image/png", "ce-data_base64": "true"}));
        let encoded = json!({"specversion": "1.0", "id": "2", "source": "s", "type": "t", "datacontenttype": "image/png", "data_base64": "AP8="});
        let same = push(&engine, STRUCTURED, &encoded).await;
        assert_eq!((same.status, &same.json()["id"]), (200, &bytes["id"]));
        let vendor = engine.request("POST", "/v1/events", &head("application/vnd.a+json", "3"), "[1]").await.json();
        assert_eq!((&vendor["payload"], &vendor["metadata"]["ce-datacontenttype"]), (&json!([1]), &json!("application/vnd.a+json")));
    }
}

both_ways! {
    async fn an_event_carries_its_own_trace(engine) {
        workflow(&engine).await;
        let mut worker = crate::support::worker(&engine, &["w"], 1).await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut event = event("1");
        event["traceparent"] = json!(trace);
        let made = push(&engine, STRUCTURED, &event).await.json();
        assert!(made["metadata"].get("ce-traceparent").is_none(), "{made}");
        let task = worker.task().await;
        assert_eq!((&task["run"], &task["traceparent"]), (&made["runs"][0], &json!(trace)));
        worker.finish(&task, json!(1)).await;
    }
}

both_ways! {
    async fn what_is_no_cloud_event_is_refused(engine) {
        let with = |name: &str, value: Value| {
            let mut event = event("x");
            event[name] = value;
            event
        };
        let without = |name: &str| {
            let mut event = event("x");
            event.as_object_mut().unwrap().remove(name);
            event
        };
        for (body, code, pointer) in [
            (without("specversion"), "missing_field", "/specversion"),
            (without("id"), "missing_field", "/id"),
            (without("source"), "missing_field", "/source"),
            (without("type"), "missing_field", "/type"),
            (with("specversion", json!("0.3")), "invalid_field", "/specversion"),
            (with("id", json!("")), "invalid_field", "/id"),
            (with("type", json!("a b")), "invalid_field", "/type"),
            (with("type", json!("x".repeat(256))), "invalid_field", "/type"),
            (with("time", json!("yesterday")), "invalid_field", "/time"),
            (with("subject", json!("")), "invalid_field", "/subject"),
            (with("Tier", json!("x")), "unknown_field", "/Tier"),
            (with("my_tier", json!("x")), "unknown_field", "/my_tier"),
            (with("tier", json!({})), "invalid_field", "/tier"),
            (with("tier", json!(1.5)), "invalid_field", "/tier"),
            (with("tier", json!(3_000_000_000_u64)), "invalid_field", "/tier"),
            (with("tier", json!("x".repeat(17_000))), "invalid_field", ""),
            (with("data_base64", json!("AP8=")), "invalid_field", "/data_base64"),
            (json!([event("x")]), "invalid_field", ""),
        ] {
            let refused = push(&engine, STRUCTURED, &body).await;
            assert_eq!(problem(&refused, 400, code)["pointer"], pointer, "{body}");
        }
        let mut encoded = without("data");
        encoded["data_base64"] = json!("A");
        assert_eq!(problem(&push(&engine, STRUCTURED, &encoded).await, 400, "invalid_field")["pointer"], "/data_base64");
        let twice = r#"{"specversion":"1.0","id":"1","id":"2","source":"s","type":"t"}"#;
        let refused = engine.request("POST", "/v1/events", &[("content-type", STRUCTURED)], twice).await;
        problem(&refused, 400, "invalid_field");

        let head = [("content-type", "application/json"), ("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s")];
        for (more, code, part) in [
            (("ce-tier", "x"), "missing_field", "ce-type"),
            (("ce-type", "a b"), "invalid_field", "ce-type"),
            (("ce-type", "%ff"), "invalid_field", "ce-type"),
            (("ce-datacontenttype", "application/json"), "invalid_field", "Content-Type"),
        ] {
            let headers: Vec<_> = head.into_iter().chain([more]).collect();
            let refused = problem(&engine.request("POST", "/v1/events", &headers, "1").await, 400, code);
            assert!(refused["detail"].as_str().unwrap().contains(part) && refused.get("pointer").is_none(), "{refused}");
        }
        let broken: Vec<_> = head.into_iter().chain([("ce-type", "t")]).collect();
        problem(&engine.request("POST", "/v1/events", &broken, "{").await, 400, "malformed");

        for kind in ["application/cloudevents+xml", "application/cloudevents-batch+xml", "text/plain"] {
            problem(&push(&engine, kind, &event("x")).await, 415, "unsupported_media_type");
        }
        let items = json!([event("ok"), {"specversion": "1.0"}, 7, with("tier", json!([]))]);
        let results = push(&engine, BATCH, &items).await.json();
        let pointers: Vec<_> = results["results"].as_array().unwrap().iter()
            .map(|r| r["problem"]["pointer"].as_str().unwrap_or("")).collect();
        assert_eq!(pointers, ["", "/1/source", "/2", "/3/tier"], "{results}");
        for wrong in ["[]", "{}", "7"] {
            let refused = engine.request("POST", "/v1/events", &[("content-type", BATCH)], wrong).await;
            assert_eq!(problem(&refused, 400, "invalid_field")["pointer"], "", "{wrong}");
        }
        problem(&engine.request("POST", "/v1/events", &[("content-type", BATCH)], "[1,]").await, 400, "malformed");
        assert_eq!(pages(&engine, "/v1/events", 100).await.len(), 1);
        problem(&post(&engine, "/v1/events", r#"{"specversion":"1.0"}"#).await, 400, "unknown_field");
    }
}

/// An event that its source sends again is known, whatever form its client gives it the second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_in_two_forms_is_one_event() {
    let engine = crate::support::engine().await;
    let structured = |id: &str, kind: Value, member: &str, data: Value| {
        let mut event = json!({"specversion": "1.0", "id": id, "source": "s", "type": "t", "datacontenttype": kind});
        event[member] = data;
        event
    };
    for (id, kind, body, others) in [
        (
            "json",
            "application/json; charset=UTF-8",
            "{\"a\": \"\\u00e9\", \"b\": 1.0}",
            [
                structured("json", Value::Null, "data", json!({"a": "é", "b": 1.0})),
                // {"a":"é","b":1.0}
                structured("json", json!("application/json"), "data_base64", json!("eyJhIjoiw6kiLCJiIjoxLjB9")),
            ],
        ),
        (
            "vendor",
            "application/vnd.a+json",
            "[1, 2]",
            [
                structured("vendor", json!("application/vnd.a+json;charset=utf-8"), "data", json!([1, 2])),
                structured("vendor", json!("application/vnd.a+json"), "data_base64", json!("WzEsMl0=")),
            ],
        ),
        (
            "xml",
            "application/xml",
            "<a/>",
            [
                structured("xml", json!("application/xml"), "data", json!("<a/>")),
                structured("xml", json!("Application/XML; charset=utf-8"), "data_base64", json!("PGEvPg==")),
            ],
        ),
    ] {
        let head =
            [("content-type", kind), ("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "s"), ("ce-type", "t")];
        let first = engine.request("POST", "/v1/events", &head, body).await;
        assert_eq!(first.status, 201, "{}", first.json());
        for other in others {
            let again = push(&engine, STRUCTURED, &other).await;
            assert_eq!((again.status, &again.json()["id"]), (200, &first.json()["id"]), "{id}: {}", again.json());
        }
    }
    let mut old = event("old");
    old["time"] = json!("1969-07-20T20:17:40Z");
    let old = push(&engine, STRUCTURED, &old).await;
    assert_eq!((old.status, &old.json()["metadata"]["ce-time"]), (201, &json!("1969-07-20T20:17:40Z")));
    let latin = structured("x", json!("text/plain; charset=latin1"), "data", json!("a"));
    assert_eq!(problem(&push(&engine, STRUCTURED, &latin).await, 400, "invalid_field")["pointer"], "/datacontenttype");
    let head = [
        ("content-type", "text/plain; charset=latin1"),
        ("ce-specversion", "1.0"),
        ("ce-id", "x"),
        ("ce-source", "s"),
        ("ce-type", "t"),
    ];
    problem(&engine.request("POST", "/v1/events", &head, "a").await, 415, "unsupported_media_type");
}
