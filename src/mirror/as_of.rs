//! The mirror as it was: what was true at one time, as far as was known at another.
//!
//! The reading itself is in functions of the database (`message_as_of` and its like), which take the newest of the
//! statements that count, whether a row still holds it or its versions do.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::ids::{AccountSid, ConversationSid};
use crate::mirror::read::{ConversationRow, MessageRow, ParticipantRow, ReceiptRow, last_change};

/// A past moment: what was so at `as_of`, as far as had been learnt by `known_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub as_of: Timestamp,
    pub known_at: Timestamp,
}

/// The conversation, if it was there then. What we do with it ourselves (when it was verified, what is in doubt) is of
/// the present, and left out.
pub async fn conversation(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    moment: Moment,
) -> Result<Option<ConversationRow>, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- mirror.conversation_as_of
        select c.conversation_sid as "conversation_sid!: ConversationSid", c.account_sid as "account_sid!: AccountSid",
               c.service_sid, c.messaging_service_sid, c.friendly_name, c.unique_name, c.attributes, c.state,
               c.created_at, c.closed_at, c.removed_at, c.autocreated as "autocreated!",
               c.first_seen_at as "first_seen_at!", c.erased_at,
               (select max(created_at) from message_as_of($1, $2, $3)) as last_message_at
        from conversation_as_of($1, $2, $3) as c"#,
        sid.as_str(),
        moment.as_of.to_sqlx() as _,
        moment.known_at.to_sqlx() as _,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| ConversationRow {
        conversation_sid: row.conversation_sid,
        account_sid: row.account_sid,
        service_sid: row.service_sid,
        messaging_service_sid: row.messaging_service_sid,
        friendly_name: row.friendly_name,
        unique_name: row.unique_name,
        attributes: row.attributes,
        state: row.state,
        created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
        closed_at: row.closed_at.map(jiff_sqlx::Timestamp::to_jiff),
        removed_at: row.removed_at.map(jiff_sqlx::Timestamp::to_jiff),
        autocreated: row.autocreated,
        unverified_since: None,
        verified_at: None,
        first_seen_at: row.first_seen_at.to_jiff(),
        last_message_at: row.last_message_at.map(jiff_sqlx::Timestamp::to_jiff),
        erased_at: row.erased_at.map(jiff_sqlx::Timestamp::to_jiff),
    }))
}

/// Whether the conversation was there then, without reading the rest.
pub async fn was_there(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    moment: Moment,
) -> Result<bool, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- mirror.was_there
        select exists (select from conversation_as_of($1, $2, $3)) as "was_there!""#,
        sid.as_str(),
        moment.as_of.to_sqlx() as _,
        moment.known_at.to_sqlx() as _,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.was_there)
}

/// As [`super::read::participants`]: those who had left by then are there, with `removed_at`.
pub async fn participants(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    moment: Moment,
) -> Result<Vec<ParticipantRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.participants_as_of
        select conversation_sid as "conversation_sid!", participant_sid as "participant_sid!", identity, address,
               proxy_address, projected_address, attributes, role_sid, last_read_message_index, created_at,
               version_at as "version_at!", removed_at, erased_at
        from participant_as_of($1, $2, $3)
        order by created_at, participant_sid"#,
        conversation_sid.as_str(),
        moment.as_of.to_sqlx() as _,
        moment.known_at.to_sqlx() as _,
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

/// A message as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastMessage {
    pub row: MessageRow,
    /// It still says so: it was neither edited nor removed since, as far as we know now.
    pub is_current: bool,
    /// Where it stands among the messages of the conversation, then as now.
    pub index: Option<i64>,
    /// By which it is ordered in time.
    pub at: Timestamp,
}

macro_rules! past_message {
    ($row:ident) => {
        PastMessage {
            row: MessageRow {
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
            },
            is_current: $row.is_current,
            index: $row.order_index,
            at: $row.order_at.to_jiff(),
        }
    };
}

/// As [`super::read::messages`]: those that were removed by then are left out.
pub async fn messages(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    moment: Moment,
    after: Option<(Option<i64>, &str)>,
    limit: i64,
) -> Result<Vec<PastMessage>, sqlx::Error> {
    let (index, sid) = after.unzip();
    let rows = sqlx::query!(
        r#"-- mirror.messages_as_of
        select v.conversation_sid as "conversation_sid!", v.message_sid as "message_sid!", v.message_index, v.author,
               v.participant_sid, v.body, v.media, v.attributes, v.source, v.created_at, v.version_at as "version_at!",
               v.removed_at, v.erased_at, v.order_index, v.order_at as "order_at!",
               v.is_current and not exists (
                   select from message m
                   where m.conversation_sid = v.conversation_sid and m.message_sid = v.message_sid
                     and m.removed_at is not null) as "is_current!"
        from message_as_of($1, $2, $3) as v
        where v.removed_at is null
          and ($5::text is null
               or (v.order_index, v.message_sid) > ($4::bigint, $5)
               or (v.order_index is null and ($4 is not null or v.message_sid > $5)))
        order by v.order_index, v.message_sid
        limit $6"#,
        conversation_sid.as_str(),
        moment.as_of.to_sqlx() as _,
        moment.known_at.to_sqlx() as _,
        index.flatten(),
        sid as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| past_message!(row)).collect())
}

/// As [`super::read::messages_by_time`]: those that were removed by then are there, with `removed_at`.
pub async fn messages_by_time(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    moment: Moment,
    after: Option<(Timestamp, i64, &str)>,
    limit: i64,
) -> Result<Vec<PastMessage>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.messages_by_time_as_of
        select v.conversation_sid as "conversation_sid!", v.message_sid as "message_sid!", v.message_index, v.author,
               v.participant_sid, v.body, v.media, v.attributes, v.source, v.created_at,
               v.version_at as "version_at!", v.removed_at, v.erased_at, v.order_index, v.order_at as "order_at!",
               v.is_current and not exists (
                   select from message m
                   where m.conversation_sid = v.conversation_sid and m.message_sid = v.message_sid
                     and m.removed_at is not null) as "is_current!"
        from message_as_of($1, $2, $3) as v
        where ($4::timestamptz is null
               or (v.order_at, coalesce(v.order_index, -1), v.message_sid collate "C") > ($4, $5::bigint, $6::text))
        order by v.order_at, coalesce(v.order_index, -1), v.message_sid collate "C"
        limit $7"#,
        conversation_sid.as_str(),
        moment.as_of.to_sqlx() as _,
        moment.known_at.to_sqlx() as _,
        after.map(|(at, _, _)| at.to_sqlx()) as _,
        after.map(|(_, index, _)| index),
        after.map(|(_, _, sid)| sid),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| past_message!(row)).collect())
}

/// How far some messages of a conversation had come.
pub async fn receipts(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    message_sids: &[&str],
    moment: Moment,
) -> Result<Vec<ReceiptRow>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.receipts_as_of
        select message_sid as "message_sid!", delivery_receipt_sid as "delivery_receipt_sid!", participant_sid,
               channel_message_sid, status as "status!", error_code, version_at as "version_at!"
        from receipt_as_of($1, $2, $3)
        where message_sid = any($4)
        order by message_sid, delivery_receipt_sid"#,
        conversation_sid.as_str(),
        moment.as_of.to_sqlx() as _,
        moment.known_at.to_sqlx() as _,
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
