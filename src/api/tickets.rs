//! `POST /v1/worker/tickets`: a page's server asks for what the page opens its worker socket with.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::response::Response;
use helve_domain::clock::Timestamp;
use helve_domain::duration::Span;
use helve_domain::ticket::MAX_LIFETIME;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::auth::WorkerHolder;
use super::json::{self, JsonBody};
use super::metadata::Metadata;
use super::problem::ApiError;
use super::query::Query;
use crate::ops::tickets::{Made, NewTicket};

/// A ticket to make: who the worker is for, and the most that it may be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTicket {
    /// What the worker may offer to do.
    #[schema(min_items = 1, max_items = 1000)]
    actions: Vec<String>,
    /// The most slots that it may have, by kind.
    #[schema(value_type = HashMap<String, i32>)]
    slots: BTreeMap<String, u32>,
    /// The labels that it may have. None if absent.
    #[serde(default)]
    #[schema(value_type = HashMap<String, String>, required = false)]
    labels: Metadata,
    /// The page's origin, such as `https://app.example`. It must stand in `HELVE_HTTP_ORIGINS`, and be the header
    /// `Origin` of the socket.
    origin: String,
    /// How long the ticket may wait for its use: 1s to 60s. 60s if absent.
    #[serde(default)]
    #[schema(nullable = false)]
    expires_in: Option<Span>,
}

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ticket)]
pub struct TicketView<'a> {
    /// Its text, shown this once: the second subprotocol of the socket, or `ticket` in its `hello`.
    ticket: &'a str,
    /// What the worker may offer to do.
    actions: &'a BTreeSet<String>,
    /// The most slots that it may have, by kind.
    #[schema(value_type = HashMap<String, i32>)]
    slots: &'a BTreeMap<String, u32>,
    /// The labels that it may have.
    labels: &'a BTreeMap<String, String>,
    /// The page's origin.
    origin: &'a str,
    /// When it ends, if it is not used before.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl<'a> TicketView<'a> {
    fn of(made: &'a Made) -> Self {
        let Made { text, allowed, origin, expires_at } = made;
        Self {
            ticket: text.reveal(),
            actions: &allowed.actions,
            slots: &allowed.slots,
            labels: &allowed.labels,
            origin,
            expires_at: *expires_at,
        }
    }
}

/// Create a ticket
///
/// A page must not hold a token, and cannot set the header of one on its socket. Its server holds the token, and asks
/// for a ticket each time that the page opens a socket. A ticket opens one, on any engine, within a minute. Needs the
/// scope `worker`.
#[utoipa::path(
    post,
    path = "/v1/worker/tickets",
    operation_id = "createTicket",
    tag = "workers",
    request_body(content = CreateTicket, description = "The ticket"),
    responses(
        (status = 201, description = "The ticket, shown this once", body = TicketView),
    )
)]
pub async fn create(
    State(state): State<ApiState>,
    WorkerHolder(scope): WorkerHolder,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    query.finish()?;
    let CreateTicket { actions, slots, labels, origin, expires_in } = json::parse(&body)?;
    let new = NewTicket {
        actions,
        slots,
        labels: labels.pairs("/labels", &state.limits)?,
        origin,
        expires_in: expires_in.map_or(MAX_LIFETIME, |span| span.0),
    };
    let made = state.tickets.create(&scope, new).await?;
    Ok(json::answer(201, &TicketView::of(&made)))
}
