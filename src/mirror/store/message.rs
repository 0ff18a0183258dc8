//! Messages' rows.

use std::collections::BTreeSet;

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::{column, learnt_at, stated_at, told, version};
use crate::ids::{AccountSid, ConversationSid, MessageSid};
use crate::mirror::change::MessageFields;
use crate::mirror::erased::Erased;
use crate::mirror::fold::{Message, State};

pub(super) async fn load_messages(
    conn: &mut PgConnection,
    keys: &BTreeSet<(ConversationSid, MessageSid)>,
    state: &mut State,
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let (conversations, sids): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(|(conversation, sid)| (conversation.as_str(), sid.as_str()))
        .unzip();
    let rows = sqlx::query!(
        r#"-- mirror.load_messages
        select conversation_sid as "conversation_sid: ConversationSid", message_sid as "sid: MessageSid",
               account_sid as "account_sid: AccountSid", message_index, author, participant_sid, body, media, attributes,
               source, created_at, version_at, version_exact, removed_at, revision, learnt_at,
               stated_at, removal_learnt_at, erased
        from unnest($1::text[], $2::text[]) as wanted (conversation, sid)
        cross join lateral (select * from message
            where conversation_sid = wanted.conversation and message_sid = wanted.sid offset 0) as message"#,
        &conversations as _,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let message = Message {
            account_sid: row.account_sid,
            fields: MessageFields {
                index: row.message_index,
                author: row.author,
                participant_sid: row.participant_sid,
                body: row.body,
                media: row.media,
                attributes: row.attributes,
            },
            source: row.source,
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            version: version(row.version_at, row.version_exact),
            told: told(Some(row.version_at), row.stated_at, row.learnt_at),
            removed_at: row.removed_at.map(jiff_sqlx::Timestamp::to_jiff),
            removal_learnt_at: row.removal_learnt_at.map(jiff_sqlx::Timestamp::to_jiff),
            revision: row.revision,
            erased: Erased::read(row.erased),
            dirty: false,
        };
        state.messages.insert((row.conversation_sid, row.sid), message);
    }
    Ok(())
}

pub(super) async fn save_messages(conn: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    let rows: Vec<(&(ConversationSid, MessageSid), &Message)> =
        state.messages.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_messages
        insert into message (conversation_sid, message_sid, account_sid, message_index, author, participant_sid, body,
            media, attributes, source, created_at, version_at, version_exact, removed_at, revision, learnt_at, stated_at, removal_learnt_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::boolean[],
            $14::timestamptz[], $15::bigint[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[])
        on conflict (conversation_sid, message_sid) do update
        set message_index = excluded.message_index, author = excluded.author, participant_sid = excluded.participant_sid,
            body = excluded.body, media = excluded.media, attributes = excluded.attributes, source = excluded.source,
            created_at = excluded.created_at, version_at = excluded.version_at, version_exact = excluded.version_exact,
            removed_at = excluded.removed_at, revision = excluded.revision,
            learnt_at = excluded.learnt_at, stated_at = excluded.stated_at,
            removal_learnt_at = excluded.removal_learnt_at",
        column!(rows, |((conversation, _), _)| conversation.as_str()) as _,
        column!(rows, |((_, sid), _)| sid.as_str()) as _,
        column!(rows, |(_, row)| row.account_sid.as_str()) as _,
        column!(rows, |(_, row)| row.fields.index) as _,
        column!(rows, |(_, row)| row.fields.author.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.participant_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.body.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.media.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.attributes.as_deref()) as _,
        column!(rows, |(_, row)| row.source.as_deref()) as _,
        column!(rows, |(_, row)| row.created_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.version.at.to_sqlx()) as _,
        column!(rows, |(_, row)| row.version.exact),
        column!(rows, |(_, row)| row.removed_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.revision),
        column!(rows, |(_, row)| learnt_at(row.told)) as _,
        column!(rows, |(_, row)| stated_at(row.told, Some(row.version))) as _,
        column!(rows, |(_, row)| row.removal_learnt_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
