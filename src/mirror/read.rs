//! Reading the mirror.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::ids::{AccountSid, ConversationSid};

/// A conversation as the mirror has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationRow {
    pub conversation_sid: ConversationSid,
    pub account_sid: AccountSid,
    pub service_sid: Option<String>,
    pub messaging_service_sid: Option<String>,
    pub friendly_name: Option<String>,
    pub unique_name: Option<String>,
    pub attributes: Option<String>,
    /// Twilio's word; None while only children of the conversation are known.
    pub state: Option<String>,
    pub created_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub removed_at: Option<Timestamp>,
    pub autocreated: bool,
    pub unverified_since: Option<Timestamp>,
    pub verified_at: Option<Timestamp>,
    pub first_seen_at: Timestamp,
    pub last_message_at: Option<Timestamp>,
    /// When something of it was erased here, if it was.
    pub erased_at: Option<Timestamp>,
}

impl ConversationRow {
    /// Closed and removed are final.
    pub fn is_over(&self) -> bool {
        self.removed_at.is_some() || self.state.as_deref() == Some("closed")
    }
}

/// A member as the mirror has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantRow {
    pub conversation_sid: String,
    pub participant_sid: String,
    pub identity: Option<String>,
    pub address: Option<String>,
    pub proxy_address: Option<String>,
    pub projected_address: Option<String>,
    pub attributes: Option<String>,
    pub role_sid: Option<String>,
    pub last_read_message_index: Option<i64>,
    pub created_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub removed_at: Option<Timestamp>,
    /// When something of it was erased here, if it was.
    pub erased_at: Option<Timestamp>,
}

/// A message as the mirror has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    pub conversation_sid: String,
    pub message_sid: String,
    pub index: Option<i64>,
    pub author: Option<String>,
    pub participant_sid: Option<String>,
    pub body: Option<String>,
    /// JSON list.
    pub media: Option<String>,
    pub attributes: Option<String>,
    pub source: Option<String>,
    pub created_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub removed_at: Option<Timestamp>,
    /// When something of it was erased here, if it was.
    pub erased_at: Option<Timestamp>,
}

/// How far one message has come to one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptRow {
    pub message_sid: String,
    pub delivery_receipt_sid: String,
    pub participant_sid: Option<String>,
    pub channel_message_sid: Option<String>,
    pub status: String,
    pub error_code: Option<String>,
    pub updated_at: Timestamp,
}

macro_rules! conversation_row {
    ($row:ident) => {
        ConversationRow {
            conversation_sid: $row.conversation_sid,
            account_sid: $row.account_sid,
            service_sid: $row.service_sid,
            messaging_service_sid: $row.messaging_service_sid,
            friendly_name: $row.friendly_name,
            unique_name: $row.unique_name,
            attributes: $row.attributes,
            state: $row.state,
            created_at: $row.created_at.map(|at| at.to_jiff()),
            closed_at: $row.closed_at.map(|at| at.to_jiff()),
            removed_at: $row.removed_at.map(|at| at.to_jiff()),
            autocreated: $row.autocreated,
            unverified_since: $row.unverified_since.map(|at| at.to_jiff()),
            verified_at: $row.verified_at.map(|at| at.to_jiff()),
            first_seen_at: $row.first_seen_at.to_jiff(),
            last_message_at: $row.last_message_at.map(|at| at.to_jiff()),
            erased_at: $row.erased_at.map(|at| at.to_jiff()),
        }
    };
}

pub async fn conversation(
    conn: &mut PgConnection,
    sid: &str,
) -> Result<Option<ConversationRow>, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- mirror.conversation
        select conversation_sid as "conversation_sid: ConversationSid", account_sid as "account_sid: AccountSid", service_sid,
               messaging_service_sid, friendly_name, unique_name, attributes, state, created_at, closed_at, removed_at,
               autocreated, unverified_since, verified_at, first_seen_at, last_message_at, erased_at
        from conversation where conversation_sid = $1"#,
        sid,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| conversation_row!(row)))
}

/// As [`conversation`], locked until the transaction ends: nothing that enters the mirror changes it meanwhile.
pub async fn lock_conversation(
    conn: &mut PgConnection,
    sid: &ConversationSid,
) -> Result<Option<ConversationRow>, sqlx::Error> {
    Ok(lock_conversations(conn, &[sid.as_str()]).await?.pop())
}

/// As [`lock_conversation`], of many, in the order of their SIDs, which is that in which everybody locks several.
pub async fn lock_conversations(
    conn: &mut PgConnection,
    sids: &[&str],
) -> Result<Vec<ConversationRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.lock_conversations
        select conversation_sid as "conversation_sid: ConversationSid", account_sid as "account_sid: AccountSid", service_sid,
               messaging_service_sid, friendly_name, unique_name, attributes, state, created_at, closed_at, removed_at,
               autocreated, unverified_since, verified_at, first_seen_at, last_message_at, erased_at
        from conversation where conversation_sid = any($1)
        order by conversation_sid
        for update"#,
        sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| conversation_row!(row)).collect())
}

/// Locks those of these conversations that nobody else has locked, and answers which.
pub async fn lock_free_conversations(
    conn: &mut PgConnection,
    sids: &[&str],
) -> Result<HashSet<ConversationSid>, sqlx::Error> {
    let free = sqlx::query_scalar!(
        r#"-- mirror.lock_free_conversations
        select conversation_sid as "conversation_sid: ConversationSid" from conversation where conversation_sid = any($1)
        order by conversation_sid
        for update skip locked"#,
        sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(free.into_iter().collect())
}

/// Which conversations to list; `None` takes any.
#[derive(Debug, Clone, Default)]
pub struct ConversationFilter {
    pub state: Option<String>,
    /// Only those that have this number as a line.
    pub line: Option<String>,
    /// Only those of which this identity holds a line.
    pub holder: Option<String>,
}

/// The accounts of these conversations.
pub async fn account_sids_of(conn: &mut PgConnection, sids: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- mirror.account_sids_of
        select distinct account_sid from conversation where conversation_sid = any($1) order by account_sid",
        sids,
    )
    .fetch_all(conn)
    .await
}

/// Conversations, the latest seen first, those before `before` (when first seen, and the SID, for paging).
pub async fn conversations(
    conn: &mut PgConnection,
    filter: &ConversationFilter,
    before: Option<(Timestamp, String)>,
    limit: i64,
) -> Result<Vec<ConversationRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.conversations
        select conversation_sid as "conversation_sid: ConversationSid", account_sid as "account_sid: AccountSid", service_sid,
               messaging_service_sid, friendly_name, unique_name, attributes, state, created_at, closed_at, removed_at,
               autocreated, unverified_since, verified_at, first_seen_at, last_message_at, erased_at
        from conversation
        where ($1::text is null or state = $1)
          and ($2::text is null or exists (
              select from participant
              where participant.conversation_sid = conversation.conversation_sid and projected_address = $2
                and participant.removed_at is null))
          and ($3::text is null or exists (
              select from participant
              where participant.conversation_sid = conversation.conversation_sid and identity = $3
                and projected_address is not null and participant.removed_at is null))
          and ($4::timestamptz is null or (first_seen_at, conversation_sid) < ($4, $5::text))
        order by first_seen_at desc, conversation_sid desc
        limit $6"#,
        filter.state,
        filter.line,
        filter.holder,
        before.as_ref().map(|(at, _)| at.to_sqlx()) as _,
        before.as_ref().map(|(_, sid)| sid.as_str()) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| conversation_row!(row)).collect())
}

/// The members of a conversation, those who left included, in the order of coming.
pub async fn participants(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<ParticipantRow>, sqlx::Error> {
    participants_of_many(conn, &[conversation_sid]).await
}

/// As [`participants`], of many conversations at once.
pub async fn participants_of_many(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
) -> Result<Vec<ParticipantRow>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- mirror.participants
        select conversation_sid, participant_sid, identity, address, proxy_address, projected_address, attributes, role_sid,
               last_read_message_index, created_at, version_at, removed_at, erased_at
        from participant where conversation_sid = any($1)
        order by conversation_sid, created_at, participant_sid",
        conversation_sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ParticipantRow {
            conversation_sid: row.conversation_sid,
            participant_sid: row.participant_sid,
            identity: row.identity,
            address: row.address,
            proxy_address: row.proxy_address,
            projected_address: row.projected_address,
            attributes: row.attributes,
            role_sid: row.role_sid,
            last_read_message_index: row.last_read_message_index,
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            updated_at: last_change(row.version_at, row.removed_at),
            removed_at: row.removed_at.map(jiff_sqlx::Timestamp::to_jiff),
            erased_at: row.erased_at.map(jiff_sqlx::Timestamp::to_jiff),
        })
        .collect())
}

/// Which of these (conversation, line, identity) are so that the person is in the conversation now, and not on that line; by
/// their places.
pub async fn elsewhere(
    conn: &mut PgConnection,
    asked: &[(&str, &str, &str)],
) -> Result<HashSet<usize>, sqlx::Error> {
    let conversations: Vec<&str> = asked.iter().map(|(sid, _, _)| *sid).collect();
    let lines: Vec<&str> = asked.iter().map(|(_, line, _)| *line).collect();
    let identities: Vec<&str> = asked.iter().map(|(_, _, identity)| *identity).collect();
    let places = sqlx::query_scalar!(
        r#"-- mirror.elsewhere
        select place as "place!"
        from unnest($1::text[], $2::text[], $3::text[]) with ordinality as asked (conversation_sid, line, identity, place)
        where exists (
            select from participant
            where participant.conversation_sid = asked.conversation_sid and participant.identity = asked.identity
              and participant.removed_at is null and participant.projected_address is distinct from asked.line)"#,
        &conversations as _,
        &lines as _,
        &identities as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(places
        .into_iter()
        .filter_map(|place| usize::try_from(place - 1).ok())
        .collect())
}

macro_rules! message_row {
    ($row:ident) => {
        MessageRow {
            conversation_sid: $row.conversation_sid,
            message_sid: $row.message_sid,
            index: $row.message_index,
            author: $row.author,
            participant_sid: $row.participant_sid,
            body: $row.body,
            media: $row.media,
            attributes: $row.attributes,
            source: $row.source,
            created_at: $row.created_at.map(|at| at.to_jiff()),
            updated_at: last_change($row.version_at, $row.removed_at),
            removed_at: $row.removed_at.map(|at| at.to_jiff()),
            erased_at: $row.erased_at.map(|at| at.to_jiff()),
        }
    };
}

/// Messages of a conversation in its order, those after `after` (an index and a SID, for paging), removed ones left out.
/// One without an index comes last.
pub async fn messages(
    conn: &mut PgConnection,
    conversation_sid: &str,
    after: Option<(Option<i64>, &str)>,
    limit: i64,
) -> Result<Vec<MessageRow>, sqlx::Error> {
    let (index, sid) = after.unzip();
    let rows = sqlx::query!(
        "-- mirror.messages
        select conversation_sid, message_sid, message_index, author, participant_sid, body, media, attributes, source,
               created_at, version_at, removed_at, erased_at
        from message
        where conversation_sid = $1 and removed_at is null
          and ($3::text is null
               or (message_index, message_sid) > ($2::bigint, $3)
               or (message_index is null and ($2 is not null or message_sid > $3)))
        order by message_index, message_sid
        limit $4",
        conversation_sid,
        index.flatten(),
        sid as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| message_row!(row)).collect())
}

/// Messages of a conversation in the order of their time (of creation, where it is known), removed ones included;
/// those after `after` (a time, an index and a SID, for paging). One without an index comes first of its instant.
pub async fn messages_by_time(
    conn: &mut PgConnection,
    conversation_sid: &str,
    after: Option<(Timestamp, i64, &str)>,
    limit: i64,
) -> Result<Vec<MessageRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.messages_by_time
        select conversation_sid, message_sid, message_index, author, participant_sid, body, media, attributes, source,
               created_at, version_at, removed_at, erased_at
        from message
        where conversation_sid = $1
          and ($2::timestamptz is null
               or (coalesce(created_at, version_at), coalesce(message_index, -1), message_sid collate "C")
                  > ($2, $3::bigint, $4::text))
        order by coalesce(created_at, version_at), coalesce(message_index, -1), message_sid collate "C"
        limit $5"#,
        conversation_sid,
        after.map(|(at, _, _)| at.to_sqlx()) as _,
        after.map(|(_, index, _)| index),
        after.map(|(_, _, sid)| sid),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| message_row!(row)).collect())
}

/// Messages by SID, removed ones included.
pub async fn messages_by_sid(
    conn: &mut PgConnection,
    keys: &[(String, String)],
) -> Result<Vec<MessageRow>, sqlx::Error> {
    let (conversations, sids): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(|(conversation, sid)| (conversation.as_str(), sid.as_str()))
        .unzip();
    let rows = sqlx::query!(
        "-- mirror.messages_by_sid
        select conversation_sid, message_sid, message_index, author, participant_sid, body, media, attributes, source,
               created_at, version_at, removed_at, erased_at
        from message
        where (conversation_sid, message_sid) in (select * from unnest($1::text[], $2::text[]))",
        &conversations as _,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| message_row!(row)).collect())
}

/// One message of a conversation.
pub async fn message(
    conn: &mut PgConnection,
    conversation_sid: &str,
    message_sid: &str,
) -> Result<Option<MessageRow>, sqlx::Error> {
    let row = sqlx::query!(
        "-- mirror.message
        select conversation_sid, message_sid, message_index, author, participant_sid, body, media, attributes, source,
               created_at, version_at, removed_at, erased_at
        from message where conversation_sid = $1 and message_sid = $2",
        conversation_sid,
        message_sid,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| message_row!(row)))
}

/// The SID of the message of a conversation in whose attributes this stands.
pub async fn message_carrying(
    conn: &mut PgConnection,
    conversation_sid: &str,
    text: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- mirror.message_carrying
        select message_sid from message
        where conversation_sid = $1 and position($2 in attributes) > 0 and removed_at is null
        order by message_sid limit 1",
        conversation_sid,
        text,
    )
    .fetch_optional(conn)
    .await
}

/// The receipts of some messages of a conversation.
pub async fn receipts(
    conn: &mut PgConnection,
    conversation_sid: &str,
    message_sids: &[&str],
) -> Result<Vec<ReceiptRow>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- mirror.receipts
        select message_sid, delivery_receipt_sid, participant_sid, channel_message_sid, status, error_code, version_at
        from delivery_receipt
        where conversation_sid = $1 and message_sid = any($2)
        order by message_sid, delivery_receipt_sid",
        conversation_sid,
        message_sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ReceiptRow {
            message_sid: row.message_sid,
            delivery_receipt_sid: row.delivery_receipt_sid,
            participant_sid: row.participant_sid,
            channel_message_sid: row.channel_message_sid,
            status: row.status,
            error_code: row.error_code,
            updated_at: row.version_at.to_jiff(),
        })
        .collect())
}

/// A removal is a change too, though what it says of the rest may be older.
pub(super) fn last_change(
    version_at: jiff_sqlx::Timestamp,
    removed_at: Option<jiff_sqlx::Timestamp>,
) -> Timestamp {
    let version_at = version_at.to_jiff();
    removed_at.map_or(version_at, |at| version_at.max(at.to_jiff()))
}
