//! Attributes of conversations that are over, of members that left, and of users. What lives may still need its own.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::{Keys, Looked, Window, count, person, seats};

const ATTRIBUTES: &[&str] = &["attributes"];

/// Conversations in the order of their SIDs, with those that were over before a time marked as due.
pub async fn conversations_due(
    conn: &mut PgConnection,
    window: Window<'_>,
) -> Result<Vec<Looked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.conversations_due
        select conversation_sid,
               (coalesce(least(closed_at, removed_at) < $2, false) and not coalesce(erased, '{}') ? 'attributes') as "is_due!"
        from conversation where conversation_sid > $1
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

/// Erases the attributes of conversations, and of their versions.
pub async fn erase_conversations(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    person::erase_conversation_fields(conn, keys.parents, ATTRIBUTES, now).await
}

/// Members in the order of their keys, with those that left before a time, or whose conversation was over, marked as due.
pub async fn participants_due(
    conn: &mut PgConnection,
    window: Window<'_>,
) -> Result<Vec<Looked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.participants_due
        select participant.conversation_sid, participant.participant_sid,
               (coalesce(least(participant.removed_at, conversation.closed_at, conversation.removed_at) < $3, false)
                and not coalesce(participant.erased, '{}') ? 'attributes') as "is_due!"
        from participant join conversation using (conversation_sid)
        where (participant.conversation_sid, participant.participant_sid) > ($1, $2)
        order by participant.conversation_sid, participant.participant_sid limit $4"#,
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

/// Erases the attributes of members, and of their versions.
pub async fn erase_participants(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    seats::erase_attributes(conn, keys, None, now).await
}

/// Users in the order of their keys, with those marked as due of whom nothing was told since a time.
pub async fn users_due(conn: &mut PgConnection, window: Window<'_>) -> Result<Vec<Looked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.users_due
        select account_sid, user_sid,
               (version_at < $3 and attributes is not null and not coalesce(erased, '{}') ? 'attributes') as "is_due!"
        from chat_user where (account_sid, user_sid) > ($1, $2)
        order by account_sid, user_sid limit $4"#,
        window.after.0,
        window.after.1,
        window.before.to_sqlx() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked {
            parent: row.account_sid,
            key: row.user_sid,
            conversation_sid: None,
            is_due: row.is_due,
        })
        .collect())
}

/// Erases the attributes of users.
pub async fn erase_users(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- mirror.erase_users
        update chat_user
        set attributes = null, erased_at = $3,
            erased = erasure_marks(erased, array['attributes'], jsonb_build_object('attributes', attributes), null)
        from unnest($1::text[], $2::text[]) as due (parent, key)
        where account_sid = due.parent and user_sid = due.key",
        keys.parents as _,
        keys.keys as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(count(erased.rows_affected()))
}
