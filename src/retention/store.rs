//! How far the rules have come, and which conversations are held.

use std::collections::{BTreeSet, HashSet};

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::retention::LegalHold;
use crate::retention::places::Place;

/// A place up to which a rule has looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) commit_xid: i64,
    pub(super) number: i64,
    /// Where rows are looked through by their keys: the last one, with `/` between its parts.
    pub(super) row_key: String,
}

/// Keeps erasing and holding apart. Held until the transaction ends.
pub async fn lock(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- retention.lock
        select pg_advisory_xact_lock(hashtext('hookswitch.retention'))"
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Up to where a place was looked through; its beginning, where it never was.
pub(super) async fn progress(conn: &mut PgConnection, place: Place) -> Result<Progress, sqlx::Error> {
    let found = sqlx::query_as!(
        Progress,
        "-- retention.progress
        select commit_xid, number, row_key from retention_progress where place = $1",
        place.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.unwrap_or_default())
}

pub(super) async fn advance(conn: &mut PgConnection, place: Place, to: &Progress) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- retention.advance
        insert into retention_progress (place, commit_xid, number, row_key) values ($1, $2, $3, $4)
        on conflict (place) do update
        set commit_xid = excluded.commit_xid, number = excluded.number, row_key = excluded.row_key",
        place.as_str(),
        to.commit_xid,
        to.number,
        to.row_key,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A conversation whose hold has ended: what of it was passed by meanwhile is gone through apart.
pub(super) async fn insert_released(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<(), sqlx::Error> {
    let places: Vec<&str> = Place::IN_ORDER.iter().map(|place| place.as_str()).collect();
    sqlx::query!(
        "-- retention.insert_released
        insert into retention_released (conversation_sid, place) select $1, unnest($2::text[])
        on conflict (place, conversation_sid) do update set commit_xid = 0, number = 0",
        conversation_sid,
        &places as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The next released conversation after one that a place is to be gone through for, and how far that has come.
pub(super) async fn next_released(
    conn: &mut PgConnection,
    place: Place,
    after: &str,
) -> Result<Option<(String, Progress)>, sqlx::Error> {
    let row = sqlx::query!(
        "-- retention.next_released
        select conversation_sid, commit_xid, number from retention_released
        where place = $1 and conversation_sid > $2 order by conversation_sid limit 1",
        place.as_str(),
        after,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let progress = Progress {
            commit_xid: row.commit_xid,
            number: row.number,
            row_key: String::new(),
        };
        (row.conversation_sid, progress)
    }))
}

/// Notes how far it has come; with none, that it is done.
pub(super) async fn advance_released(
    conn: &mut PgConnection,
    place: Place,
    conversation_sid: &str,
    to: Option<&Progress>,
) -> Result<(), sqlx::Error> {
    match to {
        Some(to) => {
            sqlx::query!(
                "-- retention.advance_released
                update retention_released set commit_xid = $3, number = $4 where place = $1 and conversation_sid = $2",
                place.as_str(),
                conversation_sid,
                to.commit_xid,
                to.number,
            )
            .execute(conn)
            .await?;
        }
        None => {
            sqlx::query!(
                "-- retention.forget_released
                delete from retention_released where place = $1 and conversation_sid = $2",
                place.as_str(),
                conversation_sid,
            )
            .execute(conn)
            .await?;
        }
    }
    Ok(())
}

/// Which of these conversations are held.
pub async fn held_of(
    conn: &mut PgConnection,
    sids: impl Iterator<Item = &str>,
) -> Result<HashSet<String>, sqlx::Error> {
    let sids: Vec<&str> = sids.collect();
    let held = sqlx::query_scalar!(
        "-- retention.held_of
        select conversation_sid from legal_hold where conversation_sid = any($1)",
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(held.into_iter().collect())
}

/// All conversations that are held.
pub async fn all_held(conn: &mut PgConnection) -> Result<BTreeSet<String>, sqlx::Error> {
    let held = sqlx::query_scalar!(
        "-- retention.all_held
        select conversation_sid from legal_hold"
    )
    .fetch_all(conn)
    .await?;
    Ok(held.into_iter().collect())
}

/// Keeps the hold that is there, if one is. Answers whether it is new.
pub(super) async fn insert_hold(conn: &mut PgConnection, hold: &LegalHold) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        "-- retention.insert_hold
        insert into legal_hold (conversation_sid, reason, held_by, held_since) values ($1, $2, $3, $4)
        on conflict (conversation_sid) do nothing",
        hold.conversation_sid,
        hold.reason,
        hold.held_by,
        hold.held_since.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

pub(super) async fn find_hold(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Option<LegalHold>, sqlx::Error> {
    let row = sqlx::query!(
        "-- retention.find_hold
        select conversation_sid, reason, held_by, held_since from legal_hold where conversation_sid = $1",
        conversation_sid,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| LegalHold {
        conversation_sid: row.conversation_sid,
        reason: row.reason,
        held_by: row.held_by,
        held_since: row.held_since.to_jiff(),
    }))
}

pub(super) async fn delete_hold(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!(
        "-- retention.delete_hold
        delete from legal_hold where conversation_sid = $1",
        conversation_sid,
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected() > 0)
}
