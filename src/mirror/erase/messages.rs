//! What messages say, by their age.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::{Keys, Looked, Window, count};

/// What of messages a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageField {
    /// The words, and what media there were.
    Body,
    Attributes,
}

impl MessageField {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Body => &["body", "media"],
            Self::Attributes => &["attributes"],
        }
    }
}

/// Messages in the order of their keys, with those that were written before a time marked as due.
pub async fn messages_due(
    conn: &mut PgConnection,
    window: Window<'_>,
    field: MessageField,
) -> Result<Vec<Looked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.messages_due
        select conversation_sid, message_sid,
               (coalesce(created_at, version_at) < $3 and not coalesce(erased, '{}') ?& $4) as "is_due!"
        from message where (conversation_sid, message_sid) > ($1, $2)
        order by conversation_sid, message_sid limit $5"#,
        window.after.0,
        window.after.1,
        window.before.to_sqlx() as _,
        field.names() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked::of_conversation(row.conversation_sid, row.message_sid, row.is_due))
        .collect())
}

/// Erases a field of messages and of all their versions. Answers of how many messages.
pub async fn erase_messages(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    field: MessageField,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    erase_fields(conn, keys, field.names(), None, now).await
}

/// Erases fields (`body`, `media`, `attributes`, `author`) of messages and of all their versions; `pseudonym` stands for
/// the author.
pub(super) async fn erase_fields(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    names: &[&str],
    pseudonym: Option<&str>,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- mirror.erase_messages
        update message
        set body = case when 'body' = any($3) then null else body end,
            media = case when 'media' = any($3) then null else media end,
            attributes = case when 'attributes' = any($3) then null else attributes end,
            author = case when 'author' = any($3) then $4 else author end,
            erased = erasure_marks(erased, $3, jsonb_build_object('body', body, 'media', media, 'attributes', attributes), $4),
            erased_at = $5
        from unnest($1::text[], $2::text[]) as due (parent, key)
        where conversation_sid = due.parent and message_sid = due.key",
        keys.parents as _,
        keys.keys as _,
        names as _,
        pseudonym,
        now.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    erase_versions(conn, keys, names, pseudonym, None, now).await?;
    Ok(count(erased.rows_affected()))
}

/// As [`erase_fields`], of their versions alone; `before` leaves those out that were stated later.
pub(super) async fn erase_versions(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    names: &[&str],
    pseudonym: Option<&str>,
    before: Option<Timestamp>,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- mirror.erase_message_versions
        with old as (
            delete from message_version using unnest($1::text[], $2::text[]) as due (parent, key)
            where conversation_sid = due.parent and message_sid = due.key and aspect = 'content'
              and ($6::timestamptz is null or version_at < $6) and not coalesce(erased, '{}') ?& $3
            returning message_version.*
        ), masked as (
            select conversation_sid, message_sid, aspect, version_at, stated_at, learnt_at, message_index, participant_sid,
                   case when 'author' = any($3) then $4 else author end as author,
                   case when 'body' = any($3) then null else body end as body,
                   case when 'media' = any($3) then null else media end as media,
                   case when 'attributes' = any($3) then null else attributes end as attributes,
                   erasure_marks(erased, $3, jsonb_build_object('body', body, 'media', media, 'attributes', attributes), $4)
                       as erased
            from old
        )
        insert into message_version (conversation_sid, message_sid, aspect, version_at, stated_at, learnt_at, message_index,
            author, participant_sid, body, media, attributes, digest, erased, erased_at)
        select conversation_sid, message_sid, aspect, version_at, stated_at, learnt_at, message_index, author,
               participant_sid, body, media, attributes,
               substr(sha256(convert_to(row(message_index, author, participant_sid, body, media, attributes)::text, 'UTF8')), 1, 16),
               erased, $5
        from masked order by learnt_at
        on conflict do nothing",
        keys.parents as _,
        keys.keys as _,
        names as _,
        pseudonym,
        now.to_sqlx() as _,
        before.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
    )
    .execute(conn)
    .await?;
    Ok(count(erased.rows_affected()))
}
