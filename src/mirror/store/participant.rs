//! Participants' rows.

use std::collections::BTreeSet;

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::{column, learnt_at, stated_at, told, version};
use crate::ids::{AccountSid, ConversationSid, ParticipantSid};
use crate::mirror::change::ParticipantFields;
use crate::mirror::erased::Erased;
use crate::mirror::fold::{Participant, State};

pub(super) async fn load_participants(
    conn: &mut PgConnection,
    keys: &BTreeSet<(ConversationSid, ParticipantSid)>,
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
        r#"-- mirror.load_participants
        select conversation_sid as "conversation_sid: ConversationSid", participant_sid as "sid: ParticipantSid",
               account_sid as "account_sid: AccountSid", identity, address, proxy_address, projected_address, binding_type,
               role_sid, attributes, last_read_message_index, created_at, version_at, version_exact, removed_at, revision, learnt_at,
               stated_at, removal_learnt_at, erased
        from unnest($1::text[], $2::text[]) as wanted (conversation, sid)
        cross join lateral (select * from participant
            where conversation_sid = wanted.conversation and participant_sid = wanted.sid offset 0) as participant"#,
        &conversations as _,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let participant = Participant {
            account_sid: row.account_sid,
            fields: ParticipantFields {
                identity: row.identity,
                address: row.address,
                proxy_address: row.proxy_address,
                projected_address: row.projected_address,
                binding_type: row.binding_type,
                role_sid: row.role_sid,
                attributes: row.attributes,
                last_read_message_index: row.last_read_message_index,
            },
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            version: version(row.version_at, row.version_exact),
            told: told(Some(row.version_at), row.stated_at, row.learnt_at),
            removed_at: row.removed_at.map(jiff_sqlx::Timestamp::to_jiff),
            removal_learnt_at: row.removal_learnt_at.map(jiff_sqlx::Timestamp::to_jiff),
            revision: row.revision,
            erased: Erased::read(row.erased),
            dirty: false,
        };
        state
            .participants
            .insert((row.conversation_sid, row.sid), participant);
    }
    Ok(())
}

pub(super) async fn save_participants(conn: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    let rows: Vec<(&(ConversationSid, ParticipantSid), &Participant)> =
        state.participants.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_participants
        insert into participant (conversation_sid, participant_sid, account_sid, identity, address, proxy_address,
            projected_address, binding_type, role_sid, attributes, last_read_message_index, created_at, version_at,
            version_exact, removed_at, revision, learnt_at, stated_at, removal_learnt_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::bigint[], $12::timestamptz[], $13::timestamptz[], $14::boolean[],
            $15::timestamptz[], $16::bigint[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[])
        on conflict (conversation_sid, participant_sid) do update
        set identity = excluded.identity, address = excluded.address, proxy_address = excluded.proxy_address,
            projected_address = excluded.projected_address, binding_type = excluded.binding_type,
            role_sid = excluded.role_sid, attributes = excluded.attributes,
            last_read_message_index = excluded.last_read_message_index, created_at = excluded.created_at,
            version_at = excluded.version_at, version_exact = excluded.version_exact, removed_at = excluded.removed_at,
            revision = excluded.revision,
            learnt_at = excluded.learnt_at, stated_at = excluded.stated_at,
            removal_learnt_at = excluded.removal_learnt_at",
        column!(rows, |((conversation, _), _)| conversation.as_str()) as _,
        column!(rows, |((_, sid), _)| sid.as_str()) as _,
        column!(rows, |(_, row)| row.account_sid.as_str()) as _,
        column!(rows, |(_, row)| row.fields.identity.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.address.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.proxy_address.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.projected_address.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.binding_type.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.role_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.attributes.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.last_read_message_index) as _,
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
