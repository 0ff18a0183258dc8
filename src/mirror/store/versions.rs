//! Writing the statements that the rows do not hold. The same one is kept once, so that a repeat changes nothing.

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::column;
use crate::mirror::change::{ConversationFields, MessageFields, ParticipantFields};
use crate::mirror::fold::{
    ConversationPast, ConversationSays, MessagePast, ParticipantPast, ReceiptPast, Says, Versions,
};

/// Writes one statement per table, and none where nothing became past. Answers how many were new.
pub(in crate::mirror) async fn keep_versions(
    conn: &mut PgConnection,
    versions: &Versions,
) -> Result<u64, sqlx::Error> {
    Ok(keep_conversations(conn, &versions.conversations).await?
        + keep_participants(conn, &versions.participants).await?
        + keep_messages(conn, &versions.messages).await?
        + keep_receipts(conn, &versions.receipts).await?)
}

const CONTENT: &str = "content";
const STATE: &str = "state";
const REMOVAL: &str = "removal";

impl<F> Says<F> {
    fn aspect(&self) -> &'static str {
        match self {
            Self::Content(_) => CONTENT,
            Self::Removed => REMOVAL,
        }
    }

    fn content(&self) -> Option<&F> {
        match self {
            Self::Content(fields) => Some(fields),
            Self::Removed => None,
        }
    }
}

impl ConversationSays {
    fn aspect(&self) -> &'static str {
        match self {
            Self::Content(_) => CONTENT,
            Self::State(_) => STATE,
            Self::Removed => REMOVAL,
        }
    }

    fn content(&self) -> Option<&ConversationFields> {
        match self {
            Self::Content(fields) => Some(fields),
            Self::State(_) | Self::Removed => None,
        }
    }

    fn state(&self) -> Option<&str> {
        match self {
            Self::State(state) => Some(state),
            Self::Content(_) | Self::Removed => None,
        }
    }
}

async fn keep_conversations(conn: &mut PgConnection, past: &[ConversationPast]) -> Result<u64, sqlx::Error> {
    if past.is_empty() {
        return Ok(0);
    }
    let of = |one: &ConversationPast, member: fn(&ConversationFields) -> &Option<String>| {
        one.says.content().and_then(|fields| member(fields).clone())
    };
    let kept = sqlx::query!(
        "-- mirror.keep_conversations
        insert into conversation_version (conversation_sid, aspect, version_at, stated_at, learnt_at,
            messaging_service_sid, friendly_name, unique_name, attributes, state, digest)
        select sid, aspect, version_at, stated_at, learnt_at, messaging_service_sid, friendly_name, unique_name,
               attributes, state,
               substr(sha256(convert_to(row(messaging_service_sid, friendly_name, unique_name, attributes, state)::text,
                                        'UTF8')), 1, 16)
        from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                    $7::text[], $8::text[], $9::text[], $10::text[])
            as past (sid, aspect, version_at, stated_at, learnt_at, messaging_service_sid, friendly_name, unique_name,
                     attributes, state)
        on conflict do nothing",
        column!(past, |one| one.key.as_str()) as _,
        column!(past, |one| one.says.aspect()) as _,
        column!(past, |one| one.version_at.to_sqlx()) as _,
        column!(past, |one| one.told.stated_at.to_sqlx()) as _,
        column!(past, |one| one.told.learnt_at.to_sqlx()) as _,
        column!(past, |one| of(one, |fields| &fields.messaging_service_sid)) as _,
        column!(past, |one| of(one, |fields| &fields.friendly_name)) as _,
        column!(past, |one| of(one, |fields| &fields.unique_name)) as _,
        column!(past, |one| of(one, |fields| &fields.attributes)) as _,
        column!(past, |one| one.says.state()) as _,
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected())
}

async fn keep_participants(conn: &mut PgConnection, past: &[ParticipantPast]) -> Result<u64, sqlx::Error> {
    if past.is_empty() {
        return Ok(0);
    }
    let of = |one: &ParticipantPast, member: fn(&ParticipantFields) -> &Option<String>| {
        one.says.content().and_then(|fields| member(fields).clone())
    };
    let kept = sqlx::query!(
        "-- mirror.keep_participants
        insert into participant_version (conversation_sid, participant_sid, aspect, version_at, stated_at, learnt_at,
            identity, address, proxy_address, projected_address, binding_type, role_sid, attributes,
            last_read_message_index, digest)
        select conversation_sid, sid, aspect, version_at, stated_at, learnt_at, identity, address, proxy_address,
               projected_address, binding_type, role_sid, attributes, horizon,
               substr(sha256(convert_to(row(identity, address, proxy_address, projected_address, binding_type, role_sid,
                                            attributes, horizon)::text, 'UTF8')), 1, 16)
        from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                    $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[])
            as past (conversation_sid, sid, aspect, version_at, stated_at, learnt_at, identity, address, proxy_address,
                     projected_address, binding_type, role_sid, attributes, horizon)
        on conflict do nothing",
        column!(past, |one| one.key.0.as_str()) as _,
        column!(past, |one| one.key.1.as_str()) as _,
        column!(past, |one| one.says.aspect()) as _,
        column!(past, |one| one.version_at.to_sqlx()) as _,
        column!(past, |one| one.told.stated_at.to_sqlx()) as _,
        column!(past, |one| one.told.learnt_at.to_sqlx()) as _,
        column!(past, |one| of(one, |fields| &fields.identity)) as _,
        column!(past, |one| of(one, |fields| &fields.address)) as _,
        column!(past, |one| of(one, |fields| &fields.proxy_address)) as _,
        column!(past, |one| of(one, |fields| &fields.projected_address)) as _,
        column!(past, |one| of(one, |fields| &fields.binding_type)) as _,
        column!(past, |one| of(one, |fields| &fields.role_sid)) as _,
        column!(past, |one| of(one, |fields| &fields.attributes)) as _,
        column!(past, |one| one
            .says
            .content()
            .and_then(|fields| fields.last_read_message_index)) as _,
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected())
}

async fn keep_messages(conn: &mut PgConnection, past: &[MessagePast]) -> Result<u64, sqlx::Error> {
    if past.is_empty() {
        return Ok(0);
    }
    let of = |one: &MessagePast, member: fn(&MessageFields) -> &Option<String>| {
        one.says.content().and_then(|fields| member(fields).clone())
    };
    let kept = sqlx::query!(
        "-- mirror.keep_messages
        insert into message_version (conversation_sid, message_sid, aspect, version_at, stated_at, learnt_at,
            message_index, author, participant_sid, body, media, attributes, digest)
        select conversation_sid, sid, aspect, version_at, stated_at, learnt_at, index, author, participant_sid, body,
               media, attributes,
               substr(sha256(convert_to(row(index, author, participant_sid, body, media, attributes)::text, 'UTF8')), 1, 16)
        from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                    $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[])
            as past (conversation_sid, sid, aspect, version_at, stated_at, learnt_at, index, author, participant_sid,
                     body, media, attributes)
        on conflict do nothing",
        column!(past, |one| one.key.0.as_str()) as _,
        column!(past, |one| one.key.1.as_str()) as _,
        column!(past, |one| one.says.aspect()) as _,
        column!(past, |one| one.version_at.to_sqlx()) as _,
        column!(past, |one| one.told.stated_at.to_sqlx()) as _,
        column!(past, |one| one.told.learnt_at.to_sqlx()) as _,
        column!(past, |one| one.says.content().and_then(|fields| fields.index)) as _,
        column!(past, |one| of(one, |fields| &fields.author)) as _,
        column!(past, |one| of(one, |fields| &fields.participant_sid)) as _,
        column!(past, |one| of(one, |fields| &fields.body)) as _,
        column!(past, |one| of(one, |fields| &fields.media)) as _,
        column!(past, |one| of(one, |fields| &fields.attributes)) as _,
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected())
}

async fn keep_receipts(conn: &mut PgConnection, past: &[ReceiptPast]) -> Result<u64, sqlx::Error> {
    if past.is_empty() {
        return Ok(0);
    }
    let kept = sqlx::query!(
        "-- mirror.keep_receipts
        insert into receipt_version (conversation_sid, message_sid, delivery_receipt_sid, version_at, learnt_at, status,
            error_code)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[],
            $7::text[])
        on conflict do nothing",
        column!(past, |one| one.key.0.as_str()) as _,
        column!(past, |one| one.key.1.as_str()) as _,
        column!(past, |one| one.key.2.as_str()) as _,
        column!(past, |one| one.version_at.to_sqlx()) as _,
        column!(past, |one| one.told.learnt_at.to_sqlx()) as _,
        column!(past, |one| one.says.status.as_str()) as _,
        column!(past, |one| one.says.error_code.as_deref()) as _,
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected())
}
