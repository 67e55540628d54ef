//! API tokens, stored by the hash of their secret.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Binary, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{OptionalExtension, QueryableByName};
use diesel_async::RunQueryDsl;
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::id::{TenantId, TokenId};
use helve_domain::scope::Scopes;
use uuid::Uuid;

use super::Pool;
use super::failure::map_write_error;
use super::statement::statement;

/// SHA-256 of a whole token. 256 random bits need no slow hash.
pub type TokenHash = [u8; 32];

/// What is known of a token; its secret is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub tenant: TenantId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When somebody ended it.
    pub revoked_at: Option<Timestamp>,
}

statement! {
    /// Stores a token.
    Insert("sql/token_insert.sql") {
        "1" => id: Uuid as SqlUuid,
        "2" => tenant: Uuid as SqlUuid,
        "3" => name: String as Text,
        "4" => hash: Vec<u8> as Binary,
        "5" => scopes: i16 as SmallInt,
        "6" => created_at: DateTime<Utc> as Timestamptz,
        "7" => expires_at: Option<DateTime<Utc>> as Nullable<Timestamptz>,
    }
}

statement! {
    /// A token by its hash.
    ByHash("sql/token_by_hash.sql") {
        "1" => hash: Vec<u8> as Binary,
    }
}

statement! {
    /// Tokens of one tenant or of all.
    List("sql/token_list.sql") {
        "1" => tenant: Option<Uuid> as Nullable<SqlUuid>,
    }
}

statement! {
    /// Revokes a token.
    Revoke("sql/token_revoke.sql") {
        "1" => id: Uuid as SqlUuid,
        "2" => now: DateTime<Utc> as Timestamptz,
    }
}

statement! {
    /// Tokens that are no longer valid.
    Ended("sql/token_ended.sql") {
        "1" => ids: Vec<Uuid> as Array<SqlUuid>,
        "2" => now: DateTime<Utc> as Timestamptz,
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    tenant: Uuid,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = SmallInt)]
    scopes: i16,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    revoked_at: Option<DateTime<Utc>>,
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

impl From<Row> for TokenInfo {
    fn from(row: Row) -> Self {
        Self {
            id: TokenId::from_uuid(row.id),
            tenant: TenantId::from_uuid(row.tenant),
            name: row.name,
            scopes: Scopes::from_bits(row.scopes),
            created_at: row.created_at.into(),
            expires_at: row.expires_at.map(Timestamp::from),
            revoked_at: row.revoked_at.map(Timestamp::from),
        }
    }
}

/// Stores a token; `None` when its tenant does not exist.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost.
pub async fn insert(pool: &Pool, token: &TokenInfo, hash: TokenHash) -> Result<Option<TokenInfo>> {
    let insert = Insert {
        id: token.id.uuid(),
        tenant: token.tenant.uuid(),
        name: token.name.clone(),
        hash: hash.to_vec(),
        scopes: token.scopes.bits(),
        created_at: token.created_at.to_utc(),
        expires_at: token.expires_at.map(Timestamp::to_utc),
    };
    let mut conn = pool.get().await?;
    let row = insert.get_result::<Row>(&mut *conn).await.optional().map_err(map_write_error)?;
    Ok(row.map(TokenInfo::from))
}

/// The token whose hash this is, also an expired or revoked one.
///
/// # Errors
/// `Unavailable`.
pub async fn by_hash(pool: &Pool, hash: TokenHash) -> Result<Option<TokenInfo>> {
    let by_hash = ByHash { hash: hash.to_vec() };
    let row = pool.load::<Row, _>(by_hash).await?.pop();
    Ok(row.map(TokenInfo::from))
}

/// Tokens of one tenant, or of all, oldest first.
///
/// # Errors
/// `Unavailable`.
pub async fn list(pool: &Pool, tenant: Option<TenantId>) -> Result<Vec<TokenInfo>> {
    let list = List { tenant: tenant.map(TenantId::uuid) };
    let rows: Vec<Row> = pool.load(list).await?;
    Ok(rows.into_iter().map(TokenInfo::from).collect())
}

/// Revokes a token; `None` when there is no such token.
///
/// # Errors
/// `Unavailable`, or `OutcomeUnknown` when the connection was lost.
pub async fn revoke(pool: &Pool, id: TokenId, now: Timestamp) -> Result<Option<TokenInfo>> {
    let revoke = Revoke { id: id.uuid(), now: now.to_utc() };
    let mut conn = pool.get().await?;
    let row = revoke.get_result::<Row>(&mut *conn).await.optional().map_err(map_write_error)?;
    Ok(row.map(TokenInfo::from))
}

/// Which of `ids` are no longer valid: revoked, expired, or gone.
///
/// # Errors
/// `Unavailable`.
pub async fn ended(pool: &Pool, ids: &[TokenId], now: Timestamp) -> Result<Vec<TokenId>> {
    let ended = Ended { ids: ids.iter().map(|id| id.uuid()).collect(), now: now.to_utc() };
    let rows: Vec<IdRow> = pool.load(ended).await?;
    Ok(rows.into_iter().map(|row| TokenId::from_uuid(row.id)).collect())
}
