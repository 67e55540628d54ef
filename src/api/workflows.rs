//! Workflows: register, get, list, versions, delete.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use helve_domain::clock::Timestamp;
use helve_domain::definition::WorkflowDefinition;
use helve_domain::error::{Error, Result};
use helve_domain::json::Payload;
use helve_domain::pause::{Paused, Target};
use helve_domain::retention::Kept;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::ApiState;
use super::auth::{Reader, Writer};
use super::json::{self, JsonBody};
use super::page::{Cursors, PageQuery};
use super::path::Name;
use super::pauses::{self, PauseView};
use super::problem::ApiError;
use super::query::Query;
use crate::db::workflows::{Version, Workflow};
use crate::ops::retention::OfTenant;

/// A workflow and its current version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workflow)]
pub struct WorkflowView<'a> {
    /// Its name.
    name: &'a str,
    /// The version that a trigger starts, from 1.
    version: i32,
    /// When the name was first registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When this version became the current one.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// How long its finished runs are kept, and who says so.
    retention: Kept,
    /// As registered.
    #[schema(value_type = WorkflowDefinition)]
    definition: &'a Payload,
    /// Its pause, or its gentle start after one. A new version does not end it.
    #[schema(required)]
    pause: Option<PauseView>,
}

/// One version of a workflow.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkflowVersion)]
pub struct VersionView<'a> {
    /// Its number, from 1.
    version: i32,
    /// Whether a trigger starts it.
    current: bool,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// As registered.
    #[schema(value_type = WorkflowDefinition)]
    definition: &'a Payload,
}

/// A page of workflows, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkflowList)]
pub struct WorkflowListView<'a> {
    /// The workflows.
    items: Vec<WorkflowView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A page of versions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkflowVersionList)]
pub struct VersionListView<'a> {
    /// The versions.
    items: Vec<VersionView<'a>>,
    /// Give it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<'a> WorkflowView<'a> {
    fn of(workflow: &'a Workflow, kept: OfTenant, pauses: &[Paused]) -> Self {
        let mine = |paused: &&Paused| matches!(&paused.target, Target::Workflow(name) if **name == workflow.name);
        Self {
            name: &workflow.name,
            version: workflow.version,
            created_at: workflow.created_at,
            updated_at: workflow.updated_at,
            retention: kept.workflow(&workflow.definition),
            definition: &workflow.definition,
            pause: pauses.iter().find(mine).map(PauseView::of),
        }
    }
}

impl<'a> VersionView<'a> {
    fn of(version: &'a Version, current: i32) -> Self {
        Self {
            version: version.version,
            current: version.version == current,
            created_at: version.created_at,
            definition: &version.definition,
        }
    }
}

/// A workflow as `GET` gives it: what is not its definition belongs to the engine, and a `PUT` does not change it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AsGiven<'a> {
    #[serde(borrow)]
    definition: &'a RawValue,
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    #[serde(rename = "created_at")]
    _created_at: Option<IgnoredAny>,
    #[serde(rename = "updated_at")]
    _updated_at: Option<IgnoredAny>,
    #[serde(rename = "retention")]
    _retention: Option<IgnoredAny>,
    #[serde(rename = "pause")]
    _pause: Option<IgnoredAny>,
}

/// The definition of a body, and where it stands there. No definition has a field `definition`, so that the two forms
/// cannot be taken for each other.
fn definition(body: &[u8]) -> Result<(&'static str, WorkflowDefinition)> {
    #[derive(Deserialize)]
    struct Form {
        definition: Option<IgnoredAny>,
    }
    let is_given = serde_json::from_slice::<Form>(body).is_ok_and(|form| form.definition.is_some());
    if !is_given {
        return json::parse(body).map(|definition| ("", definition));
    }
    let AsGiven { definition, .. } = json::parse(body)?;
    const AT: &str = "/definition";
    json::parse_part(AT, definition.get()).map(|definition| (AT, definition))
}

/// Register a workflow
///
/// The definition becomes the current version. The same definition as the current one changes nothing; one that was
/// registered before becomes current again under its old number. Runs keep the version that they started with.
#[utoipa::path(
    put,
    path = "/v1/workflows/{name}",
    operation_id = "putWorkflow",
    tag = "workflows",
    params(("name" = String, Path, description = "The workflow's name: ASCII letters, digits and `_ - . : /`, the \
        slash as %2F; no part between slashes is `.` or `..`", min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9_.:/-]+$")),
    request_body(content = WorkflowDefinition, description = "The definition; or a workflow as `GET` gives it, of which \
        only the `definition` counts"),
    responses((status = 200, description = "Registered", body = WorkflowView))
)]
pub async fn put(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Name(name): Name,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let (at, definition) = definition(&body)?;
    let registered = state.definitions.put(scope.tenant(), at, &name, definition).await?;
    // Somebody may have deleted it in this moment.
    let workflow = registered.workflow.ok_or_else(|| Error::not_found("workflow", &name))?;
    let pauses = pauses::of_workflows(&state, &scope).await?;
    let kept = state.retention.of(scope.tenant()).await?;
    Ok(json::answer(200, &WorkflowView::of(&workflow, kept, &pauses)))
}

/// Get a workflow
#[utoipa::path(
    get,
    path = "/v1/workflows/{name}",
    operation_id = "getWorkflow",
    tag = "workflows",
    params(("name" = String, Path, description = "The workflow's name, a slash in it as %2F", min_length = 1)),
    responses(
        (status = 200, description = "The workflow", body = WorkflowView),
        (status = 404, description = "No such workflow"),
    )
)]
pub async fn get(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Name(name): Name,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    let workflow = state.definitions.get(scope.tenant(), &name).await?;
    let pauses = pauses::of_workflows(&state, &scope).await?;
    let kept = state.retention.of(scope.tenant()).await?;
    Ok(json::answer(200, &WorkflowView::of(&workflow, kept, &pauses)))
}

/// List workflows
#[utoipa::path(
    get,
    path = "/v1/workflows",
    operation_id = "listWorkflows",
    tag = "workflows",
    params(PageQuery),
    responses((status = 200, description = "A page of workflows, by name", body = WorkflowListView))
)]
pub async fn list(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    mut query: Query,
) -> Result<Response, ApiError> {
    let cursors = Cursors { list: "workflows", tenant: scope.tenant() };
    let limit = query.limit(&state.limits)?;
    let after = query.cursor()?.map(|cursor| cursors.read(&cursor)).transpose()?;
    let after = after.map(|name| String::from_utf8(name).map_err(|_| Cursors::invalid())).transpose()?;
    query.finish()?;
    let page = state.definitions.list(scope.tenant(), after.as_deref(), limit).await?;
    let next_cursor = cursors.next(&page, |workflow| workflow.name.as_bytes());
    let pauses = pauses::of_workflows(&state, &scope).await?;
    let kept = state.retention.of(scope.tenant()).await?;
    let items = page.items.iter().map(|workflow| WorkflowView::of(workflow, kept, &pauses)).collect();
    Ok(json::answer(200, &WorkflowListView { items, next_cursor }))
}

/// List the versions of a workflow
#[utoipa::path(
    get,
    path = "/v1/workflows/{name}/versions",
    operation_id = "listWorkflowVersions",
    tag = "workflows",
    params(
        ("name" = String, Path, description = "The workflow's name, a slash in it as %2F", min_length = 1),
        PageQuery,
    ),
    responses(
        (status = 200, description = "A page of versions, newest first", body = VersionListView),
        (status = 404, description = "No such workflow"),
    )
)]
pub async fn versions(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Name(name): Name,
    mut query: Query,
) -> Result<Response, ApiError> {
    let list = format!("versions/{name}");
    let cursors = Cursors { list: &list, tenant: scope.tenant() };
    let limit = query.limit(&state.limits)?;
    let before = query.cursor()?.map(|cursor| cursors.read(&cursor)).transpose()?;
    let number = |place: Vec<u8>| place.try_into().map(i32::from_be_bytes).map_err(|_| Cursors::invalid());
    let before = before.map(number).transpose()?;
    query.finish()?;
    let current = state.definitions.get(scope.tenant(), &name).await?.version;
    let page = state.definitions.versions(scope.tenant(), &name, before, limit).await?;
    let next_cursor = cursors.next(&page, |version| version.version.to_be_bytes());
    let items = page.items.iter().map(|version| VersionView::of(version, current)).collect();
    Ok(json::answer(200, &VersionListView { items, next_cursor }))
}

/// Delete a workflow
///
/// Refused while runs of it are open. Its versions stay with its finished runs, and a later registration goes on
/// counting them.
#[utoipa::path(
    delete,
    path = "/v1/workflows/{name}",
    operation_id = "deleteWorkflow",
    tag = "workflows",
    params(("name" = String, Path, description = "The workflow's name, a slash in it as %2F", min_length = 1)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "No such workflow"),
        (status = 409, description = "Runs of it are open"),
    )
)]
pub async fn delete(
    State(state): State<ApiState>,
    Writer(scope): Writer,
    Name(name): Name,
    query: Query,
) -> Result<Response, ApiError> {
    query.finish()?;
    state.definitions.delete(scope.tenant(), &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
