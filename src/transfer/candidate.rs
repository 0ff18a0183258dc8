//! Who is offered a line, one after the other: the list, and what became of everybody on it. Owns `transfer_candidate`.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::Identity;
use crate::transfer::Transfer;

/// One person on the list of an offered transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// From 1.
    pub place: i32,
    pub identity: Identity,
    pub offer_seconds: i64,
    /// `waiting`, `offered`, `accepted`, `declined`, `expired`, `skipped` or `withdrawn`.
    pub state: String,
    /// Why they were skipped.
    pub reason: Option<String>,
    pub offered_at: Option<Timestamp>,
    pub answered_at: Option<Timestamp>,
    pub answered_by: Option<String>,
    /// When they first read the thread.
    pub briefed_at: Option<Timestamp>,
}

/// Somebody on the list of a new transfer.
pub(super) struct New<'a> {
    pub(super) transfer: &'a Transfer,
    /// From 1.
    pub(super) place: i32,
    pub(super) identity: &'a Identity,
    pub(super) offer_seconds: i64,
    pub(super) stage: Stage,
}

/// What is so of somebody on a new list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// They were passed over, and why.
    Skipped(&'static str),
    Offered,
    Waiting,
}

/// Writes the lists of new transfers.
pub(super) async fn insert(
    conn: &mut PgConnection,
    list: &[New<'_>],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let sids: Vec<&str> = list
        .iter()
        .map(|one| one.transfer.conversation_sid.as_str())
        .collect();
    let ids: Vec<Uuid> = list.iter().map(|one| one.transfer.transfer_id).collect();
    let places: Vec<i32> = list.iter().map(|one| one.place).collect();
    let identities: Vec<&str> = list.iter().map(|one| one.identity.as_str()).collect();
    let seconds: Vec<i64> = list.iter().map(|one| one.offer_seconds).collect();
    let (states, reasons): (Vec<&str>, Vec<Option<&str>>) = list
        .iter()
        .map(|one| match one.stage {
            Stage::Skipped(why) => ("skipped", Some(why)),
            Stage::Offered => ("offered", None),
            Stage::Waiting => ("waiting", None),
        })
        .unzip();
    sqlx::query!(
        "-- transfer.insert_candidates
        insert into transfer_candidate (conversation_sid, transfer_id, place, identity, offer_seconds, state, reason, offered_at)
        select conversation_sid, transfer_id, place, identity, offer_seconds, state, reason,
               case state when 'offered' then $8::timestamptz end
        from unnest($1::text[], $2::uuid[], $3::int4[], $4::text[], $5::bigint[], $6::text[], $7::text[])
            as new (conversation_sid, transfer_id, place, identity, offer_seconds, state, reason)",
        &sids as _,
        &ids,
        &places,
        &identities as _,
        &seconds,
        &states as _,
        &reasons as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The list of a transfer, in order; empty where nobody was asked.
pub async fn candidates(
    conn: &mut PgConnection,
    conversation_sid: &str,
    transfer_id: Uuid,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- transfer.candidates
        select place, identity as "identity: Identity", offer_seconds, state, reason, offered_at, answered_at, answered_by,
               briefed_at
        from transfer_candidate where conversation_sid = $1 and transfer_id = $2 order by place"#,
        conversation_sid,
        transfer_id,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Candidate {
            place: row.place,
            identity: row.identity,
            offer_seconds: row.offer_seconds,
            state: row.state,
            reason: row.reason,
            offered_at: row.offered_at.map(jiff_sqlx::Timestamp::to_jiff),
            answered_at: row.answered_at.map(jiff_sqlx::Timestamp::to_jiff),
            answered_by: row.answered_by,
            briefed_at: row.briefed_at.map(jiff_sqlx::Timestamp::to_jiff),
        })
        .collect())
}

/// It is this one's turn.
pub(super) async fn offer(
    conn: &mut PgConnection,
    transfer: &Transfer,
    place: i32,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.offer_candidate
        update transfer_candidate set state = 'offered', offered_at = $4
        where conversation_sid = $1 and transfer_id = $2 and place = $3",
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        place,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// This one is passed over.
pub(super) async fn skip(
    conn: &mut PgConnection,
    transfer: &Transfer,
    place: i32,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.skip_candidate
        update transfer_candidate set state = 'skipped', reason = $4
        where conversation_sid = $1 and transfer_id = $2 and place = $3",
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        place,
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what became of the one whose turn it is.
pub(super) async fn settle(
    conn: &mut PgConnection,
    transfer: &Transfer,
    state: &str,
    by: Option<&str>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.settle_candidate
        update transfer_candidate set state = $3, answered_by = $4, answered_at = $5
        where conversation_sid = $1 and transfer_id = $2 and state = 'offered'",
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        state,
        by,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// As [`settle`], and nobody else is asked any more.
pub(super) async fn settle_all(
    conn: &mut PgConnection,
    transfer: &Transfer,
    state: &str,
    by: Option<&str>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.settle_candidates
        update transfer_candidate
        set answered_by = case state when 'offered' then $4 end,
            answered_at = case state when 'offered' then $5::timestamptz end,
            state = case state when 'offered' then $3 else 'withdrawn' end
        where conversation_sid = $1 and transfer_id = $2 and state in ('offered', 'waiting')",
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        state,
        by,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The one whose turn it is has read the thread.
pub(super) async fn brief(
    conn: &mut PgConnection,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.brief_candidate
        update transfer_candidate set briefed_at = $3
        where conversation_sid = $1 and transfer_id = $2 and state = 'offered' and briefed_at is null",
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
