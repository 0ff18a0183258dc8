//! All that was ever said of one resource, with both times: for who may see what was edited and removed.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::ids::{ConversationSid, MessageSid, ParticipantSid};
use crate::mirror::change::{ConversationFields, MessageFields, ParticipantFields};
use crate::mirror::fold::{ConversationSays, Says};

/// One statement of Twilio's about a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionRow<S> {
    /// Since when it was so at Twilio.
    pub at: Timestamp,
    /// Since when we know.
    pub learnt_at: Timestamp,
    /// It is what the mirror says now.
    pub is_current: bool,
    pub says: S,
    /// When something of it was erased here, if it was.
    pub erased_at: Option<Timestamp>,
    /// Tells those of one instant apart.
    pub key: String,
}

/// A place in a list of versions: `at`, `learnt_at` and the key of the last one that was read.
pub type Place = (Timestamp, Timestamp, String);

macro_rules! version_row {
    ($row:ident, $says:expr) => {
        VersionRow {
            at: $row.at.to_jiff(),
            learnt_at: $row.learnt_at.to_jiff(),
            is_current: $row.is_current,
            says: $says,
            erased_at: $row.erased_at.map(|at| at.to_jiff()),
            key: $row.key,
        }
    };
}

/// The versions of a message, the earliest first.
pub async fn of_message(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    sid: &MessageSid,
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<VersionRow<Says<MessageFields>>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.versions_of_message
        select at as "at!", learnt_at as "learnt_at!", is_current as "is_current!", aspect as "aspect!", key as "key!", erased_at,
               message_index, author, participant_sid, body, media, attributes
        from (
            select coalesce(stated_at, version_at) as at, learnt_at, true as is_current, 'content' as aspect, '' as key, erased_at,
                   message_index, author, participant_sid, body, media, attributes
            from message where conversation_sid = $1 and message_sid = $2 and learnt_at is not null
            union all
            select removed_at, coalesce(removal_learnt_at, 'epoch'), true, 'removal', 'removal', null::timestamptz, null, null, null, null,
                   null, null
            from message where conversation_sid = $1 and message_sid = $2 and removed_at is not null
            union all
            select stated_at, learnt_at, false, aspect, aspect || encode(digest, 'hex'), coalesce(erased_at, (select erased_at from message where conversation_sid = $1 and message_sid = $2)), message_index, author,
                   participant_sid, body, media, attributes
            from message_version where conversation_sid = $1 and message_sid = $2
        ) as version
        where $3::timestamptz is null or (at, learnt_at, key collate "C") > ($3, $4::timestamptz, $5::text)
        order by at, learnt_at, key collate "C"
        limit $6"#,
        conversation_sid.as_str(),
        sid.as_str(),
        after.map(|place| place.0.to_sqlx()) as _,
        after.map(|place| place.1.to_sqlx()) as _,
        after.map(|place| place.2.as_str()),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let says = match row.aspect.as_str() {
                "removal" => Says::Removed,
                _ => Says::Content(MessageFields {
                    index: row.message_index,
                    author: row.author,
                    participant_sid: row.participant_sid,
                    body: row.body,
                    media: row.media,
                    attributes: row.attributes,
                }),
            };
            version_row!(row, says)
        })
        .collect())
}

/// The versions of a participant, the earliest first.
pub async fn of_participant(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    sid: &ParticipantSid,
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<VersionRow<Says<ParticipantFields>>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.versions_of_participant
        select at as "at!", learnt_at as "learnt_at!", is_current as "is_current!", aspect as "aspect!", key as "key!", erased_at,
               identity, address, proxy_address, projected_address, binding_type, role_sid, attributes,
               last_read_message_index
        from (
            select coalesce(stated_at, version_at) as at, learnt_at, true as is_current, 'content' as aspect, '' as key, erased_at,
                   identity, address, proxy_address, projected_address, binding_type, role_sid, attributes,
                   last_read_message_index
            from participant where conversation_sid = $1 and participant_sid = $2 and learnt_at is not null
            union all
            select removed_at, coalesce(removal_learnt_at, 'epoch'), true, 'removal', 'removal', null::timestamptz, null, null, null, null,
                   null, null, null, null
            from participant where conversation_sid = $1 and participant_sid = $2 and removed_at is not null
            union all
            select stated_at, learnt_at, false, aspect, aspect || encode(digest, 'hex'), coalesce(erased_at, (select erased_at from participant where conversation_sid = $1 and participant_sid = $2)), identity, address,
                   proxy_address, projected_address, binding_type, role_sid, attributes, last_read_message_index
            from participant_version where conversation_sid = $1 and participant_sid = $2
        ) as version
        where $3::timestamptz is null or (at, learnt_at, key collate "C") > ($3, $4::timestamptz, $5::text)
        order by at, learnt_at, key collate "C"
        limit $6"#,
        conversation_sid.as_str(),
        sid.as_str(),
        after.map(|place| place.0.to_sqlx()) as _,
        after.map(|place| place.1.to_sqlx()) as _,
        after.map(|place| place.2.as_str()),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let says = match row.aspect.as_str() {
                "removal" => Says::Removed,
                _ => Says::Content(ParticipantFields {
                    identity: row.identity,
                    address: row.address,
                    proxy_address: row.proxy_address,
                    projected_address: row.projected_address,
                    binding_type: row.binding_type,
                    role_sid: row.role_sid,
                    attributes: row.attributes,
                    last_read_message_index: row.last_read_message_index,
                }),
            };
            version_row!(row, says)
        })
        .collect())
}

/// The versions of a conversation, the earliest first: what it is, its state, and its removal.
pub async fn of_conversation(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<VersionRow<ConversationSays>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.versions_of_conversation
        select at as "at!", learnt_at as "learnt_at!", is_current as "is_current!", aspect as "aspect!", key as "key!", erased_at,
               messaging_service_sid, friendly_name, unique_name, attributes, state
        from (
            select coalesce(stated_at, version_at) as at, learnt_at, true as is_current, 'content' as aspect, '' as key, erased_at,
                   messaging_service_sid, friendly_name, unique_name, attributes, null as state
            from conversation where conversation_sid = $1 and learnt_at is not null and version_at is not null
            union all
            select coalesce(closed_at, state_stated_at, state_at), state_learnt_at, true, 'state', 'state', null::timestamptz, null, null,
                   null, null, state
            from conversation where conversation_sid = $1 and state is not null and state_at is not null
              and state_learnt_at is not null
            union all
            select removed_at, coalesce(removal_learnt_at, 'epoch'), true, 'removal', 'removal', null::timestamptz, null, null, null, null,
                   null
            from conversation where conversation_sid = $1 and removed_at is not null
            union all
            select stated_at, learnt_at, false, aspect, aspect || encode(digest, 'hex'), coalesce(erased_at, (select erased_at from conversation where conversation_sid = $1)), messaging_service_sid,
                   friendly_name, unique_name, attributes, state
            from conversation_version where conversation_sid = $1
        ) as version
        where $2::timestamptz is null or (at, learnt_at, key collate "C") > ($2, $3::timestamptz, $4::text)
        order by at, learnt_at, key collate "C"
        limit $5"#,
        sid.as_str(),
        after.map(|place| place.0.to_sqlx()) as _,
        after.map(|place| place.1.to_sqlx()) as _,
        after.map(|place| place.2.as_str()),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let says = match (row.aspect.as_str(), row.state) {
                ("removal", _) => ConversationSays::Removed,
                (_, Some(state)) => ConversationSays::State(state),
                (_, None) => ConversationSays::Content(ConversationFields {
                    service_sid: None,
                    messaging_service_sid: row.messaging_service_sid,
                    friendly_name: row.friendly_name,
                    unique_name: row.unique_name,
                    attributes: row.attributes,
                }),
            };
            version_row!(row, says)
        })
        .collect())
}
