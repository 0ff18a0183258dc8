//! Rows of API keys.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::api::auth::{ApiKey, Scope};

struct Row {
    api_key_id: Uuid,
    name: String,
    scopes: Vec<String>,
    created_at: jiff_sqlx::Timestamp,
    last_used_at: Option<jiff_sqlx::Timestamp>,
    revoked_at: Option<jiff_sqlx::Timestamp>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        Self {
            api_key_id: row.api_key_id,
            name: row.name,
            // A scope that this version does not know gives nothing.
            scopes: row.scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
            created_at: row.created_at.to_jiff(),
            last_used_at: row.last_used_at.map(jiff_sqlx::Timestamp::to_jiff),
            revoked_at: row.revoked_at.map(jiff_sqlx::Timestamp::to_jiff),
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    key: &ApiKey,
    key_hash: &[u8; 32],
) -> Result<(), sqlx::Error> {
    let scopes: Vec<&str> = key.scopes.iter().copied().map(Scope::as_str).collect();
    sqlx::query!(
        "-- api_key.insert
        insert into api_key (api_key_id, name, key_hash, scopes, created_at) values ($1, $2, $3, $4, $5)",
        key.api_key_id,
        key.name,
        key_hash,
        &scopes as _,
        key.created_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn find_by_hash(
    conn: &mut PgConnection,
    key_hash: &[u8; 32],
) -> Result<Option<ApiKey>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- api_key.find_by_hash
        select api_key_id, name, scopes, created_at, last_used_at, revoked_at from api_key where key_hash = $1",
        key_hash,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(ApiKey::from))
}

/// Whoever finds the row locked leaves the noting to the one that holds it.
pub(super) async fn note_use(
    conn: &mut PgConnection,
    api_key_id: Uuid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- api_key.note_use
        update api_key set last_used_at = $2
        where api_key_id = (select api_key_id from api_key where api_key_id = $1 for no key update skip locked)",
        api_key_id,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn revoke(
    conn: &mut PgConnection,
    api_key_id: Uuid,
    now: Timestamp,
) -> Result<Option<ApiKey>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- api_key.revoke
        update api_key set revoked_at = $2 where api_key_id = $1 and revoked_at is null
        returning api_key_id, name, scopes, created_at, last_used_at, revoked_at",
        api_key_id,
        now.to_sqlx() as _,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(ApiKey::from))
}

/// All keys, the revoked ones too, oldest first.
pub async fn list(conn: &mut PgConnection) -> Result<Vec<ApiKey>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- api_key.list
        select api_key_id, name, scopes, created_at, last_used_at, revoked_at from api_key
        order by created_at, api_key_id",
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(ApiKey::from).collect())
}
