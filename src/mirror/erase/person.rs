//! Erasing one person from the mirror: what they wrote, what they are called, and where others' words name them.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::{Keys, count, messages, seats};
use crate::ids::{ConversationSid, MessageSid, ParticipantSid};
use crate::person::{Person, Subject};

/// How much of each kind was erased.
pub type Counts = Vec<(&'static str, i64)>;

/// The conversations in which the person is named, now or in a version. Reads the tables whole.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- mirror.conversations_of_person
        select conversation_sid as "sid!" from participant
        where address = $1 or identity = $1 or attributes like any($2)
        union select conversation_sid from participant_version
        where address = $1 or identity = $1 or attributes like any($2)
        union select conversation_sid from message
        where author = $1 or body like any($2) or attributes like any($2) or media like any($2)
        union select conversation_sid from message_version
        where author = $1 or body like any($2) or attributes like any($2) or media like any($2)
        union select conversation_sid from conversation
        where friendly_name like any($2) or unique_name like any($2) or attributes like any($2)
        union select conversation_sid from conversation_version
        where friendly_name like any($2) or unique_name like any($2) or attributes like any($2)"#,
        person.exact(),
        &person.patterns() as _,
    )
    .fetch_all(conn)
    .await
}

/// The seats that the person has, or had: their SIDs.
pub async fn seats_of(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- mirror.seats_of_person
        select participant_sid as "sid!" from participant
        where conversation_sid = $1 and (address = $2 or identity = $2)
        union select participant_sid from participant_version
        where conversation_sid = $1 and (address = $2 or identity = $2)"#,
        sid.as_str(),
        person.exact(),
    )
    .fetch_all(conn)
    .await
}

/// The open conversations in which an identity sits on a line now.
pub async fn lines_held(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- mirror.lines_held_by_person
        select distinct participant.conversation_sid
        from participant join conversation using (conversation_sid)
        where identity = $1 and projected_address is not null and participant.removed_at is null
          and conversation.removed_at is null and conversation.state is distinct from 'closed'
        order by 1",
        person.exact(),
    )
    .fetch_all(conn)
    .await
}

/// Whether a number is, or was, one of our lines.
pub async fn is_a_line(conn: &mut PgConnection, number: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- mirror.is_a_line
        select exists (select from participant where projected_address = $1 or proxy_address = $1) as "is_a_line!""#,
        number,
    )
    .fetch_one(conn)
    .await
}

/// Erases the person from one conversation, which the caller has locked.
pub async fn erase_from_conversation(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    now: Timestamp,
) -> Result<Counts, sqlx::Error> {
    let seats = seats_of(conn, sid, person).await?;
    let own = own_messages(conn, sid, person, &seats).await?;
    let all = ["body", "media", "attributes", "author"];
    let written = erase_some(conn, sid, &own, &all, Some(person.pseudonym()), now).await?;
    let mut named = 0;
    for (column, names) in [
        ("body", &["body", "media"][..]),
        ("attributes", &["attributes"][..]),
    ] {
        let sids = messages_naming(conn, sid, person, column).await?;
        named += erase_some(conn, sid, &sids, names, None, now).await?;
    }
    let seats = seats::erase(conn, sid, person, now).await?;
    let mut conversations = 0;
    for column in ["friendly_name", "unique_name", "attributes"] {
        if is_named_in_conversation(conn, sid, person, column).await? {
            erase_conversation_fields(conn, &[sid.as_str()], &[column], now).await?;
            conversations = 1;
        }
    }
    Ok(vec![
        ("messages_written", written),
        ("messages_naming", named),
        ("participants", seats),
        ("conversation_names", conversations),
    ])
}

async fn erase_some(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    sids: &[String],
    names: &[&str],
    pseudonym: Option<&str>,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let keys: Vec<&str> = sids.iter().map(String::as_str).collect();
    let parents = vec![sid.as_str(); keys.len()];
    let keys = Keys {
        parents: &parents,
        keys: &keys,
    };
    messages::erase_fields(conn, keys, names, pseudonym, now).await
}

/// A message that was just deleted at Twilio because of the person: whatever else comes of it is dropped.
pub async fn mark_deleted_message(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    message_sid: &MessageSid,
    person: &Person,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let all = ["body", "media", "attributes", "author"];
    let sids = [message_sid.to_string()];
    erase_some(conn, sid, &sids, &all, Some(person.pseudonym()), now).await?;
    Ok(())
}

/// As [`mark_deleted_message`], of a seat.
pub async fn mark_deleted_seat(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    participant_sid: &ParticipantSid,
    person: &Person,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let names = [name_of(person), "attributes"];
    sqlx::query!(
        "-- mirror.mark_deleted_seat
        update participant
        set erased = erasure_marks(erased, $3, jsonb_build_object('attributes', attributes, 'identity', $4::text), $5),
            erased_at = $6
        where conversation_sid = $1 and participant_sid = $2",
        sid.as_str(),
        participant_sid.as_str(),
        &names as _,
        person.exact(),
        person.pseudonym(),
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The column in which a seat names the person.
pub(super) fn name_of(person: &Person) -> &'static str {
    match person.subject() {
        Subject::Number(_) => "address",
        Subject::Identity(_) => "identity",
    }
}

/// What a handset wrote is known by its seat too; the seat of one of ours may have been another's.
async fn own_messages(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    seats: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    let seats: &[String] = match person.subject() {
        Subject::Number(_) => seats,
        Subject::Identity(_) => &[],
    };
    sqlx::query_scalar!(
        r#"-- mirror.messages_of_person
        select message_sid as "sid!" from message
        where conversation_sid = $1 and (author = $2 or participant_sid = any($3))
        union select message_sid from message_version
        where conversation_sid = $1 and (author = $2 or participant_sid = any($3))"#,
        sid.as_str(),
        person.exact(),
        seats,
    )
    .fetch_all(conn)
    .await
}

async fn messages_naming(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    column: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- mirror.messages_naming_person
        select message_sid as "sid!" from message
        where conversation_sid = $1
          and case when $3 = 'body' then concat(body, ' ', media) else attributes end like any($2)
        union select message_sid from message_version
        where conversation_sid = $1
          and case when $3 = 'body' then concat(body, ' ', media) else attributes end like any($2)"#,
        sid.as_str(),
        &person.patterns() as _,
        column,
    )
    .fetch_all(conn)
    .await
}

async fn is_named_in_conversation(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    column: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- mirror.is_named_in_conversation
        select exists (
            select from conversation
            where conversation_sid = $1 and case $3 when 'friendly_name' then friendly_name
                when 'unique_name' then unique_name else attributes end like any($2)
            union all
            select from conversation_version
            where conversation_sid = $1 and case $3 when 'friendly_name' then friendly_name
                when 'unique_name' then unique_name else attributes end like any($2)) as "is_named!""#,
        sid.as_str(),
        &person.patterns() as _,
        column,
    )
    .fetch_one(conn)
    .await
}

/// Erases fields (`attributes`, `friendly_name`, `unique_name`) of conversations, and of their versions.
pub(super) async fn erase_conversation_fields(
    conn: &mut PgConnection,
    sids: &[&str],
    names: &[&str],
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- mirror.erase_conversations
        update conversation
        set attributes = case when 'attributes' = any($2) then null else attributes end,
            friendly_name = case when 'friendly_name' = any($2) then null else friendly_name end,
            unique_name = case when 'unique_name' = any($2) then null else unique_name end,
            erased = erasure_marks(erased, $2, jsonb_build_object('attributes', attributes, 'friendly_name', friendly_name,
                                                                  'unique_name', unique_name), null),
            erased_at = $3
        where conversation_sid = any($1)",
        sids as _,
        names as _,
        now.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    erase_versions_of_conversations(conn, sids, names, None, now).await?;
    Ok(count(erased.rows_affected()))
}

/// As [`erase_conversation_fields`], of versions alone; `before` leaves those out that were stated later.
pub(super) async fn erase_versions_of_conversations(
    conn: &mut PgConnection,
    sids: &[&str],
    names: &[&str],
    before: Option<Timestamp>,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- mirror.erase_conversation_versions
        with old as (
            delete from conversation_version
            where conversation_sid = any($1) and aspect = 'content' and ($3::timestamptz is null or version_at < $3)
              and not coalesce(erased, '{}') ?& $2
            returning conversation_version.*
        ), masked as (
            select conversation_sid, aspect, version_at, stated_at, learnt_at, messaging_service_sid, state,
                   case when 'attributes' = any($2) then null else attributes end as attributes,
                   case when 'friendly_name' = any($2) then null else friendly_name end as friendly_name,
                   case when 'unique_name' = any($2) then null else unique_name end as unique_name,
                   erasure_marks(erased, $2, jsonb_build_object('attributes', attributes, 'friendly_name', friendly_name,
                                                                'unique_name', unique_name), null) as erased
            from old
        )
        insert into conversation_version (conversation_sid, aspect, version_at, stated_at, learnt_at, messaging_service_sid,
            friendly_name, unique_name, attributes, state, digest, erased, erased_at)
        select conversation_sid, aspect, version_at, stated_at, learnt_at, messaging_service_sid, friendly_name,
               unique_name, attributes, state,
               substr(sha256(convert_to(row(messaging_service_sid, friendly_name, unique_name, attributes, state)::text,
                                        'UTF8')), 1, 16),
               erased, $4
        from masked order by learnt_at
        on conflict do nothing",
        sids as _,
        names as _,
        before.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(count(erased.rows_affected()))
}

/// Erases the person from among the users, where they are one; of others only what names the person.
pub async fn erase_user(
    conn: &mut PgConnection,
    person: &Person,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let own = sqlx::query!(
        "-- mirror.erase_user
        update chat_user
        set identity = $2, friendly_name = null, attributes = null, erased_at = $3,
            erased = erasure_marks(erased, array['identity', 'friendly_name', 'attributes'],
                jsonb_build_object('identity', identity, 'friendly_name', friendly_name, 'attributes', attributes), $2)
        where identity = $1",
        person.exact(),
        person.pseudonym(),
        now.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    let naming = sqlx::query!(
        "-- mirror.erase_from_users_naming_person
        update chat_user
        set friendly_name = case when 'friendly_name' = any(fields) then null else friendly_name end,
            attributes = case when 'attributes' = any(fields) then null else attributes end,
            erased = erasure_marks(erased, fields,
                jsonb_build_object('friendly_name', friendly_name, 'attributes', attributes), null),
            erased_at = $2
        from (
            select account_sid as account, user_sid as naming, array_remove(array[
                case when friendly_name like any($1) then 'friendly_name' end,
                case when attributes like any($1) then 'attributes' end], null) as fields
            from chat_user
        ) as named
        where account_sid = account and user_sid = naming and cardinality(fields) > 0",
        &person.patterns() as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(count(own.rows_affected() + naming.rows_affected()))
}
