//! Loading the rows that a batch touches, and writing back those that differ: one statement per table, whatever the
//! size of the batch.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::ids::{AccountSid, ConversationSid, MessageSid, ParticipantSid, ReceiptSid, UserSid};
use crate::mirror::change::{
    Change, ConversationFields, MessageFields, Observed, ParticipantFields, UserFields,
};
use crate::mirror::fold::{Conversation, Message, Participant, Receipt, Revisions, State, User};
use crate::mirror::version::Version;

/// Loads and locks what the changes touch.
pub(super) async fn load(
    conn: &mut PgConnection,
    observed: &[Observed],
    now: Timestamp,
) -> Result<State, sqlx::Error> {
    let touched = Touched::by(observed);
    let mut state = State::default();
    ensure_conversations(conn, observed, now).await?;
    load_conversations(conn, &touched.conversations, &mut state).await?;
    load_participants(conn, &touched.participants, &mut state).await?;
    load_messages(conn, &touched.messages, &mut state).await?;
    load_receipts(conn, &touched.receipts, &mut state).await?;
    load_users(conn, &touched.users, &mut state).await?;
    Ok(state)
}

/// Writes the rows that changed.
pub(super) async fn save(conn: &mut PgConnection, state: &State, now: Timestamp) -> Result<(), sqlx::Error> {
    save_conversations(conn, state, now).await?;
    save_participants(conn, state).await?;
    save_messages(conn, state).await?;
    save_receipts(conn, state).await?;
    save_users(conn, state).await
}

#[derive(Debug, Default)]
struct Touched {
    conversations: BTreeSet<ConversationSid>,
    participants: BTreeSet<(ConversationSid, ParticipantSid)>,
    messages: BTreeSet<(ConversationSid, MessageSid)>,
    receipts: BTreeSet<(ConversationSid, MessageSid, ReceiptSid)>,
    users: BTreeSet<(AccountSid, UserSid)>,
}

impl Touched {
    fn by(observed: &[Observed]) -> Self {
        let mut touched = Self::default();
        for one in observed {
            touched
                .conversations
                .extend(one.change.conversation_sid().cloned());
            match &one.change {
                Change::Conversation(_)
                | Change::ConversationState(_)
                | Change::ConversationRemoved { .. }
                | Change::Unread { .. } => {}
                Change::Participant(change) => {
                    touched
                        .participants
                        .insert((change.conversation_sid.clone(), change.participant_sid.clone()));
                }
                Change::Message(change) => {
                    touched
                        .messages
                        .insert((change.conversation_sid.clone(), change.message_sid.clone()));
                }
                Change::Receipt(change) => {
                    let sid = &change.conversation_sid;
                    touched.messages.insert((sid.clone(), change.message_sid.clone()));
                    touched.receipts.insert((
                        sid.clone(),
                        change.message_sid.clone(),
                        change.receipt_sid.clone(),
                    ));
                }
                Change::User(change) => {
                    touched
                        .users
                        .insert((one.account_sid.clone(), change.user_sid.clone()));
                }
            }
        }
        touched
    }
}

/// A child may come before its parent: the row is made first, so that there is something to lock.
async fn ensure_conversations(
    conn: &mut PgConnection,
    observed: &[Observed],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let pairs: BTreeSet<(&str, &str)> = observed
        .iter()
        .filter_map(|one| Some((one.change.conversation_sid()?.as_str(), one.account_sid.as_str())))
        .collect();
    if pairs.is_empty() {
        return Ok(());
    }
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

fn version(at: jiff_sqlx::Timestamp, exact: bool) -> Version {
    Version {
        at: at.to_jiff(),
        exact,
    }
}

async fn load_conversations(
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
               closed_at, autocreated, version_at, version_exact, removed_at, revision, unverified_since, last_message_at
        from conversation where conversation_sid = any($1)
        order by conversation_sid
        for update"#,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
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
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            closed_at: row.closed_at.map(jiff_sqlx::Timestamp::to_jiff),
            autocreated: row.autocreated,
            version: row.version_at.map(|at| version(at, row.version_exact)),
            removed_at: row.removed_at.map(jiff_sqlx::Timestamp::to_jiff),
            revision: row.revision,
            unverified_since: row.unverified_since.map(jiff_sqlx::Timestamp::to_jiff),
            last_message_at: row.last_message_at.map(jiff_sqlx::Timestamp::to_jiff),
            dirty: false,
        };
        state.conversations.insert(row.sid, conversation);
    }
    Ok(())
}

async fn load_participants(
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
               role_sid, attributes, last_read_message_index, created_at, version_at, version_exact, removed_at, revision
        from participant
        where (conversation_sid, participant_sid) in (select * from unnest($1::text[], $2::text[]))"#,
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
            removed_at: row.removed_at.map(jiff_sqlx::Timestamp::to_jiff),
            revision: row.revision,
            dirty: false,
        };
        state
            .participants
            .insert((row.conversation_sid, row.sid), participant);
    }
    Ok(())
}

async fn load_messages(
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
               source, created_at, version_at, version_exact, removed_at, revision
        from message
        where (conversation_sid, message_sid) in (select * from unnest($1::text[], $2::text[]))"#,
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
            removed_at: row.removed_at.map(jiff_sqlx::Timestamp::to_jiff),
            revision: row.revision,
            dirty: false,
        };
        state.messages.insert((row.conversation_sid, row.sid), message);
    }
    Ok(())
}

async fn load_receipts(
    conn: &mut PgConnection,
    keys: &BTreeSet<(ConversationSid, MessageSid, ReceiptSid)>,
    state: &mut State,
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let conversations: Vec<&str> = keys
        .iter()
        .map(|(conversation, _, _)| conversation.as_str())
        .collect();
    let messages: Vec<&str> = keys.iter().map(|(_, message, _)| message.as_str()).collect();
    let sids: Vec<&str> = keys.iter().map(|(_, _, sid)| sid.as_str()).collect();
    let rows = sqlx::query!(
        r#"-- mirror.load_receipts
        select conversation_sid as "conversation_sid: ConversationSid", message_sid as "message_sid: MessageSid",
               delivery_receipt_sid as "sid: ReceiptSid", account_sid as "account_sid: AccountSid", participant_sid,
               channel_message_sid, status, error_code, created_at, version_at
        from delivery_receipt
        where (conversation_sid, message_sid, delivery_receipt_sid)
              in (select * from unnest($1::text[], $2::text[], $3::text[]))"#,
        &conversations as _,
        &messages as _,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let at = row.version_at.to_jiff();
        let receipt = Receipt {
            account_sid: row.account_sid,
            message_sid: row.message_sid,
            participant_sid: row.participant_sid,
            channel_message_sid: row.channel_message_sid,
            status: row.status,
            error_code: row.error_code,
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            version: Version {
                at,
                exact: at.subsec_nanosecond() != 0,
            },
            dirty: false,
        };
        state.receipts.insert((row.conversation_sid, row.sid), receipt);
    }
    Ok(())
}

async fn load_users(
    conn: &mut PgConnection,
    keys: &BTreeSet<(AccountSid, UserSid)>,
    state: &mut State,
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let (accounts, sids): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(|(account, sid)| (account.as_str(), sid.as_str()))
        .unzip();
    let rows = sqlx::query!(
        r#"-- mirror.load_users
        select account_sid as "account_sid: AccountSid", user_sid as "sid: UserSid", service_sid, identity, friendly_name,
               role_sid, attributes, is_online, is_notifiable, created_at, version_at
        from chat_user
        where (account_sid, user_sid) in (select * from unnest($1::text[], $2::text[]))
        order by account_sid, user_sid
        for update"#,
        &accounts as _,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let user = User {
            fields: UserFields {
                service_sid: row.service_sid,
                identity: row.identity,
                friendly_name: row.friendly_name,
                role_sid: row.role_sid,
                attributes: row.attributes,
                is_online: row.is_online,
                is_notifiable: row.is_notifiable,
            },
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            version: Version::exact(row.version_at.to_jiff()),
            dirty: false,
        };
        state.users.insert((row.account_sid, row.sid), user);
    }
    Ok(())
}

/// One column of a batch.
macro_rules! column {
    ($rows:expr, |$row:pat_param| $value:expr) => {
        &$rows.iter().map(|$row| $value).collect::<Vec<_>>()
    };
}

async fn save_conversations(
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
            version_exact, removed_at, revision, unverified_since, last_message_at, first_seen_at)
        select new.*, $20 from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::timestamptz[], $10::boolean[], $11::timestamptz[], $12::timestamptz[], $13::boolean[],
            $14::timestamptz[], $15::boolean[], $16::timestamptz[], $17::bigint[], $18::timestamptz[], $19::timestamptz[])
            as new
        on conflict (conversation_sid) do update
        set service_sid = excluded.service_sid, messaging_service_sid = excluded.messaging_service_sid,
            friendly_name = excluded.friendly_name, unique_name = excluded.unique_name, attributes = excluded.attributes,
            state = excluded.state, state_at = excluded.state_at, state_exact = excluded.state_exact,
            created_at = excluded.created_at, closed_at = excluded.closed_at, autocreated = excluded.autocreated,
            version_at = excluded.version_at, version_exact = excluded.version_exact, removed_at = excluded.removed_at,
            revision = excluded.revision, unverified_since = excluded.unverified_since,
            last_message_at = excluded.last_message_at",
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
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn save_participants(conn: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    let rows: Vec<(&(ConversationSid, ParticipantSid), &Participant)> =
        state.participants.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_participants
        insert into participant (conversation_sid, participant_sid, account_sid, identity, address, proxy_address,
            projected_address, binding_type, role_sid, attributes, last_read_message_index, created_at, version_at,
            version_exact, removed_at, revision)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::bigint[], $12::timestamptz[], $13::timestamptz[], $14::boolean[],
            $15::timestamptz[], $16::bigint[])
        on conflict (conversation_sid, participant_sid) do update
        set identity = excluded.identity, address = excluded.address, proxy_address = excluded.proxy_address,
            projected_address = excluded.projected_address, binding_type = excluded.binding_type,
            role_sid = excluded.role_sid, attributes = excluded.attributes,
            last_read_message_index = excluded.last_read_message_index, created_at = excluded.created_at,
            version_at = excluded.version_at, version_exact = excluded.version_exact, removed_at = excluded.removed_at,
            revision = excluded.revision",
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
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn save_messages(conn: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    let rows: Vec<(&(ConversationSid, MessageSid), &Message)> =
        state.messages.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_messages
        insert into message (conversation_sid, message_sid, account_sid, message_index, author, participant_sid, body,
            media, attributes, source, created_at, version_at, version_exact, removed_at, revision)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::boolean[],
            $14::timestamptz[], $15::bigint[])
        on conflict (conversation_sid, message_sid) do update
        set message_index = excluded.message_index, author = excluded.author, participant_sid = excluded.participant_sid,
            body = excluded.body, media = excluded.media, attributes = excluded.attributes, source = excluded.source,
            created_at = excluded.created_at, version_at = excluded.version_at, version_exact = excluded.version_exact,
            removed_at = excluded.removed_at, revision = excluded.revision",
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
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn save_receipts(conn: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    let rows: Vec<(&(ConversationSid, ReceiptSid), &Receipt)> =
        state.receipts.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_receipts
        insert into delivery_receipt (conversation_sid, message_sid, delivery_receipt_sid, account_sid, participant_sid,
            channel_message_sid, status, error_code, created_at, version_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::timestamptz[], $10::timestamptz[])
        on conflict (conversation_sid, message_sid, delivery_receipt_sid) do update
        set participant_sid = excluded.participant_sid, channel_message_sid = excluded.channel_message_sid,
            status = excluded.status, error_code = excluded.error_code, created_at = excluded.created_at,
            version_at = excluded.version_at",
        column!(rows, |((conversation, _), _)| conversation.as_str()) as _,
        column!(rows, |(_, row)| row.message_sid.as_str()) as _,
        column!(rows, |((_, sid), _)| sid.as_str()) as _,
        column!(rows, |(_, row)| row.account_sid.as_str()) as _,
        column!(rows, |(_, row)| row.participant_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.channel_message_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.status.as_str()) as _,
        column!(rows, |(_, row)| row.error_code.as_deref()) as _,
        column!(rows, |(_, row)| row.created_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.version.at.to_sqlx()) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn save_users(conn: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    let rows: Vec<(&(AccountSid, UserSid), &User)> =
        state.users.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_users
        insert into chat_user (account_sid, user_sid, service_sid, identity, friendly_name, role_sid, attributes, is_online,
            is_notifiable, created_at, version_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::boolean[], $9::boolean[], $10::timestamptz[], $11::timestamptz[])
        on conflict (account_sid, user_sid) do update
        set service_sid = excluded.service_sid, identity = excluded.identity, friendly_name = excluded.friendly_name,
            role_sid = excluded.role_sid, attributes = excluded.attributes, is_online = excluded.is_online,
            is_notifiable = excluded.is_notifiable, created_at = excluded.created_at, version_at = excluded.version_at
        where excluded.version_at >= chat_user.version_at",
        column!(rows, |((account, _), _)| account.as_str()) as _,
        column!(rows, |((_, sid), _)| sid.as_str()) as _,
        column!(rows, |(_, row)| row.fields.service_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.identity.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.friendly_name.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.role_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.attributes.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.is_online) as _,
        column!(rows, |(_, row)| row.fields.is_notifiable) as _,
        column!(rows, |(_, row)| row.created_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.version.at.to_sqlx()) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The revisions of a conversation and its participants, to be read before a read at Twilio: see [`Revisions`].
pub async fn revisions_of_conversation(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Revisions, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.revisions_of_conversation
        select conversation_sid as "sid!", revision as "revision!" from conversation where conversation_sid = $1
        union all
        select participant_sid, revision from participant where conversation_sid = $1"#,
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.sid, row.revision)).collect())
}

/// As [`revisions_of_conversation`], of one message.
pub async fn revision_of_message(
    conn: &mut PgConnection,
    conversation_sid: &str,
    message_sid: &str,
) -> Result<Revisions, sqlx::Error> {
    let rows = sqlx::query!(
        "-- mirror.revision_of_message
        select message_sid, revision from message where conversation_sid = $1 and message_sid = $2",
        conversation_sid,
        message_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.message_sid, row.revision))
        .collect())
}

/// Records that a conversation and its members were read at Twilio, and that doubts about them are settled.
pub async fn mark_verified(
    conn: &mut PgConnection,
    conversation_sid: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- mirror.mark_verified
        update conversation set verified_at = $2, unverified_since = null where conversation_sid = $1",
        conversation_sid,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// As [`mark_verified`], of a reading that began at `began_at`: a doubt that arose later stays.
pub async fn mark_verified_as_of(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    began_at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- mirror.mark_verified_as_of
        update conversation
        set verified_at = greatest(verified_at, $2),
            unverified_since = case when unverified_since > $2 then unverified_since end
        where conversation_sid = $1",
        conversation_sid.as_str(),
        began_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What is stored of a conversation before it is read at Twilio whole.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Of the conversation, its participants and its messages.
    pub revisions: Revisions,
    /// Those that are not removed.
    pub participants: BTreeSet<ParticipantSid>,
    /// Those that are not removed.
    pub messages: BTreeSet<MessageSid>,
}

/// Everything that is stored of a conversation, by SID.
pub async fn inventory(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
) -> Result<Inventory, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.inventory
        select conversation_sid as "sid!", revision as "revision!", false as "live!"
        from conversation where conversation_sid = $1
        union all
        select participant_sid, revision, removed_at is null from participant where conversation_sid = $1
        union all
        select message_sid, revision, removed_at is null from message where conversation_sid = $1"#,
        conversation_sid.as_str(),
    )
    .fetch_all(conn)
    .await?;
    let mut inventory = Inventory::default();
    for row in rows {
        if let (true, Ok(sid)) = (row.live, ParticipantSid::try_from(row.sid.as_str())) {
            inventory.participants.insert(sid);
        } else if let (true, Ok(sid)) = (row.live, MessageSid::try_from(row.sid.as_str())) {
            inventory.messages.insert(sid);
        }
        inventory.revisions.insert(row.sid, row.revision);
    }
    Ok(inventory)
}

/// As [`inventory`], of the participants and of the messages from the index `from` on, those without an index included.
pub async fn inventory_from(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    from: Option<i64>,
) -> Result<Inventory, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.inventory_from
        select participant_sid as "sid!", revision as "revision!"
        from participant where conversation_sid = $1 and removed_at is null
        union all
        select message_sid, revision from message
        where conversation_sid = $1 and removed_at is null and message_index >= coalesce($2, message_index)
        union all
        select message_sid, revision from message
        where conversation_sid = $1 and removed_at is null and message_index is null"#,
        conversation_sid.as_str(),
        from,
    )
    .fetch_all(conn)
    .await?;
    let mut inventory = Inventory::default();
    for row in rows {
        if let Ok(sid) = ParticipantSid::try_from(row.sid.as_str()) {
            inventory.participants.insert(sid);
        } else if let Ok(sid) = MessageSid::try_from(row.sid.as_str()) {
            inventory.messages.insert(sid);
        }
        inventory.revisions.insert(row.sid, row.revision);
    }
    Ok(inventory)
}
