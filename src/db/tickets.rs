//! Tickets, stored by the hash of their secret. Using one deletes it.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{OptionalExtension, QueryableByName};
use diesel_async::RunQueryDsl;
use helve_domain::clock::Timestamp;
use helve_domain::error::{Error, Result};
use helve_domain::id::{TenantId, TokenId};
use helve_domain::ticket::Allowed;
use uuid::Uuid;

use super::Pool;
use super::failure::map_write_error;
use super::statement::statement;
use super::tokens::TokenHash;

/// Expired tickets that one statement takes away.
const EXPIRE: i64 = 5_000;

/// A ticket to store.
#[derive(Debug)]
pub struct NewTicket {
    /// SHA-256 of its text.
    pub hash: TokenHash,
    /// Whose it is.
    pub tenant: TenantId,
    /// The token that made it.
    pub token: TokenId,
    /// What its worker may be.
    pub allowed: Allowed,
    /// The page's origin.
    pub origin: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Whose a ticket is.
#[derive(Debug)]
pub struct Found {
    /// Whose.
    pub tenant: TenantId,
    /// The page's origin that may use it.
    pub origin: String,
}

/// A ticket that was used.
#[derive(Debug)]
pub struct Used {
    /// Whose it was.
    pub tenant: TenantId,
    /// The token that made it.
    pub token: TokenId,
    /// When that token ends by itself.
    pub token_expires_at: Option<Timestamp>,
    /// What its worker may be.
    pub allowed: Allowed,
}

statement! {
    /// Stores a ticket.
    Insert("sql/ticket_insert.sql") {
        "1" => hash: Vec<u8> as Binary,
        "2" => tenant: Uuid as SqlUuid,
        "3" => token: Uuid as SqlUuid,
        "4" => allowed: Vec<u8> as Binary,
        "5" => origin: String as Text,
        "6" => expires_at: DateTime<Utc> as Timestamptz,
        "7" => now: DateTime<Utc> as Timestamptz,
        "8" => max: i64 as BigInt,
    }
}

statement! {
    /// Whose ticket it is.
    Find("sql/ticket_find.sql") {
        "1" => hash: Vec<u8> as Binary,
        "2" => now: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// Uses a ticket.
    Use("sql/ticket_use.sql") {
        "1" => hash: Vec<u8> as Binary,
        "2" => now: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// Takes expired tickets away.
    Expire("sql/ticket_expire.sql") {
        "1" => now: DateTime<Utc> as Timestamptz,
        "2" => max: i64 as BigInt,
    }
}

#[derive(QueryableByName)]
struct InsertedRow {
    #[diesel(sql_type = Timestamptz)]
    #[expect(dead_code, reason = "that there is a row is the answer")]
    expires_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = Text)]
    origin: String,
}

#[derive(QueryableByName)]
struct UsedRow {
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = SqlUuid)]
    token: Uuid,
    #[diesel(sql_type = Binary)]
    allowed: Vec<u8>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    token_expires_at: Option<DateTime<Utc>>,
}

/// Stores a ticket; false when its tenant has `max` open ones. Inserts at the same time may pass that by their number.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost.
pub async fn insert(pool: &Pool, ticket: NewTicket, now: Timestamp, max: i64) -> Result<bool> {
    let allowed = serde_json::to_vec(&ticket.allowed).map_err(|e| Error::Internal(format!("a ticket: {e}")))?;
    let insert = Insert {
        hash: ticket.hash.to_vec(),
        tenant: ticket.tenant.uuid(),
        token: ticket.token.uuid(),
        allowed,
        origin: ticket.origin,
        expires_at: ticket.expires_at.to_utc(),
        now: now.to_utc(),
        max,
    };
    let rows: Vec<InsertedRow> = pool.try_write(insert).await?.map_err(map_write_error)?;
    Ok(!rows.is_empty())
}

/// Whose ticket it is; `None` when it was used or has expired. Does not use it.
///
/// # Errors
/// `Unavailable`.
pub async fn find(pool: &Pool, hash: TokenHash, now: Timestamp) -> Result<Option<Found>> {
    let row = pool.load::<FoundRow, _>(Find { hash: hash.to_vec(), now: now.to_utc() }).await?.pop();
    Ok(row.map(|row| Found { tenant: TenantId::from_uuid(row.tenant), origin: row.origin }))
}

/// Uses a ticket, once over all engines; `None` when it was used, has expired, or its token has ended.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost: it may be used up.
pub async fn take(pool: &Pool, hash: TokenHash, now: Timestamp) -> Result<Option<Used>> {
    let take = Use { hash: hash.to_vec(), now: now.to_utc() };
    let mut conn = pool.get().await?;
    let row = take.get_result::<UsedRow>(&mut *conn).await.optional().map_err(map_write_error)?;
    let Some(row) = row else { return Ok(None) };
    let allowed = serde_json::from_slice(&row.allowed).map_err(|e| Error::Internal(format!("a ticket's row: {e}")))?;
    Ok(Some(Used {
        tenant: TenantId::from_uuid(row.tenant),
        token: TokenId::from_uuid(row.token),
        token_expires_at: row.token_expires_at.map(Timestamp::from),
        allowed,
    }))
}

/// Takes some expired tickets away. Those of a minute are few, and every new ticket takes some with it.
///
/// # Errors
/// `Unavailable`.
pub async fn expire(pool: &Pool, now: Timestamp) -> Result<()> {
    let expire = Expire { now: now.to_utc(), max: EXPIRE };
    let mut conn = pool.get().await?;
    expire.execute(&mut *conn).await.map_err(map_write_error)?;
    Ok(())
}
