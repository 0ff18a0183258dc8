//! Reading the log as it is sealed, and keeping the seals.

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::audit::canonical::{Entry, Hash, Seal};
use crate::events::Position;

/// Lets one process seal at a time. Held until the transaction ends.
pub(super) async fn try_lock(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- audit.try_lock
        select pg_try_advisory_xact_lock(hashtext('hookswitch.seal')) as "locked!""#
    )
    .fetch_one(conn)
    .await
}

/// Up to `limit` entries after one place and up to another, none of which can still get a neighbour before it.
pub(super) async fn entries(
    conn: &mut PgConnection,
    after: Position,
    until: Option<Position>,
    limit: i64,
) -> Result<Vec<Entry>, sqlx::Error> {
    let until = until.unwrap_or(Position {
        commit_xid: i64::MAX,
        event_id: i64::MAX,
    });
    let rows = sqlx::query!(
        "-- audit.entries
        select commit_xid, event_id, type, account_sid, conversation_sid, subject, actor, via, cause,
               occurred_at, recorded_at, data, salt, erased
        from event
        where (commit_xid, event_id) > ($1, $2)
          and (commit_xid, event_id) <= ($3, $4)
          and commit_xid < log_horizon()
        order by commit_xid, event_id
        limit $5",
        after.commit_xid,
        after.event_id,
        until.commit_xid,
        until.event_id,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Entry {
            position: Position {
                commit_xid: row.commit_xid,
                event_id: row.event_id,
            },
            kind: row.r#type,
            account_sid: row.account_sid,
            conversation_sid: row.conversation_sid,
            subject: row.subject,
            actor: row.actor,
            via: row.via,
            cause: row.cause,
            occurred_at: row.occurred_at.to_jiff(),
            recorded_at: row.recorded_at.to_jiff(),
            data: row.data,
            salt: row.salt,
            erased: row.erased,
        })
        .collect())
}

/// How many entries come after a place, up to a number that is enough to know.
pub(super) async fn entries_after(
    conn: &mut PgConnection,
    after: Position,
    enough: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- audit.entries_after
        select count(*) as "count!" from (
            select 1 from event where (commit_xid, event_id) > ($1, $2) limit $3
        ) as later"#,
        after.commit_xid,
        after.event_id,
        enough,
    )
    .fetch_one(conn)
    .await
}

pub(super) async fn newest(conn: &mut PgConnection) -> Result<Option<Seal>, sqlx::Error> {
    let number = sqlx::query_scalar!(
        "-- audit.newest
        select max(seal_number) from seal"
    )
    .fetch_one(&mut *conn)
    .await?;
    match number {
        Some(number) => find(conn, number).await,
        None => Ok(None),
    }
}

pub(super) async fn find(conn: &mut PgConnection, number: i64) -> Result<Option<Seal>, sqlx::Error> {
    let row = sqlx::query!(
        "-- audit.find
        select seal_number, first_commit_xid, first_event_id, last_commit_xid, last_event_id, entries, root, marks,
               previous, hash, sealed_at
        from seal where seal_number = $1",
        number,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Seal {
        seal: row.seal_number,
        first: Position {
            commit_xid: row.first_commit_xid,
            event_id: row.first_event_id,
        },
        last: Position {
            commit_xid: row.last_commit_xid,
            event_id: row.last_event_id,
        },
        entries: row.entries,
        root: hash(&row.root),
        marks: row.marks,
        previous: hash(&row.previous),
        hash: hash(&row.hash),
        sealed_at: row.sealed_at.to_jiff(),
    }))
}

/// The column's check says that it is as long as a hash.
fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap_or_default()
}

pub(super) async fn insert(conn: &mut PgConnection, seal: &Seal) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- audit.insert
        insert into seal (seal_number, first_commit_xid, first_event_id, last_commit_xid, last_event_id, entries, root,
                          marks, previous, hash, sealed_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        seal.seal,
        seal.first.commit_xid,
        seal.first.event_id,
        seal.last.commit_xid,
        seal.last.event_id,
        seal.entries,
        &seal.root[..],
        seal.marks,
        &seal.previous[..],
        &seal.hash[..],
        seal.sealed_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
