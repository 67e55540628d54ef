//! The OpenAPI document: generated from the routes, completed with what every operation has in common.

use std::sync::OnceLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as ResponseObject, ResponseBuilder};

use super::problem::{self, Problem};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Helve",
        description = "A durable task and workflow engine. The tenant comes from the token, never from the path. \
            Unknown fields are refused. Errors are problems (RFC 9457) with a stable `code`. Enums may grow: treat \
            values that you do not know as such. Every answer carries `x-request-id`.",
        license(name = "MIT", identifier = "MIT")
    ),
    servers((url = "/", description = "This engine")),
    components(schemas(Problem)),
    security(("token" = [])),
    tags(
        (name = "workflows", description = "Definitions of what can run"),
        (name = "runs", description = "Executions of workflows"),
        (name = "events", description = "Facts that start runs"),
        (name = "workers", description = "Programs that execute tasks"),
        (name = "pauses", description = "What does not start for now"),
        (name = "metrics", description = "Figures of the engine and of the load"),
        (name = "health", description = "The engine itself"),
    )
)]
pub struct Document;

/// What every operation under `/v1` may answer with a problem.
const COMMON: [(&str, &str); 5] = [
    ("400", "The request is wrong; `pointer` or `parameter` says where"),
    ("401", "No valid token"),
    ("403", "The token lacks the scope"),
    ("429", "A limit; `Retry-After` says when to try again"),
    ("503", "Not now, or the outcome of a write is unknown; `detail` says whether a retry is safe"),
];

/// What every operation that reads a body may answer besides.
const OF_BODIES: [(&str, &str); 2] = [("413", "The body is too large"), ("415", "The body has another media type")];

/// Adds what operations have in common: what they say themselves stays. A response of 400 and above is a problem, so its
/// operation gives no more than the status and when it comes.
pub fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let components = document.components.get_or_insert_default();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of the form `helve_..`, made with `helve token create`"))
        .build();
    components.add_security_scheme("token", SecurityScheme::Http(token));
    for (path, item) in &mut document.paths.paths {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().filter_map(Option::as_mut);
        for operation in operations {
            if path.starts_with("/v1/") {
                COMMON.iter().for_each(|(status, text)| add(operation, status, text));
            }
            if operation.request_body.is_some() {
                OF_BODIES.iter().for_each(|(status, text)| add(operation, status, text));
            }
            add(operation, "default", "Any other error");
            operation.responses.responses.iter_mut().for_each(|(status, response)| show_problem(status, response));
        }
    }
    document
}

/// The methods of a route, in the order in which people think of them.
pub fn methods(route: &str) -> Vec<&'static str> {
    static DOCUMENT: OnceLock<utoipa::openapi::OpenApi> = OnceLock::new();
    let document = DOCUMENT.get_or_init(super::openapi);
    let Some(item) = document.paths.paths.get(route) else { return Vec::new() };
    let operations = [("GET", &item.get), ("PUT", &item.put), ("POST", &item.post), ("DELETE", &item.delete)];
    operations.into_iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| method).collect()
}

/// Adds a response that the operation does not describe itself.
fn add(operation: &mut Operation, status: &str, description: &str) {
    let response = ResponseBuilder::new().description(description).build();
    operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
}

/// Gives a response that is an error its body.
fn show_problem(status: &str, response: &mut RefOr<ResponseObject>) {
    if let RefOr::T(response) = response
        && (status == "default" || status >= "400")
    {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        response.content.insert(problem::MEDIA_TYPE.to_owned(), problem.into());
    }
}

/// The document as it is served and committed.
///
/// # Errors
/// Never: the document is plain data.
pub fn text() -> &'static Bytes {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = super::openapi().to_pretty_json().unwrap_or_default();
        text.push('\n');
        Bytes::from(text)
    })
}

/// Get this document
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "health",
    security(()),
    responses((status = 200, description = "The OpenAPI document", body = serde_json::Value,
        content_type = "application/json"))
)]
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text().clone()).into_response()
}
