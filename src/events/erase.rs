//! Erasing what entries of the log say. Their salted hashes stay, so that the seals can still be checked.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::events::Position;

/// Entries after a place that were recorded before a time: places, conversations, and whether they are erased by now.
/// Ends before the first that is not due. What tells of erasing and holding is kept: it counts as erased.
pub async fn due(
    conn: &mut PgConnection,
    after: Position,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(Position, Option<String>, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- events.due_for_erasure
        select commit_xid, event_id, conversation_sid, recorded_at < $3 as "is_due!",
               (coalesce(erased -> 'data' ? 'digest', false)
                or type in ('retention.erased', 'legal_hold.set', 'legal_hold.released')) as "is_erased!"
        from event
        where (commit_xid, event_id) > ($1, $2) and commit_xid < log_horizon()
        order by commit_xid, event_id limit $4"#,
        after.commit_xid,
        after.event_id,
        before.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .take_while(|row| row.is_due)
        .map(|row| {
            let position = Position {
                commit_xid: row.commit_xid,
                event_id: row.event_id,
            };
            (position, row.conversation_sid, row.is_erased)
        })
        .collect())
}

/// Erases what these entries say and who did it; what happened to what, and when, stays. The subject goes where it is a
/// number.
pub async fn erase(
    conn: &mut PgConnection,
    commit_xids: &[i64],
    event_ids: &[i64],
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- events.erase
        select count(*) filter (where erase_from_log(commit_xid, event_id,
            case when subject like '+%' then array['subject', 'actor', 'cause', 'data']
                 else array['actor', 'cause', 'data'] end)) as "erased!"
        from unnest($1::bigint[], $2::bigint[]) as due (commit_xid, event_id)
        join event using (commit_xid, event_id)"#,
        commit_xids,
        event_ids,
    )
    .fetch_one(conn)
    .await
}
