//! REST: every route, its bad input, its limits, who may call it, and the document that describes it.

mod access;
mod audit;
mod authentication;
mod bulk;
mod contract;
mod events;
mod events_bulk;
mod events_cloud;
mod events_replay;
mod http;
mod idempotency;
mod input;
mod input_schema;
mod jobs;
mod lists;
mod metrics;
mod pauses;
mod reads;
mod replay;
mod runs;
mod share;
mod wait;
mod why;
mod workers;
mod workflows;

use serde_json::Value;

use super::support::{Http, Response};

/// An id of the right form that nobody has.
const NOBODY: &str = "0190a000000070008000000000000000";

/// Asserts that a response is the problem with this status and code, as RFC 9457 wants it; gives it.
#[track_caller]
fn problem(response: &Response, status: u16, code: &str) -> Value {
    let body = response.json();
    assert_eq!((response.status, body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(response.header("content-type"), "application/problem+json");
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("urn:helve:problem:{code}"));
    assert!(body["title"].as_str().is_some_and(|t| !t.is_empty()), "{body}");
    assert!(body["detail"].as_str().is_some_and(|t| !t.is_empty()), "{body}");
    body
}

/// `POST` of a text as JSON.
async fn post(client: &Http, path: &str, body: &str) -> Response {
    client.request("POST", path, &[], body.to_owned()).await
}

/// Every item of a list, page by page.
async fn pages(client: &Http, path: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    let join = if path.contains('?') { '&' } else { '?' };
    loop {
        let (status, page) = client.get(&format!("{path}{join}limit={limit}{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let found = page["items"].as_array().unwrap();
        assert!(found.len() <= limit);
        items.extend(found.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}
