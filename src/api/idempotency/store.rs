//! Rows of calls and their answers.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::person::Person;

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: i16,
    pub(super) body: Vec<u8>,
    pub(super) location: Option<String>,
}

/// A call that was made.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) request_hash: Vec<u8>,
    pub(super) answer: Answer,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("the first call with this key is still at work")]
    StillRunning,
    #[error("cannot record the call")]
    Database(#[source] sqlx::Error),
}

/// Takes a key for the caller's transaction. False: it was taken before, by one that has committed.
pub(super) async fn claim(
    conn: &mut PgConnection,
    api_key_id: Uuid,
    key: &str,
    request_hash: &[u8; 32],
    now: Timestamp,
) -> Result<bool, ClaimError> {
    let claimed = sqlx::query!(
        "-- idempotency.claim
        insert into idempotency_key (api_key_id, key, request_hash, created_at) values ($1, $2, $3, $4)
        on conflict (api_key_id, key) do nothing",
        api_key_id,
        key,
        request_hash,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await
    .map_err(|error| {
        if waited_too_long(&error) {
            ClaimError::StillRunning
        } else {
            ClaimError::Database(error)
        }
    })?;
    Ok(claimed.rows_affected() == 1)
}

/// `lock_not_available`, and `query_canceled` where the limit of the statement is the shorter.
fn waited_too_long(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    error
        .code()
        .is_some_and(|code| code == "55P03" || code == "57014")
}

pub(super) async fn keep(
    conn: &mut PgConnection,
    api_key_id: Uuid,
    key: &str,
    answer: &Answer,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- idempotency.keep
        update idempotency_key set status = $3, response = $4, location = $5 where api_key_id = $1 and key = $2",
        api_key_id,
        key,
        answer.status,
        answer.body,
        answer.location,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn find(
    conn: &mut PgConnection,
    api_key_id: Uuid,
    key: &str,
) -> Result<Option<Stored>, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- idempotency.find
        select request_hash, status as "status!", response as "response!", location from idempotency_key
        where api_key_id = $1 and key = $2 and status is not null and response is not null"#,
        api_key_id,
        key,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Stored {
        request_hash: row.request_hash,
        answer: Answer {
            status: row.status,
            body: row.response,
            location: row.location,
        },
    }))
}

/// Forgets calls made before `before`, which has to be at least 24 hours ago. Answers how many there were.
pub async fn purge(conn: &mut PgConnection, before: Timestamp) -> Result<u64, sqlx::Error> {
    let purged = sqlx::query!(
        "-- idempotency.purge
        delete from idempotency_key where created_at < $1",
        before.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(purged.rows_affected())
}

/// Erases kept answers that name the person, or that are about one of these sends. A repeated call is answered without
/// what it said. Answers of how many.
pub async fn erase_person(
    conn: &mut PgConnection,
    person: &Person,
    sends: &[Uuid],
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        r#"-- idempotency.erase_person
        update idempotency_key
        set response = '{"erased":true}', key = replace(key, $2, $4), location = replace(location, $2, $4)
        where exists (select from unnest($1::text[]) as name where position(convert_to(name, 'UTF8') in response) > 0)
           or position($2 in key) > 0
           or exists (select from unnest($3::uuid[]) as send where position(convert_to(send::text, 'UTF8') in response) > 0)"#,
        &person.needles() as _,
        person.needle(),
        sends,
        person.pseudonym(),
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}
