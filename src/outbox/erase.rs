//! Erasing what sends say, once nothing comes of them any more.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::ConversationSid;
use crate::mirror::erase::{Keys, Looked, Window};
use crate::person::Person;

/// What of sends a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendField {
    Body,
    Attributes,
}

impl SendField {
    fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Attributes => "attributes",
        }
    }
}

/// Sends in the order of their keys, with those marked as due that were asked for before a time and are sent, failed, or left to a person.
pub async fn due(
    conn: &mut PgConnection,
    window: Window<'_>,
    field: SendField,
) -> Result<Vec<Looked>, sqlx::Error> {
    let after: Uuid = window.after.1.parse().unwrap_or_default();
    let rows = sqlx::query!(
        r#"-- outbox.due_for_erasure
        select conversation_sid, outbound_message_id,
               (created_at < $3 and state in ('sent', 'failed', 'needs_attention') and not coalesce(erased, '{}') ? $4) as "is_due!"
        from outbound_message where (conversation_sid, outbound_message_id) > ($1, $2)
        order by conversation_sid, outbound_message_id limit $5"#,
        window.after.0,
        after,
        window.before.to_sqlx() as _,
        field.as_str(),
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked {
            parent: row.conversation_sid.clone(),
            key: row.outbound_message_id.to_string(),
            conversation_sid: Some(row.conversation_sid),
            is_due: row.is_due,
        })
        .collect())
}

/// Erases a field of sends.
pub async fn erase(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    field: SendField,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- outbox.erase
        update outbound_message
        set body = case when $3 = 'body' then '' else body end,
            attributes = case when $3 = 'attributes' then null else attributes end,
            erased = erasure_marks(erased, array[$3::text], jsonb_build_object('body', body, 'attributes', attributes), null),
            erased_at = $4
        from unnest($1::text[], $2::text[]) as due (parent, key)
        where conversation_sid = due.parent and outbound_message_id::text = due.key",
        keys.parents as _,
        keys.keys as _,
        field.as_str(),
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// The conversations with sends that the person wrote, asked for, or is named in.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- outbox.conversations_of_person
        select distinct conversation_sid as "sid!" from outbound_message
        where $1 in (author, as_holder, requested_by) or concat_ws(' ', body, attributes, outcome_detail) like any($2)
        union
        select conversation_sid from outbound_media where requested_by = $1 or filename like any($2)"#,
        person.exact(),
        &person.patterns() as _,
    )
    .fetch_all(conn)
    .await
}

/// Whether something that the person is to be the author of, or that names them, is still to be sent.
pub async fn is_at_work(conn: &mut PgConnection, person: &Person) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- outbox.is_at_work_for_person
        select exists (select from outbound_message
                       where state in ('queued', 'sending')
                         and ($1 in (author, as_holder, requested_by) or concat_ws(' ', body, attributes) like any($2)))
            or exists (select from outbound_media as media
                       join outbound_message as send using (conversation_sid, outbound_message_id)
                       where media.content is not null and send.state in ('queued', 'sending')
                         and (media.requested_by = $1 or media.filename like any($2)))
            as "is_at_work!""#,
        person.exact(),
        &person.patterns() as _,
    )
    .fetch_one(conn)
    .await
}

/// Erases what the person wrote and what names them; what is still to be sent is left as it is. Answers with the ids of
/// those sends.
pub async fn erase_person(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    now: Timestamp,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- outbox.erase_person
        update outbound_message
        set author = case when author = $2 then $4 else author end,
            as_holder = case when as_holder = $2 then $4 else as_holder end,
            requested_by = case when requested_by = $2 then $4 else requested_by end,
            body = '', attributes = null,
            outcome_detail = case when outcome_detail like any($3) then null else outcome_detail end,
            erased = erasure_marks(erased, array['body', 'attributes'], jsonb_build_object('body', body, 'attributes', attributes), $4),
            erased_at = $5
        where conversation_sid = $1
          and ($2 in (author, as_holder, requested_by)
               or concat_ws(' ', body, attributes, outcome_detail) like any($3))
          and state not in ('queued', 'sending')
        returning outbound_message_id",
        sid.as_str(),
        person.exact(),
        &person.patterns() as _,
        person.pseudonym(),
        now.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await
}
