//! What messages, members and conversations said before: words and attributes of old statements, the newest left alone.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::{Keys, Looked, Window, messages, person, seats};

/// Messages that have versions, in the order of their keys, with those marked as due of which some is older.
pub async fn message_versions_due(
    conn: &mut PgConnection,
    window: Window<'_>,
) -> Result<Vec<Looked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.message_versions_due
        select conversation_sid, message_sid,
               bool_or(aspect = 'content' and version_at < $3
                       and not coalesce(erased, '{}') ?& array['body', 'media', 'attributes']) as "is_due!"
        from message_version where (conversation_sid, message_sid) > ($1, $2)
        group by conversation_sid, message_sid
        order by conversation_sid, message_sid limit $4"#,
        window.after.0,
        window.after.1,
        window.before.to_sqlx() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked::of_conversation(row.conversation_sid, row.message_sid, row.is_due))
        .collect())
}

/// Erases what old versions of messages say. Answers of how many versions.
pub async fn erase_message_versions(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    before: Timestamp,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let names = ["body", "media", "attributes"];
    messages::erase_versions(conn, keys, &names, None, Some(before), now).await
}

/// As [`message_versions_due`], of members.
pub async fn participant_versions_due(
    conn: &mut PgConnection,
    window: Window<'_>,
) -> Result<Vec<Looked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.participant_versions_due
        select conversation_sid, participant_sid,
               bool_or(aspect = 'content' and version_at < $3 and not coalesce(erased, '{}') ? 'attributes') as "is_due!"
        from participant_version where (conversation_sid, participant_sid) > ($1, $2)
        group by conversation_sid, participant_sid
        order by conversation_sid, participant_sid limit $4"#,
        window.after.0,
        window.after.1,
        window.before.to_sqlx() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked::of_conversation(row.conversation_sid, row.participant_sid, row.is_due))
        .collect())
}

/// Erases the attributes of old versions of members. Who was in a conversation stays.
pub async fn erase_participant_versions(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    before: Timestamp,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    seats::erase_attributes(conn, keys, Some(before), now).await
}

/// As [`message_versions_due`], of conversations.
pub async fn conversation_versions_due(
    conn: &mut PgConnection,
    window: Window<'_>,
) -> Result<Vec<Looked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.conversation_versions_due
        select conversation_sid,
               bool_or(aspect = 'content' and version_at < $2 and not coalesce(erased, '{}') ? 'attributes') as "is_due!"
        from conversation_version where conversation_sid > $1
        group by conversation_sid
        order by conversation_sid limit $3"#,
        window.after.0,
        window.before.to_sqlx() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked::of_conversation(row.conversation_sid, String::new(), row.is_due))
        .collect())
}

/// Erases the attributes of old versions of conversations.
pub async fn erase_conversation_versions(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    before: Timestamp,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    person::erase_versions_of_conversations(conn, keys.parents, &["attributes"], Some(before), now).await
}
