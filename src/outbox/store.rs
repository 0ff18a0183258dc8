//! Rows of outbound messages.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::outbox::{OutboundMessage, State, Waiting};

struct Row {
    conversation_sid: String,
    outbound_message_id: Uuid,
    account_sid: String,
    line: String,
    as_holder: Option<String>,
    author: Option<String>,
    body: String,
    attributes: Option<String>,
    media_count: i16,
    acknowledged_opt_out: bool,
    held_since: Option<jiff_sqlx::Timestamp>,
    waiting_error: Option<String>,
    waiting_since: Option<jiff_sqlx::Timestamp>,
    state: String,
    outcome_code: Option<String>,
    outcome_detail: Option<String>,
    message_sid: Option<String>,
    requested_by: String,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
    erased_at: Option<jiff_sqlx::Timestamp>,
}

impl From<Row> for OutboundMessage {
    fn from(row: Row) -> Self {
        let waiting = row.waiting_error.zip(row.waiting_since);
        let state: State = serde_json::from_value(serde_json::Value::from(row.state))
            .expect("the column's check allows only these words");
        Self {
            outbound_message_id: row.outbound_message_id,
            conversation_sid: row.conversation_sid,
            account_sid: row.account_sid,
            line: row.line,
            as_holder: row.as_holder,
            author: row.author,
            body: row.body,
            attributes: row.attributes,
            media_count: row.media_count,
            acknowledged_opt_out: row.acknowledged_opt_out,
            held_since: row.held_since.map(jiff_sqlx::Timestamp::to_jiff),
            waiting: waiting.map(|(error, since)| Waiting {
                error,
                since: since.to_jiff(),
            }),
            state,
            outcome_code: row.outcome_code,
            outcome_detail: row.outcome_detail,
            message_sid: row.message_sid,
            requested_by: row.requested_by,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            erased_at: row.erased_at.map(jiff_sqlx::Timestamp::to_jiff),
        }
    }
}

pub(super) async fn insert(conn: &mut PgConnection, message: &OutboundMessage) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- outbox.insert
        insert into outbound_message (conversation_sid, outbound_message_id, account_sid, line, as_holder, body, attributes,
            media_count, acknowledged_opt_out, state, requested_by, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)",
        message.conversation_sid,
        message.outbound_message_id,
        message.account_sid,
        message.line,
        message.as_holder,
        message.body,
        message.attributes,
        message.media_count,
        message.acknowledged_opt_out,
        message.state.as_str(),
        message.requested_by,
        message.created_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what may change of a message.
pub(super) async fn update(conn: &mut PgConnection, message: &OutboundMessage) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- outbox.update
        update outbound_message
        set author = $3, state = $4, outcome_code = $5, outcome_detail = $6, message_sid = $7, updated_at = $8, held_since = $9,
            waiting_error = $10, waiting_since = $11
        where conversation_sid = $1 and outbound_message_id = $2",
        message.conversation_sid,
        message.outbound_message_id,
        message.author,
        message.state.as_str(),
        message.outcome_code,
        message.outcome_detail,
        message.message_sid,
        message.updated_at.to_sqlx() as _,
        message.held_since.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        message.waiting.as_ref().map(|waiting| waiting.error.as_str()),
        message.waiting.as_ref().map(|waiting| waiting.since.to_sqlx()) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Option<OutboundMessage>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- outbox.find
        select conversation_sid, outbound_message_id, account_sid, line, as_holder, author, body, attributes, media_count,
               acknowledged_opt_out, held_since, waiting_error, waiting_since, state,
               outcome_code, outcome_detail, message_sid, requested_by, created_at, updated_at, erased_at
        from outbound_message where outbound_message_id = $1",
        id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(OutboundMessage::from))
}

/// What is held of a conversation, in the order in which it was asked for, locked.
pub(super) async fn held(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<OutboundMessage>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- outbox.held
        select conversation_sid, outbound_message_id, account_sid, line, as_holder, author, body, attributes, media_count,
               acknowledged_opt_out, held_since, waiting_error, waiting_since, state,
               outcome_code, outcome_detail, message_sid, requested_by, created_at, updated_at, erased_at
        from outbound_message where conversation_sid = $1 and held_since is not null
        order by created_at, outbound_message_id for update",
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(OutboundMessage::from).collect())
}

/// Those of these, by conversation and id, of which it is not known whether they were sent; locked.
pub(super) async fn unknown(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
    ids: &[Uuid],
) -> Result<Vec<OutboundMessage>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- outbox.unknown
        select conversation_sid, outbound_message_id, account_sid, line, as_holder, author, body, attributes, media_count,
               acknowledged_opt_out, held_since, waiting_error, waiting_since, state,
               outcome_code, outcome_detail, message_sid, requested_by, created_at, updated_at, erased_at
        from outbound_message
        where (conversation_sid, outbound_message_id) in (select * from unnest($1::text[], $2::uuid[]))
          and state = 'needs_attention'
        order by conversation_sid, outbound_message_id for update",
        conversation_sids as _,
        ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(OutboundMessage::from).collect())
}

/// The conversations in which something is held.
pub(super) async fn conversations_held(conn: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- outbox.conversations_held
        select distinct conversation_sid from outbound_message where held_since is not null order by conversation_sid"
    )
    .fetch_all(conn)
    .await
}

/// Messages that were asked for in a conversation, newest first, those before `before` (a time and an id, for paging).
pub async fn page(
    conn: &mut PgConnection,
    conversation_sid: &str,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<OutboundMessage>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- outbox.page
        select conversation_sid, outbound_message_id, account_sid, line, as_holder, author, body, attributes, media_count,
               acknowledged_opt_out, held_since, waiting_error, waiting_since, state,
               outcome_code, outcome_detail, message_sid, requested_by, created_at, updated_at, erased_at
        from outbound_message
        where conversation_sid = $1
          and ($2::timestamptz is null or (created_at, outbound_message_id) < ($2, $3::uuid))
        order by created_at desc, outbound_message_id desc
        limit $4",
        conversation_sid,
        before.map(|(at, _)| at.to_sqlx()) as _,
        before.map(|(_, id)| id) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(OutboundMessage::from).collect())
}

/// Messages that are on their way, or of which it is not known whether they were sent; the oldest first, those after `after`
/// (a time and an id, for paging). `state`: only these.
pub async fn page_of_open(
    conn: &mut PgConnection,
    state: Option<State>,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<OutboundMessage>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- outbox.page_of_open
        select conversation_sid, outbound_message_id, account_sid, line, as_holder, author, body, attributes, media_count,
               acknowledged_opt_out, held_since, waiting_error, waiting_since, state,
               outcome_code, outcome_detail, message_sid, requested_by, created_at, updated_at, erased_at
        from outbound_message
        where state in ('queued', 'sending', 'needs_attention') and ($1::text is null or state = $1)
          and ($2::timestamptz is null or (created_at, outbound_message_id) > ($2, $3::uuid))
        order by created_at, outbound_message_id
        limit $4",
        state.map(State::as_str),
        after.map(|(at, _)| at.to_sqlx()) as _,
        after.map(|(_, id)| id) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(OutboundMessage::from).collect())
}

/// How many need attention.
pub async fn count_unknown(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- outbox.count_unknown
        select count(*) as "count!" from outbound_message
        where state = 'needs_attention'"#
    )
    .fetch_one(conn)
    .await
}
