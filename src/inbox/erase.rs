//! Erasing the forms of webhooks. What is known of them otherwise stays: that they came, when, and that they verified.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

/// Webhooks after a number that came before a time: their numbers, conversations, and whether they are erased by now.
/// Ends before the first that is not settled yet.
pub async fn due(
    conn: &mut PgConnection,
    after: i64,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(i64, Option<String>, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- inbox.due_for_erasure
        select webhook_id, conversation_sid, erased_at is not null as "is_erased!",
               (received_at < $2 and not exists (select from webhook_pending as pending
                    where pending.lane = webhook.lane and pending.webhook_id = webhook.webhook_id)) as "is_due!"
        from webhook where webhook_id > $1
        order by webhook_id limit $3"#,
        after,
        before.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .take_while(|row| row.is_due)
        .map(|row| (row.webhook_id, row.conversation_sid, row.is_erased))
        .collect())
}

/// Empties the forms of these webhooks. One that was set aside cannot be projected any more.
pub async fn erase(conn: &mut PgConnection, webhook_ids: &[i64], now: Timestamp) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- inbox.erase
        update webhook set form = '', erased_at = $2
        where webhook_id = any($1) and erased_at is null
          and not exists (select from webhook_pending as pending
              where pending.lane = webhook.lane and pending.webhook_id = webhook.webhook_id)",
        webhook_ids,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}
