//! Conversations' rows.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::{column, learnt_at, stated_at, told, version};
use crate::ids::{AccountSid, ConversationSid};
use crate::mirror::change::{ConversationFields, Observed};
use crate::mirror::erased::Erased;
use crate::mirror::fold::{Conversation, State};

/// A child may come before its parent: the row is made first, so that there is something to lock.
pub(super) async fn ensure_conversations(
    conn: &mut PgConnection,
    observed: &[Observed],
    missing: &BTreeSet<ConversationSid>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let pairs: BTreeSet<(&str, &str)> = observed
        .iter()
        .filter_map(|one| Some((one.change.conversation_sid()?, one.account_sid.as_str())))
        .filter(|(sid, _)| missing.contains(*sid))
        .map(|(sid, account_sid)| (sid.as_str(), account_sid))
        .collect();
    let (sids, accounts): (Vec<&str>, Vec<&str>) = pairs.into_iter().unzip();
    sqlx::query!(
        "-- mirror.ensure_conversations
        insert into conversation (conversation_sid, account_sid, first_seen_at, unverified_since, revision)
        select sid, account_sid, $3, $3, 0 from unnest($1::text[], $2::text[]) as new (sid, account_sid)
        order by sid
        on conflict (conversation_sid) do nothing",
        &sids as _,
        &accounts as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn load_conversations(
    conn: &mut PgConnection,
    sids: &BTreeSet<ConversationSid>,
    state: &mut State,
) -> Result<(), sqlx::Error> {
    if sids.is_empty() {
        return Ok(());
    }
    let sids: Vec<&str> = sids.iter().map(ConversationSid::as_str).collect();
    let rows = sqlx::query!(
        r#"-- mirror.load_conversations
        select conversation_sid as "sid: ConversationSid", account_sid as "account_sid: AccountSid", service_sid,
               messaging_service_sid, friendly_name, unique_name, attributes, state, state_at, state_exact, created_at,
               closed_at, autocreated, version_at, version_exact, removed_at, revision, unverified_since, last_message_at,
               learnt_at, stated_at, state_learnt_at, state_stated_at, removal_learnt_at, erased,
               (select exists (select from number where rule is not null) or exists (select from line_assignment))
                   as "lines_are_given!"
        from unnest($1::text[]) as wanted (sid)
        cross join lateral (select * from conversation where conversation_sid = wanted.sid for update) as conversation"#,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        state.lines_are_given |= row.lines_are_given;
        let conversation = Conversation {
            account_sid: row.account_sid,
            fields: ConversationFields {
                service_sid: row.service_sid,
                messaging_service_sid: row.messaging_service_sid,
                friendly_name: row.friendly_name,
                unique_name: row.unique_name,
                attributes: row.attributes,
            },
            state: row.state,
            state_version: row.state_at.map(|at| version(at, row.state_exact)),
            state_told: told(row.state_at, row.state_stated_at, row.state_learnt_at),
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            closed_at: row.closed_at.map(jiff_sqlx::Timestamp::to_jiff),
            autocreated: row.autocreated,
            version: row.version_at.map(|at| version(at, row.version_exact)),
            told: told(row.version_at, row.stated_at, row.learnt_at),
            removed_at: row.removed_at.map(jiff_sqlx::Timestamp::to_jiff),
            removal_learnt_at: row.removal_learnt_at.map(jiff_sqlx::Timestamp::to_jiff),
            revision: row.revision,
            unverified_since: row.unverified_since.map(jiff_sqlx::Timestamp::to_jiff),
            last_message_at: row.last_message_at.map(jiff_sqlx::Timestamp::to_jiff),
            erased: Erased::read(row.erased),
            dirty: false,
        };
        state.conversations.insert(row.sid, conversation);
    }
    Ok(())
}

pub(super) async fn save_conversations(
    conn: &mut PgConnection,
    state: &State,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let rows: Vec<(&ConversationSid, &Conversation)> =
        state.conversations.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_conversations
        insert into conversation (conversation_sid, account_sid, service_sid, messaging_service_sid, friendly_name,
            unique_name, attributes, state, state_at, state_exact, created_at, closed_at, autocreated, version_at,
            version_exact, removed_at, revision, unverified_since, last_message_at, learnt_at, stated_at,
            state_learnt_at, state_stated_at, removal_learnt_at, first_seen_at)
        select new.*, $25 from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::timestamptz[], $10::boolean[], $11::timestamptz[], $12::timestamptz[], $13::boolean[],
            $14::timestamptz[], $15::boolean[], $16::timestamptz[], $17::bigint[], $18::timestamptz[], $19::timestamptz[],
            $20::timestamptz[], $21::timestamptz[], $22::timestamptz[], $23::timestamptz[], $24::timestamptz[])
            as new
        on conflict (conversation_sid) do update
        set service_sid = excluded.service_sid, messaging_service_sid = excluded.messaging_service_sid,
            friendly_name = excluded.friendly_name, unique_name = excluded.unique_name, attributes = excluded.attributes,
            state = excluded.state, state_at = excluded.state_at, state_exact = excluded.state_exact,
            created_at = excluded.created_at, closed_at = excluded.closed_at, autocreated = excluded.autocreated,
            version_at = excluded.version_at, version_exact = excluded.version_exact, removed_at = excluded.removed_at,
            revision = excluded.revision, unverified_since = excluded.unverified_since,
            last_message_at = excluded.last_message_at, learnt_at = excluded.learnt_at, stated_at = excluded.stated_at,
            state_learnt_at = excluded.state_learnt_at, state_stated_at = excluded.state_stated_at,
            removal_learnt_at = excluded.removal_learnt_at",
        column!(rows, |(sid, _)| sid.as_str()) as _,
        column!(rows, |(_, row)| row.account_sid.as_str()) as _,
        column!(rows, |(_, row)| row.fields.service_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.messaging_service_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.friendly_name.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.unique_name.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.attributes.as_deref()) as _,
        column!(rows, |(_, row)| row.state.as_deref()) as _,
        column!(rows, |(_, row)| row.state_version.map(|version| version.at.to_sqlx())) as _,
        column!(rows, |(_, row)| row.state_version.is_some_and(|version| version.exact)),
        column!(rows, |(_, row)| row.created_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.closed_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.autocreated),
        column!(rows, |(_, row)| row.version.map(|version| version.at.to_sqlx())) as _,
        column!(rows, |(_, row)| row.version.is_some_and(|version| version.exact)),
        column!(rows, |(_, row)| row.removed_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.revision),
        column!(rows, |(_, row)| row.unverified_since.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.last_message_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| learnt_at(row.told)) as _,
        column!(rows, |(_, row)| stated_at(row.told, row.version)) as _,
        column!(rows, |(_, row)| learnt_at(row.state_told)) as _,
        column!(rows, |(_, row)| stated_at(row.state_told, row.state_version)) as _,
        column!(rows, |(_, row)| row.removal_learnt_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
