//! The frames of the interface's documentation, sent as they stand there.

use serde_json::{Value, json};

use super::{ready, text};
use crate::both_ways;
use crate::support::{Worker, attempt};

const HELLO: &str = r#"{"type":"hello","protocol":1,"name":"w1","sdk":"curl","actions":["resize"],"slots":{"default":10},"labels":{},"workflows":[]}"#;
const DEFINITION: &str =
    r#"{"tasks":[{"name":"resize","action":"resize","retries":3,"execution_timeout":"30s"}],"events":["image.*"]}"#;

fn keys(of: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = of.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn is_id(value: &Value, prefix: &str) -> bool {
    let id = value.as_str().unwrap();
    id.len() == prefix.len() + 32 && id.starts_with(prefix)
}

both_ways! {
    async fn the_conversation_of_the_documentation(engine) {
        let (status, workflow) = engine.put("/v1/workflows/resize", serde_json::from_str(DEFINITION).unwrap()).await;
        assert_eq!((status, &workflow["version"]), (200, &json!(1)));

        let mut worker = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
        worker.send_text(HELLO.to_owned()).await;
        let welcome = worker.expect("welcome").await;
        assert_eq!(
            keys(&welcome),
            ["grace_ms", "heartbeat_ms", "limits", "node", "protocol", "resumed", "secret", "session", "superseded",
             "type", "worker"]
        );
        assert!(is_id(&welcome["worker"], "wrk_") && is_id(&welcome["session"], "ses_"));
        let rest = [&welcome["protocol"], &welcome["resumed"], &welcome["heartbeat_ms"], &welcome["grace_ms"]];
        assert_eq!(rest, [&json!(1), &json!(false), &json!(10_000), &json!(15_000)]);
        assert_eq!(welcome["superseded"], json!([]));

        let (status, run) = engine
            .post("/v1/runs", json!({"workflow": "resize", "input": {"url": "a.png"}, "metadata": {"user": "42"}}))
            .await;
        assert_eq!(status, 201, "{run}");
        let assign = worker.expect("assign").await;
        let task = &assign["tasks"][0];
        assert_eq!(
            task,
            &json!({"task_run": run["id"], "attempt": 1, "run": run["id"], "workflow": "resize", "action": "resize",
                    "input": {"url": "a.png"}, "metadata": {"user": "42"}, "timeout_ms": 30_000})
        );
        worker.send(json!({"type": "received", "tasks": [attempt(task)]})).await;
        worker
            .send(json!({"type": "result", "results": [
                {"task_run": run["id"], "attempt": 1, "outcome": "failed",
                 "error": {"message": "boom", "code": "my_code", "retryable": true, "retry_after_ms": 500}}]}))
            .await;
        assert_eq!(worker.stored(task).await["status"], "scheduled");
        let again = worker.task().await;
        assert_eq!((&again["task_run"], &again["attempt"]), (&run["id"], &json!(2)));
        worker
            .send(json!({"type": "result", "results": [
                {"task_run": run["id"], "attempt": 2, "outcome": "succeeded", "output": {"ok": true}}]}))
            .await;
        assert_eq!(worker.stored(&again).await["status"], "succeeded");
        let run = engine.run(&run["id"]).await;
        assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!({"ok": true})));
    }
}

both_ways! {
    async fn a_cancel_reaches_the_worker(engine) {
        let mut worker = ready(&engine).await;
        let run = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        let (status, cancelled) = engine.post(&format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap()), json!({})).await;
        assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")));
        let cancel = worker.expect("cancel").await;
        assert_eq!(
            cancel["tasks"],
            json!([{"task_run": run["id"], "attempt": 1, "reason": "requested", "grace_ms": 5_000}])
        );
        worker.report(&task, json!({"outcome": "released"})).await;
        assert_eq!(attempt(&worker.expect("superseded").await["tasks"][0]), attempt(&task));
    }
}

both_ways! {
    async fn a_trace_travels_to_the_worker(engine) {
        let mut worker = ready(&engine).await;
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let body = json!({"workflow": "work"}).to_string();
        let response = engine.request("POST", "/v1/runs", &[("traceparent", traceparent)], body).await;
        assert_eq!(response.status, 201);
        assert_eq!(worker.task().await["traceparent"], traceparent);
    }
}

both_ways! {
    async fn payloads_pass_byte_for_byte(engine) {
        let mut worker = ready(&engine).await;
        let odd = r#"{"n":123456789012345678901234567890.5e400, "s":"\u0000\ud800","k":{"a":1,"a":2}}"#;
        let body = format!(r#"{{"workflow":"work","input":{odd}}}"#);
        let response = engine.request("POST", "/v1/runs", &[], body).await;
        assert_eq!(response.status, 201);
        let text = text(&mut worker).await;
        assert!(text.contains(&format!(r#""input":{odd}"#)), "{text}");
        let run = text.split("\"task_run\":\"").nth(1).unwrap()[..36].to_owned();
        worker
            .send_text(format!(
                r#"{{"type":"result","results":[{{"task_run":"{run}","attempt":1,"outcome":"succeeded","output":{odd}}}]}}"#
            ))
            .await;
        worker.expect("stored").await;
        let shown = engine.request("GET", &format!("/v1/runs/{run}"), &[], "").await;
        assert!(std::str::from_utf8(&shown.body).unwrap().contains(&format!(r#""output":{odd}"#)));
    }
}
