//! Writing the log and reading it in order.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::events::{Kind, NewEvent, Position, Via};

/// An entry as stored.
#[derive(Debug, Clone)]
pub struct EventRow {
    pub position: Position,
    pub kind: String,
    pub account_sid: Option<String>,
    pub conversation_sid: Option<String>,
    pub subject: String,
    pub actor: Option<String>,
    pub via: String,
    pub cause: Option<String>,
    pub occurred_at: Timestamp,
    pub recorded_at: Timestamp,
    /// A JSON object.
    pub data: String,
}

/// Writes entries in their order, within the transaction of what they tell, and tells who waits for entries when it
/// commits.
pub async fn append(conn: &mut PgConnection, events: &[NewEvent]) -> Result<(), sqlx::Error> {
    write(conn, events, true).await
}

/// As [`append`], for a caller that announces the entries itself once they are committed
/// ([`crate::db::Notices::announce`]): commits that notify wait for each other, all over the server.
pub async fn append_unannounced(conn: &mut PgConnection, events: &[NewEvent]) -> Result<(), sqlx::Error> {
    write(conn, events, false).await
}

async fn write(conn: &mut PgConnection, events: &[NewEvent], announced: bool) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let accounts: Vec<Option<&str>> = events
        .iter()
        .map(|event| {
            event
                .account_sid
                .as_ref()
                .map(super::super::ids::AccountSid::as_str)
        })
        .collect();
    let conversations: Vec<Option<&str>> = events
        .iter()
        .map(|event| {
            event
                .conversation_sid
                .as_ref()
                .map(super::super::ids::ConversationSid::as_str)
        })
        .collect();
    let subjects: Vec<&str> = events.iter().map(|event| event.subject.as_str()).collect();
    let actors: Vec<Option<&str>> = events.iter().map(|event| event.actor.as_deref()).collect();
    let vias: Vec<&str> = events.iter().map(|event| event.via.as_str()).collect();
    let causes: Vec<Option<&str>> = events.iter().map(|event| event.cause.as_deref()).collect();
    let occurred: Vec<_> = events.iter().map(|event| event.occurred_at.to_sqlx()).collect();
    let recorded: Vec<_> = events.iter().map(|event| event.recorded_at.to_sqlx()).collect();
    let data: Vec<String> = events.iter().map(|event| event.data.to_string()).collect();
    sqlx::query!(
        "-- events.append
        with written as (
            insert into event (commit_xid, type, account_sid, conversation_sid, subject, actor, via, cause, occurred_at,
                recorded_at, data)
            select (select log_xid()), type, account_sid, conversation_sid, subject, actor, via, cause, occurred_at, recorded_at, data
            from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                        $8::timestamptz[], $9::timestamptz[], $10::text[]) with ordinality
                as entry (type, account_sid, conversation_sid, subject, actor, via, cause, occurred_at, recorded_at, data, place)
            order by place)
        select pg_notify('hookswitch_event', '') where $11",
        &kinds as _,
        &accounts as _,
        &conversations as _,
        &subjects as _,
        &actors as _,
        &vias as _,
        &causes as _,
        &occurred as _,
        &recorded as _,
        &data,
        announced,
    )
    .execute(conn)
    .await?;
    Ok(())
}

macro_rules! event_row {
    ($row:ident) => {
        EventRow {
            position: Position {
                commit_xid: $row.commit_xid,
                event_id: $row.event_id,
            },
            kind: $row.r#type,
            account_sid: $row.account_sid,
            conversation_sid: $row.conversation_sid,
            subject: $row.subject,
            actor: $row.actor,
            via: $row.via,
            cause: $row.cause,
            occurred_at: $row.occurred_at.to_jiff(),
            recorded_at: $row.recorded_at.to_jiff(),
            data: $row.data,
        }
    };
}

/// Has everything on disk that was committed until now. Projecting does not wait for the disk, and what a crash forgets of it
/// is written anew with other numbers: no reader may have been told of a place by then that others come to stand before.
async fn make_durable(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"-- events.make_durable
        select (case when pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()
                then pg_logical_emit_message(true, 'hookswitch', '') end) is not null as "waited""#
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Up to `limit` entries after `after`, in the log's order. What a transaction in progress may still write before a
/// later entry is waited for: the page ends there. What it has is on disk.
pub async fn page(
    conn: &mut PgConnection,
    after: Position,
    kinds: Option<&[&str]>,
    limit: i64,
) -> Result<Vec<EventRow>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- events.page
        select commit_xid, event_id, type, account_sid, conversation_sid, subject, actor, via, cause,
               occurred_at, recorded_at, data
        from event
        where (commit_xid, event_id) > ($1, $2)
          and commit_xid < log_horizon()
          and ($3::text[] is null or type = any($3))
        order by commit_xid, event_id
        limit $4",
        after.commit_xid,
        after.event_id,
        kinds as _,
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    if !rows.is_empty() {
        make_durable(conn).await?;
    }
    Ok(rows.into_iter().map(|row| event_row!(row)).collect())
}

/// The last place up to which [`page`] reads now; `None` while nothing is to be read.
pub async fn end(conn: &mut PgConnection) -> Result<Option<Position>, sqlx::Error> {
    let row = sqlx::query!(
        "-- events.end
        select commit_xid, event_id from event
        where commit_xid < log_horizon()
        order by commit_xid desc, event_id desc
        limit 1"
    )
    .fetch_optional(&mut *conn)
    .await?;
    if row.is_some() {
        make_durable(conn).await?;
    }
    Ok(row.map(|row| Position {
        commit_xid: row.commit_xid,
        event_id: row.event_id,
    }))
}

/// Entries of some kinds of one conversation by the times of what they tell: all of the time `since`, and the first ones
/// after it, `limit` of them if there are so many, with all of the last one's time. `until` and `known_until` leave out
/// what happened, and what was recorded, later.
pub async fn of_timeline(
    conn: &mut PgConnection,
    conversation_sid: &str,
    kinds: &[&str],
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    known_until: Option<Timestamp>,
    limit: i64,
) -> Result<Vec<EventRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- events.of_timeline
        with entry as not materialized (
            select * from event
            where conversation_sid = $1 and type = any($2)
              and type not in ('message.added', 'message.updated', 'message.removed', 'delivery.updated', 'participant.added',
                               'participant.updated', 'participant.removed', 'line.holder_changed', 'conversation.updated',
                               'send.queued', 'send.sent')
              and occurred_at <= coalesce($4::timestamptz, 'infinity')
              and recorded_at <= coalesce($5::timestamptz, 'infinity')),
        found as (
            select * from entry where occurred_at = $3
            union all (
                select * from entry where occurred_at > coalesce($3::timestamptz, '-infinity')
                order by occurred_at fetch first ($6) rows with ties))
        select commit_xid as "commit_xid!", event_id as "event_id!", type as "type!", account_sid, conversation_sid,
               subject as "subject!", actor, via as "via!", cause, occurred_at as "occurred_at!",
               recorded_at as "recorded_at!", data as "data!"
        from found"#,
        conversation_sid,
        kinds as _,
        since.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        until.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        known_until.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| event_row!(row)).collect())
}

/// Through what the newest entry of a kind about a subject came; `None` where there is none, or it was erased.
pub async fn last_via(
    conn: &mut PgConnection,
    conversation_sid: &str,
    kind: Kind,
    subject: &str,
) -> Result<Option<Via>, sqlx::Error> {
    let via = sqlx::query_scalar!(
        "-- events.last_via
        select via from event
        where conversation_sid = $1 and type = $2 and subject = $3
        order by commit_xid desc, event_id desc limit 1",
        conversation_sid,
        kind.as_str(),
        subject,
    )
    .fetch_optional(conn)
    .await?;
    Ok(via.as_deref().and_then(Via::parse))
}

/// As [`page`], of one conversation.
pub async fn page_of_conversation(
    conn: &mut PgConnection,
    conversation_sid: &str,
    after: Position,
    limit: i64,
) -> Result<Vec<EventRow>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- events.page_of_conversation
        select commit_xid, event_id, type, account_sid, conversation_sid, subject, actor, via, cause,
               occurred_at, recorded_at, data
        from event
        where conversation_sid = $1
          and (commit_xid, event_id) > ($2, $3)
          and commit_xid < log_horizon()
        order by commit_xid, event_id
        limit $4",
        conversation_sid,
        after.commit_xid,
        after.event_id,
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    if !rows.is_empty() {
        make_durable(conn).await?;
    }
    Ok(rows.into_iter().map(|row| event_row!(row)).collect())
}

/// Lifts new entries above a log that was restored from a dump into a cluster with lower transaction numbers.
/// Answers whether that was needed.
pub async fn lift_above_restored_log(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let lifted = sqlx::query!(
        "-- events.lift_above_restored_log
        update log_origin
        set xid_offset = xid_offset + newest.commit_xid - log_xid() + 1
        from (select max(commit_xid) as commit_xid from event) as newest
        where newest.commit_xid > log_xid()"
    )
    .execute(conn)
    .await?;
    Ok(lifted.rows_affected() > 0)
}
