//! Rows of media.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Media;
use crate::ids::{ConversationSid, MediaSid};
use crate::mirror::erase::{Keys, Looked, Window};
use crate::person::Person;

struct Row {
    media_id: Uuid,
    conversation_sid: String,
    content_type: String,
    filename: Option<String>,
    size_bytes: i64,
    is_kept: bool,
    outbound_message_id: Option<Uuid>,
    twilio_media_sid: Option<String>,
    uploaded_at: Option<jiff_sqlx::Timestamp>,
    created_at: jiff_sqlx::Timestamp,
    erased_at: Option<jiff_sqlx::Timestamp>,
}

impl From<Row> for Media {
    fn from(row: Row) -> Self {
        let sid = row
            .twilio_media_sid
            .and_then(|sid| MediaSid::try_from(sid.as_str()).ok());
        Self {
            media_id: row.media_id,
            conversation_sid: row.conversation_sid,
            content_type: row.content_type,
            filename: row.filename,
            size_bytes: row.size_bytes,
            is_kept: row.is_kept,
            outbound_message_id: row.outbound_message_id,
            uploaded: sid.zip(row.uploaded_at.map(jiff_sqlx::Timestamp::to_jiff)),
            created_at: row.created_at.to_jiff(),
            erased_at: row.erased_at.map(jiff_sqlx::Timestamp::to_jiff),
        }
    }
}

/// What all media that waits takes up.
pub(super) async fn kept_bytes(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- outbox.kept_media_bytes
        select coalesce(sum(size_bytes), 0)::bigint as "bytes!" from outbound_media where content is not null"#
    )
    .fetch_one(conn)
    .await
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    media: &Media,
    content: &[u8],
    requested_by: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- outbox.insert_media
        insert into outbound_media (conversation_sid, media_id, content_type, filename, size_bytes, content, requested_by, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)",
        media.conversation_sid,
        media.media_id,
        media.content_type,
        media.filename,
        media.size_bytes,
        content,
        requested_by,
        media.created_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Media of a conversation, so that no other message takes it meanwhile.
pub(super) async fn lock(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    wanted: &[Uuid],
) -> Result<Vec<Media>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- outbox.lock_media
        select media_id, conversation_sid, content_type, filename, size_bytes, content is not null as "is_kept!",
               outbound_message_id, twilio_media_sid, uploaded_at, created_at, erased_at
        from outbound_media where conversation_sid = $1 and media_id = any($2)
        order by media_id for update"#,
        sid.as_str(),
        wanted,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Media::from).collect())
}

pub(super) async fn give(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    wanted: &[Uuid],
    outbound_message_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- outbox.give_media
        update outbound_media set outbound_message_id = $3 where conversation_sid = $1 and media_id = any($2)",
        sid.as_str(),
        wanted,
        outbound_message_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The media of some messages, by conversation and id.
pub async fn of_messages(
    conn: &mut PgConnection,
    messages: &[(&str, Uuid)],
) -> Result<Vec<Media>, sqlx::Error> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let (sids, ids): (Vec<&str>, Vec<Uuid>) = messages.iter().copied().unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"-- outbox.media_of_messages
        select media_id, conversation_sid, content_type, filename, size_bytes, content is not null as "is_kept!",
               outbound_message_id, twilio_media_sid, uploaded_at, created_at, erased_at
        from outbound_media
        where (conversation_sid, outbound_message_id) in (select * from unnest($1::text[], $2::uuid[]))
        order by media_id"#,
        &sids as _,
        &ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Media::from).collect())
}

/// The bytes, while they are kept.
pub(in crate::outbox) async fn content(
    conn: &mut PgConnection,
    media: &Media,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- outbox.media_content
        select content from outbound_media where conversation_sid = $1 and media_id = $2",
        media.conversation_sid,
        media.media_id,
    )
    .fetch_optional(conn)
    .await
    .map(Option::flatten)
}

pub(in crate::outbox) async fn note_uploaded(
    conn: &mut PgConnection,
    media: &Media,
    sid: &MediaSid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- outbox.note_uploaded_media
        update outbound_media set twilio_media_sid = $3, uploaded_at = $4 where conversation_sid = $1 and media_id = $2",
        media.conversation_sid,
        media.media_id,
        sid.as_str(),
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Twilio does not know the uploads of a message any more: they have to be made again.
pub(in crate::outbox) async fn forget_upload(
    conn: &mut PgConnection,
    conversation_sid: &str,
    outbound_message_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- outbox.forget_upload
        update outbound_media set twilio_media_sid = null, uploaded_at = null
        where conversation_sid = $1 and outbound_message_id = $2",
        conversation_sid,
        outbound_message_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets the bytes that went with a message, since nothing comes of them any more.
pub(in crate::outbox) async fn drop_content(
    conn: &mut PgConnection,
    conversation_sid: &str,
    outbound_message_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- outbox.drop_media_content
        update outbound_media set content = null where conversation_sid = $1 and outbound_message_id = $2",
        conversation_sid,
        outbound_message_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what no message took and what was uploaded before a time. Answers of how much.
pub async fn purge_unused(conn: &mut PgConnection, before: Timestamp) -> Result<u64, sqlx::Error> {
    let purged = sqlx::query!(
        "-- outbox.purge_unused_media
        delete from outbound_media where content is not null and outbound_message_id is null and created_at < $1",
        before.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(purged.rows_affected())
}

/// Media in the order of its keys, with that marked as due whose name is kept, that was uploaded before a time and whose
/// bytes are gone.
pub async fn due(conn: &mut PgConnection, window: Window<'_>) -> Result<Vec<Looked>, sqlx::Error> {
    let after: Uuid = window.after.1.parse().unwrap_or_default();
    let rows = sqlx::query!(
        r#"-- outbox.media_due_for_erasure
        select conversation_sid, media_id,
               (created_at < $3 and content is null and filename is not null) as "is_due!"
        from outbound_media where (conversation_sid, media_id) > ($1, $2)
        order by conversation_sid, media_id limit $4"#,
        window.after.0,
        after,
        window.before.to_sqlx() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked {
            parent: row.conversation_sid.clone(),
            key: row.media_id.to_string(),
            conversation_sid: Some(row.conversation_sid),
            is_due: row.is_due,
        })
        .collect())
}

/// Erases the names of files.
pub async fn erase(conn: &mut PgConnection, keys: Keys<'_>, now: Timestamp) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- outbox.erase_media
        update outbound_media set filename = null, erased_at = $3
        from unnest($1::text[], $2::text[]) as due (parent, key)
        where conversation_sid = due.parent and media_id::text = due.key",
        keys.parents as _,
        keys.keys as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// Erases what goes with the sends that were erased, and what names the person, but for what is still to be sent.
pub async fn erase_person(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    sends: &[Uuid],
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- outbox.erase_media_of_person
        update outbound_media
        set filename = null, content = null, erased_at = $5,
            requested_by = case when requested_by = $2 then $6 else requested_by end
        where conversation_sid = $1
          and (outbound_message_id = any($4)
               or ((requested_by = $2 or filename like any($3))
                   and not exists (select from outbound_message as send
                                   where send.conversation_sid = $1
                                     and send.outbound_message_id = outbound_media.outbound_message_id
                                     and send.state in ('queued', 'sending'))))",
        sid.as_str(),
        person.exact(),
        &person.patterns() as _,
        sends,
        now.to_sqlx() as _,
        person.pseudonym(),
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}
